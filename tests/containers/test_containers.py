"""What is particular to containers: shut in, reached where they say, found again, and nothing left behind."""

import asyncio
import http.client
import json
import re
from dataclasses import replace

import pytest
from container_harness import STEADY, ContainerHarness

from swell.adapters.providers.container_body import container_name
from swell.errors import AtCapacity, LaunchFailed
from swell.ports.engine import Address
from swell.ports.provider import Mount, Needs, Presence

pytestmark = [pytest.mark.services, pytest.mark.containers]

SERVE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *_): pass
server = http.server.HTTPServer(("0.0.0.0", 8000), Handler)
print("steady", flush=True)
server.serve_forever()
"""

REPORT = """
import json, os
def can_write(path):
    try:
        open(path + "/x", "w").close()
        return True
    except OSError:
        return False
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "capabilities": status["CapEff"].strip() + status["CapBnd"].strip().replace("0", ""),
    "new_privileges": status["NoNewPrivs"].strip(),
    "writes": [path for path in ("/", "/etc", "/var/tmp", "/tmp", "/files", os.environ["HOME"]) if can_write(path)],
    "model": open("/files/model").read(),
    "secret": os.environ["KEY"],
    "marker": os.environ["SWELL_CHILD"],
    "first": open("/proc/1/comm").read().strip(),
}), flush=True)
"""


def _ask(address: Address) -> bytes:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


async def test_a_container_may_do_nothing_but_its_work(containers: ContainerHarness) -> None:
    model = containers.folder / "model"
    model.write_text("weights")
    model.chmod(0o644)
    mount = Mount(str(model), "/files/model")
    child = containers.python(REPORT, needs=Needs(containers.image, cpus=0.5, memory_bytes=2**28, mounts=(mount,)))
    child = replace(child, env={"KEY": "not-for-logs"})
    provider = containers.provider()
    handle = await provider.start(child)
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    text = handle.log_path.read_text()
    report = json.loads(text.splitlines()[1])
    assert report["user"] == [65532, 65532]
    assert set(report["capabilities"]) == {"0"}
    assert report["new_privileges"] == "1"
    # Its home is /tmp as well; podman gives every read-only container a /var/tmp in memory.
    assert [path for path in report["writes"] if path != "/var/tmp"] == ["/tmp"] * 2  # noqa: S108
    assert (report["model"], report["secret"], report["marker"]) == ("weights", "not-for-logs", child.child_id)
    assert report["first"] in ("docker-init", "podman-init")
    assert "not-for-logs" not in repr(child)
    detail = containers.docker.ask("GET", f"/containers/{container_name(child.child_id)}/json")
    host = detail["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 2**28, 2**28)
    assert host["RestartPolicy"]["Name"] == "no"
    assert [mount["RW"] for mount in detail["Mounts"] if mount["Type"] == "bind"] == [False]


async def test_its_port_is_reached_on_loopback_at_an_address_that_is_told(containers: ContainerHarness) -> None:
    provider = containers.provider()
    handle = await provider.start(containers.python(SERVE, port=provider.binding.port or 0))
    await containers.settled(handle)
    await containers.until(lambda: provider.status(handle).address is not None)
    address = provider.status(handle).address
    assert address is not None
    assert (address.host, address.port != 8000) == ("127.0.0.1", True)
    assert await asyncio.to_thread(_ask, address) == b"hello"
    later = containers.provider()
    await later.adopt(handle.child_id, handle.log_path, None)
    assert later.status(handle).address == address


async def test_in_a_network_that_exists_it_has_the_containers_own_address(containers: ContainerHarness) -> None:
    name = f"swell-test-{containers.installation}"
    containers.docker.ask("POST", "/networks/create", json={"Name": name, "Internal": True})
    try:
        provider = containers.provider(replace(containers.place, network=name))
        handle = await provider.start(containers.python(SERVE, port=8000))
        await containers.settled(handle)
        await containers.until(lambda: provider.status(handle).address is not None)
        address = provider.status(handle).address
        assert address is not None
        assert (address.host != "127.0.0.1", address.port) == (True, 8000)
        assert await asyncio.to_thread(_ask, address) == b"hello"
    finally:
        await containers.close()
        containers.docker.ask("DELETE", f"/networks/{name}")


async def test_another_installation_leaves_it_alone(containers: ContainerHarness) -> None:
    provider = containers.provider()
    handle = await provider.start(containers.steady())
    await containers.settled(handle)
    stranger = containers.provider(replace(containers.place, installation="another"))
    assert await stranger.adopt(handle.child_id, handle.log_path, handle) is None
    assert provider.status(handle).presence is Presence.RUNNING
    assert containers.living() == {handle.child_id}


async def test_a_name_that_somebody_else_has_is_refused(containers: ContainerHarness) -> None:
    child = containers.steady()
    name = container_name(child.child_id)
    labels = containers.labels  # but of no child
    body = {"Image": containers.image, "Cmd": ["python3", "-c", STEADY], "Labels": labels}
    containers.docker.ask("POST", "/containers/create", params={"name": name}, json=body)
    with pytest.raises(LaunchFailed, match="already in use"):
        await containers.provider().start(child)


async def test_nothing_is_left_of_what_was_forgotten(containers: ContainerHarness) -> None:
    def kept() -> tuple[int, int, int]:
        volumes = containers.docker.ask("GET", "/volumes")["Volumes"] or []
        networks = containers.docker.ask("GET", "/networks")
        return len(containers.docker.containers(containers.labels)), len(volumes), len(networks)

    before = kept()
    provider = containers.provider()
    for child in (containers.steady(), containers.failing()):
        handle = await provider.start(child)
        await provider.stop(handle, grace_seconds=5.0)
        await containers.until(lambda handle=handle: provider.status(handle).presence is Presence.GONE)  # type: ignore[misc]
        await provider.forget(handle)
    await containers.until(lambda: kept() == before)
    assert kept() == before


async def test_what_ended_while_no_server_looked_is_removed(containers: ContainerHarness) -> None:
    first = containers.provider()
    handle = await first.start(containers.steady())
    await containers.settled(handle)
    await first.close()
    containers.docker.kill_container(container_name(handle.child_id))
    later = containers.provider()
    other = await later.start(containers.steady())  # it compares what there is as soon as it hears events
    await containers.until(lambda: len(containers.docker.containers(containers.labels)) == 1)
    assert containers.living() <= {other.child_id}


async def test_what_no_store_knows_any_more_is_ended_after_adoption(containers: ContainerHarness) -> None:
    first = containers.provider()
    kept, lost = [await first.start(containers.steady()) for _ in range(2)]
    for handle in (kept, lost):
        await containers.settled(handle)
    await first.close()
    later = containers.provider()
    assert await later.adopt(kept.child_id, kept.log_path, None) == kept
    await later.end_orphans()
    await containers.until(lambda: len(containers.docker.containers(containers.labels)) == 1)
    assert containers.living() == {kept.child_id}
    assert later.status(kept).presence is Presence.RUNNING


async def test_a_log_is_continued_by_a_later_server_where_it_was_left(containers: ContainerHarness) -> None:
    code = "import signal, sys\nprint('steady', flush=True)\n"
    code += "signal.pthread_sigmask(signal.SIG_BLOCK, {10})\nnumber = 0\n"
    code += "while True:\n    signal.sigwait({10}); number += 1; print('line', number, 'x' * 40000, flush=True)\n"
    child = containers.python("import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {10})\n" + code)
    first = containers.provider()
    handle = await first.start(child)
    await containers.settled(handle)
    name = container_name(child.child_id)

    def lines() -> list[str]:
        return re.findall(r"^line \d+ x{40000}$", handle.log_path.read_text(), flags=re.MULTILINE)

    def numbers() -> list[str]:
        return list(dict.fromkeys(line.split()[1] for line in lines()))

    async def poke(expected: int) -> None:
        containers.docker.ask("POST", f"/containers/{name}/kill", params={"signal": "SIGUSR1"})
        await containers.until(lambda: len(lines()) == expected)

    await poke(1)
    await poke(2)
    await first.close()
    containers.docker.ask("POST", f"/containers/{name}/kill", params={"signal": "SIGUSR1"})
    later = containers.provider()
    assert await later.adopt(child.child_id, handle.log_path, None) == handle
    await containers.until(lambda: numbers() == ["1", "2", "3"])
    containers.docker.ask("POST", f"/containers/{name}/kill", params={"signal": "SIGUSR1"})
    await containers.until(lambda: numbers() == ["1", "2", "3", "4"])
    assert len(lines()) == 4 or containers.docker.is_podman


async def test_gpus_that_a_machine_lacks_are_an_end_with_the_daemons_reason(containers: ContainerHarness) -> None:
    if containers.docker.is_podman:
        pytest.skip("podman before 5 knows no GPUs by request and starts without; run this with dockerd")
    provider = containers.provider(replace(containers.place, devices=("0", "1")))
    needs = Needs(containers.image, accelerators=1)
    handle = await provider.start(containers.python(STEADY, needs=needs))
    await containers.until(lambda: provider.status(handle).presence is Presence.GONE)
    assert "could not select device driver" in await provider.log_tail(handle.log_path)
    await containers.until(lambda: not containers.docker.containers(containers.labels))


async def test_memory_that_others_were_promised_is_not_promised_again(containers: ContainerHarness) -> None:
    total = containers.docker.ask("GET", "/info")["MemTotal"]
    needs = Needs(containers.image, memory_bytes=int(total * 0.6))
    provider = containers.provider()
    handle = await provider.start(containers.python(STEADY, needs=needs))
    await containers.settled(handle)
    with pytest.raises(AtCapacity, match="promised to other"):
        await provider.start(containers.python(STEADY, needs=needs))
    later = containers.provider()
    await later.adopt(handle.child_id, handle.log_path, None)
    with pytest.raises(AtCapacity, match="promised to other"):
        await later.start(containers.python(STEADY, needs=needs))
    with pytest.raises(LaunchFailed, match="lower its memory"):
        await later.start(containers.python(STEADY, needs=replace(needs, memory_bytes=2 * total)))
