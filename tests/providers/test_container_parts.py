"""What can be known of containers without a daemon: names, bodies, answers, logs, room."""

import struct
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.adapters.providers.container_api import DockerApi
from swell.adapters.providers.container_body import (
    ContainerPlace,
    container_name,
    create_body,
    exit_code_of,
    seen_alone,
    seen_in_list,
)
from swell.adapters.providers.container_images import PullProgress
from swell.adapters.providers.container_logs import Frames, nanoseconds_of
from swell.adapters.providers.container_rooms import free_devices
from swell.errors import AtCapacity, LaunchFailed
from swell.ports.engine import Address
from swell.ports.provider import ChildSpec, Mount, Needs

PLACE = ContainerPlace("here", Path("docker.sock"), "0a1b", user="1000:1000", devices=("0", "1", "2"))
CHILD = ChildSpec(
    "org/chat:8b-0.1a2b",
    ("python3", "-m", "engine"),
    Path("chat-0.log"),
    {"KEY": "secret"},
    workload="org/chat:8b",
    fingerprint="ff",
    port=8000,
    needs=Needs("engine:1", cpus=1.5, memory_bytes=2**30, mounts=(Mount("/cache", "/models"), Mount("data", "/data"))),
)


@given(st.text(alphabet="abcXYZ019._-/:", min_size=1, max_size=80))
def test_every_id_becomes_a_name_that_a_container_may_have(child_id: str) -> None:
    name = container_name(child_id)
    assert name[0].isalnum()
    assert len(name) > 1
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyzXYZ019._-")


def test_an_id_without_special_characters_is_the_name_itself() -> None:
    assert container_name("chat-0.1a2b3c4d") == "chat-0.1a2b3c4d"


def test_a_body_gives_away_nothing_and_takes_what_is_needed() -> None:
    body = create_body(PLACE, CHILD, ("1",))
    host = body["HostConfig"]
    assert (body["Entrypoint"], body["Cmd"], body["User"]) == (["python3"], ["-m", "engine"], "1000:1000")
    assert {"KEY=secret", f"SWELL_CHILD={CHILD.child_id}"} <= set(body["Env"])
    assert "secret" not in str(body["Labels"])
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["SecurityOpt"]) == (True, ["ALL"], ["no-new-privileges"])
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (1_500_000_000, 2**30, 2**30)
    assert host["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert [(mount["Type"], mount["ReadOnly"]) for mount in host["Mounts"]] == [("bind", True), ("volume", True)]
    assert host["DeviceRequests"] == [{"Driver": "", "DeviceIDs": ["1"], "Capabilities": [["gpu"]]}]
    labels = {name.removeprefix("swell."): value for name, value in body["Labels"].items()}
    assert labels == {
        "child": CHILD.child_id, "workload": "org/chat:8b", "fingerprint": "ff", "installation": "0a1b",
        "place": "here", "devices": "1", "memory": str(2**30),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "told"),
    [(0, 0), (1, 1), (127, 127), (128, 128), (137, -9), ("143", -15), (192, -64), (193, 193), ("?", None)],
)
def test_exit_codes_tell_signals_as_the_port_does(code: object, told: int | None) -> None:
    assert exit_code_of(code) == told


def test_a_container_is_the_same_in_the_list_and_alone() -> None:
    labels = create_body(PLACE, CHILD, ("0", "2"))["Labels"]
    networks = {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}
    entry = {
        "Names": ["/chat"], "Labels": labels, "State": "running", "NetworkSettings": networks,
        "Ports": [{"IP": "127.0.0.1", "PrivatePort": 8000, "PublicPort": 32768, "Type": "tcp"}],
    }  # fmt: skip
    ports = {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "32768"}], "9000/tcp": None}
    detail = {
        "Name": "/chat", "Config": {"Labels": labels}, "State": {"Status": "running", "ExitCode": 0},
        "NetworkSettings": {**networks, "Ports": ports},
    }  # fmt: skip
    listed, alone = seen_in_list(entry, PLACE), seen_alone(detail, PLACE)
    assert (listed.child_id, listed.name, listed.runs) == (CHILD.child_id, "chat", True)
    assert listed.address == alone.address == Address("127.0.0.1", 32768)
    assert listed.devices == alone.devices == ("0", "2")
    assert listed.memory_bytes == alone.memory_bytes == 2**30
    within = ContainerPlace("here", Path("s"), "0a1b", user="1:1", network="bridge")
    assert seen_in_list(entry, within).address == Address("172.17.0.2", 8000)
    assert seen_in_list(entry, ContainerPlace("here", Path("s"), "other", user="1:1")).child_id == ""


