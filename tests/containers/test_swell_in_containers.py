"""`swell up` whose replicas are containers with the real engine: as processes behave, and nothing left behind."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import live_load
import pytest
from live_load import Clients, check_stream, check_trail, replicas_of, trail_of, until_none, until_ready

from swell.adapters.providers.container_body import CHILD, INSTALLATION
from swell.testing.docker_daemon import DockerDaemon
from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = [pytest.mark.services, pytest.mark.containers, pytest.mark.model, pytest.mark.timeout(900)]

MODEL = "smollm2"
READY_SECONDS = 60.0
TOKENS = 150  # a good part of a second of decoding, so that the stream is not over before something is killed
REACTIVE = (str(Path(live_load.__file__).with_name("reactive_swell.py")),)


@dataclass
class Scene:
    """Starts servers whose replicas run in the tests' daemon."""

    docker: DockerDaemon
    image: str
    model_file: Path
    swell_up: SwellUp

    def up(self, replicas: str, network: str | None = None, **options: Any) -> SwellProcess:
        """A server with one model."""
        scaling = {"interval_seconds": 0.5, "idle_seconds": 2.0, "start_seconds": 2.0}
        model = {
            "name": MODEL, "source": str(self.model_file), "engine": "llama.cpp", "replicas": replicas,
            "scaling": scaling, "objectives": {"ttft_ms": 3000.0, "itl_ms": 500.0},
        }  # fmt: skip
        place = {
            "name": "here", "kind": "container", "socket": str(self.docker.socket),
            "images": {"llama.cpp": self.image}, "cpus": 1.0, "memory": "1GiB", "network": network,
        }  # fmt: skip
        return self.swell_up(json.dumps({"models": [model], "providers": [place]}), **options)

    def containers(self, server: SwellProcess, *, running: bool = True) -> dict[str, str]:
        """Of this server: container ids by child id."""
        installation = (server.state / "installation").read_text()
        listed = self.docker.containers({INSTALLATION: installation}, running=running)
        return {each["Labels"][CHILD]: each["Id"] for each in listed}

    def clear(self) -> None:
        """After a test that failed: no container of any server's stays."""
        for each in self.docker.containers({}):
            if INSTALLATION in (each.get("Labels") or {}):
                self.docker.remove_containers({INSTALLATION: each["Labels"][INSTALLATION]})


@pytest.fixture
def scene(
    docker: DockerDaemon, build_image: Callable[[str], str], model_file: Path, swell_up: SwellUp
) -> Iterator[Scene]:
    scene = Scene(docker, build_image("engine-llama.cpp"), model_file, swell_up)
    yield scene
    scene.clear()


def test_replicas_in_containers_come_and_go_and_nobody_is_failed(scene: Scene) -> None:
    server = scene.up("0..2", program=REACTIVE)
    assert replicas_of(server) == []
    burst = Clients(server, count=6, asks=2, model=MODEL, fields={"max_tokens": 8})
    burst.start()
    burst.join()
    burst.check_whole()
    until_none(server, seconds=30.0)
    wait_until(lambda: not scene.containers(server, running=False), what="the containers are removed")
    check_stream(server.chat(MODEL, stream=True, max_tokens=8))
    numbers = check_trail(trail_of(server))
    assert numbers[0] == 0
    assert max(numbers) == 2
    assert 0 in numbers[1:]
    assert [row["status"] for row in server.command("usage")] == ["settled"] * 13
    assert "smollm2-0" in {row["name"] for row in server.command("logs")}
    assert server.stop() == 0
    assert (server.children(), scene.containers(server, running=False)) == ([], {})


def test_a_server_that_is_killed_finds_its_containers_again(scene: Scene) -> None:
    server = scene.up("1..1")
    [first] = until_ready(server, 1, READY_SECONDS)
    before = scene.containers(server)
    words = {"max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    stream = server.open_chat(MODEL, **words)
    assert stream.readline().startswith(b"data: ")
    server.kill()
    assert server.chat(MODEL, max_tokens=2).status == 200
    server.start()
    [again] = until_ready(server, 1, READY_SECONDS)
    assert (again["replica_id"], again["restarts"]) == (first["replica_id"], 0)
    assert stream.read().rstrip().endswith(b"data: [DONE]")
    assert scene.containers(server, running=False) == before

    stream = server.open_chat(MODEL, **words)
    assert stream.readline().startswith(b"data: ")
    [container] = before.values()
    scene.docker.kill_container(container)
    assert b'"error"' in stream.read()
    server.wait_model(MODEL)
    [other] = until_ready(server, 1, READY_SECONDS)
    assert other["restarts"] == 1
    assert list(scene.containers(server, running=False)) == [other["replica_id"]]
    rows = server.command("usage")
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert server.stop() == 0
    assert scene.containers(server, running=False) == {}


def test_down_ends_what_a_killed_server_left_in_containers(scene: Scene) -> None:
    server = scene.up("1..1")
    until_ready(server, 1, READY_SECONDS)
    server.kill()
    assert scene.containers(server)
    server.command("down")
    wait_until(lambda: not scene.containers(server, running=False), what="nothing is left")
    assert server.children() == []


@pytest.mark.parametrize("network", [None, "bridge"])
def test_a_daemon_that_is_killed_takes_no_replica_with_it(network: str | None, scene: Scene) -> None:
    server = scene.up("1..1", network)
    [first] = until_ready(server, 1, READY_SECONDS)
    if not scene.docker.is_ours:
        pytest.skip("the daemon is not the tests' own; unset SWELL_TEST_DOCKER to have it killed")
    scene.docker.kill()
    try:
        if network:  # a published port is dockerd's own proxy, which dies with it
            assert server.chat(MODEL, max_tokens=2).status == 200
        assert replicas_of(server)[0]["phase"] == "ready"
    finally:
        scene.docker.start()
    # A daemon that begins publishes the ports of what it finds anew; for that moment nobody is let in.
    wait_until(lambda: server.chat(MODEL, max_tokens=2).status == 200, seconds=READY_SECONDS, what="it is served again")
    assert [replica["replica_id"] for replica in replicas_of(server)] == [first["replica_id"]]
    scene.docker.kill_container(scene.containers(server)[first["replica_id"]])
    wait_until(
        lambda: [replica for replica in replicas_of(server) if replica["restarts"] == 1],
        seconds=READY_SECONDS,
        what="its end is heard from the daemon that came back",
    )
    server.wait_model(MODEL)
    assert server.stop() == 0
    assert scene.containers(server, running=False) == {}