def _frame(stream: int, second: int, line: bytes) -> bytes:
    stamp = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode() + b".000000001Z"
    content = stamp + b" " + line
    return struct.pack(">BxxxI", stream, len(content)) + content


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_a_log_is_the_same_however_its_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(_frame(1 + second % 2, second, line) for second, line in enumerate(lines, 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    frames = Frames()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert b"".join(frames.feed(piece) for piece in pieces) == b"".join(lines)
    frames.resume()
    assert frames.feed(stream) == b""  # all of it is there already
    frames.resume()
    assert frames.feed(stream + _frame(1, 100, b"new\n")) == b"new\n"


def test_where_times_are_whole_seconds_nothing_is_lost() -> None:
    frames = Frames()
    early, late = (_frame(1, 5, line).replace(b".000000001Z", b"Z") for line in (b"early", b"late"))
    early, late = (struct.pack(">BxxxI", 1, len(frame) - 8) + frame[8:] for frame in (early, late))
    assert frames.feed(early) == b"early"
    frames.resume()
    assert frames.feed(early + late) == b"earlylate"


def test_lines_of_one_moment_are_all_kept() -> None:
    frames = Frames()
    assert frames.feed(_frame(1, 5, b"a") + _frame(1, 5, b"b")) == b"ab"


def test_what_is_no_stream_of_frames_fills_no_memory() -> None:
    frames = Frames()
    assert frames.feed(b"\xff" * 100_000) == b""
    assert frames.feed(_frame(1, 5, b"a")) == b"a"


@pytest.mark.parametrize(
    ("stamp", "nanoseconds"),
    [
        (b"1970-01-01T00:00:01.5Z", 1_500_000_000),
        (b"2026-11-29T20:09:54.377465757Z", 1_795_982_994_377_465_757),
        (b"1970-01-01T00:00:01Z", 1_000_000_000),
        (b"steady", None),
        (b"\xff", None),
    ],
)
def test_times_are_read_to_the_nanosecond(stamp: bytes, nanoseconds: int | None) -> None:
    assert nanoseconds_of(stamp) == nanoseconds


def test_a_pull_is_told_in_what_was_downloaded() -> None:
    progress = PullProgress()
    assert progress.text() == ""
    for layer, done, total in (("a", 10, 40), ("b", 2_000, 4_000), ("a", 30, 40)):
        detail = {"current": done * 1_000_000, "total": total * 1_000_000}
        progress.hear({"status": "Downloading", "id": layer, "progressDetail": detail})
    progress.hear({"status": "Extracting", "id": "a", "progressDetail": {"current": 1, "total": 99}})
    assert progress.text() == "2.0 GB of 4.0 GB"
    progress.hear({"status": "Download complete", "id": "b"})
    assert progress.text() == "4.0 GB of 4.0 GB"


def test_a_gpu_is_one_replicas_at_a_time() -> None:
    assert free_devices(PLACE, 0, ()) == ()
    assert free_devices(PLACE, 2, {"0"}) == ("1", "2")
    with pytest.raises(AtCapacity, match="1 of the 3 GPUs of here are free and a replica needs 2"):
        free_devices(PLACE, 2, {"0", "2"})
    with pytest.raises(LaunchFailed, match="needs 4 GPUs and here has 3"):
        free_devices(PLACE, 4, ())


async def test_a_daemon_is_asked_for_changes_only_where_that_is_confirmed(tmp_path: Path) -> None:
    async def doubt() -> None:
        raise AtCapacity("another server may lead", retry_after_seconds=1.0)

    api = DockerApi(tmp_path / "nobody.sock", doubt)
    for method, path in (("POST", "/containers/c/kill"), ("DELETE", "/containers/c")):
        with pytest.raises(AtCapacity, match="another server may lead"):
            await api.call(method, path)
    with pytest.raises(AtCapacity, match="does not answer"):
        await api.call("GET", "/containers/json")
    await api.close()
