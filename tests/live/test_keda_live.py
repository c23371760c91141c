"""KEDA asks a real server, whose gateway holds a request for replicas that somebody else runs."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from keda_client import grpc, keda
from scripted_upstream import UpstreamThread
from swell_process import Reply, SwellProcess, SwellUp, choose_free_port, wait_until

pytestmark = pytest.mark.process

SECONDS = 20.0
ONE = [("swell-replicas", 1, 1.0)]


def spec_of(endpoint_port: int, scaler_port: int, **fields: Any) -> str:
    """A swell.yaml with one model, m, whose replicas would be at a port of this machine."""
    model = {
        "name": "m", "engine": "external", "endpoints": [f"http://127.0.0.1:{endpoint_port}"], "replicas": "0..3",
        "scaling": {"interval_seconds": 0.5, "idle_seconds": 60.0, "start_seconds": 1.0, "hold_seconds": 30.0},
        **fields,
    }  # fmt: skip
    return json.dumps({"models": [model], "server": {"external_scaler": {"port": scaler_port}}})


class Asking:
    """A chat in a thread of its own."""

    def __init__(self, server: SwellProcess) -> None:
        self.replies: list[Reply] = []
        self._thread = threading.Thread(target=lambda: self.replies.append(server.chat(stream=True)))
        self._thread.start()

    def reply(self) -> Reply:
        self._thread.join(SECONDS)
        (reply,) = self.replies
        return reply


@pytest.fixture
def ports() -> tuple[int, int]:
    return choose_free_port(), choose_free_port()


async def test_a_held_request_is_told_of_at_once_and_answered_by_what_others_start(
    swell_up: SwellUp, tmp_path: Path, ports: tuple[int, int]
) -> None:
    endpoint, port = ports
    server = await asyncio.to_thread(swell_up, spec_of(endpoint, port))
    async with asyncio.timeout(2 * SECONDS), keda(port) as client:
        stream = client.follow(model="m")
        assert (await stream.read()).result is False
        assert await client.metrics(model="m") == [("swell-replicas", 0, 0.0)]
        asking = await asyncio.to_thread(Asking, server)
        assert (await stream.read()).result is True
        assert asking.replies == [], "it is held"
        assert await client.metrics(model="m") == ONE
        with UpstreamThread(tmp_path / "upstream.jsonl", port=endpoint):  # what KEDA would start now
            reply = await asyncio.to_thread(asking.reply)
            assert reply.status == 200
            assert reply.body.rstrip().endswith(b"data: [DONE]")
            assert await client.is_active(model="m") is True
            decisions = await asyncio.to_thread(server.command, "status", "--why")
            assert [row["model"] for row in decisions["scaling"]] == ["m"]
            lines = [line for line in decisions["decisions"] if (line["before"], line["replicas"]) == (0, 1)]
            assert lines
            assert "forecast" in lines[0]["reason"] or "wait" in lines[0]["reason"]
        assert await asyncio.to_thread(server.stop) == 0
        assert await stream.read() is grpc.EOF


@pytest.mark.kill
async def test_a_server_that_was_killed_goes_on_with_what_it_wanted(
    swell_up: SwellUp, tmp_path: Path, ports: tuple[int, int]
) -> None:
    endpoint, port = ports
    with UpstreamThread(tmp_path / "upstream.jsonl", port=endpoint):
        server = await asyncio.to_thread(swell_up, spec_of(endpoint, port))
        assert (await asyncio.to_thread(server.chat)).status == 200
        async with asyncio.timeout(2 * SECONDS), keda(port) as client:
            stream = client.follow(model="m")
            assert (await stream.read()).result is True
            await asyncio.to_thread(server.kill)
            with pytest.raises(grpc.AioRpcError) as lost:
                await stream.read()
            assert lost.value.code().name == "UNAVAILABLE"
            await asyncio.to_thread(server.start)
            again = client.follow(model="m")
            assert (await again.read()).result is True, "nobody is told that there shall be none"
            assert await client.metrics(model="m") == ONE
            assert (await asyncio.to_thread(server.chat)).status == 200
            again.cancel()
        wait_until(lambda: server.command("status")["replicas"], seconds=SECONDS, what="its replica is known")
        (replica,) = server.command("status")["replicas"]
        assert (replica["phase"], replica["address"]) == ("ready", f"http://127.0.0.1:{endpoint}")


async def test_another_spec_is_served_and_what_was_wanted_stays(
    swell_up: SwellUp, tmp_path: Path, ports: tuple[int, int]
) -> None:
    endpoint, port = ports
    with UpstreamThread(tmp_path / "upstream.jsonl", port=endpoint):
        server = await asyncio.to_thread(swell_up, spec_of(endpoint, port))
        assert (await asyncio.to_thread(server.chat)).status == 200
        async with asyncio.timeout(2 * SECONDS), keda(port) as client:
            stream = client.follow(model="m")
            assert (await stream.read()).result is True
            file = tmp_path / "more.yaml"
            file.write_text(spec_of(endpoint, port, replicas="0..9"))
            await asyncio.to_thread(server.command, "apply", "-f", str(file))
            assert await stream.read() is grpc.EOF
            assert (await client.follow(model="m").read()).result is True
            assert await client.metrics(model="m") == ONE
        assert server.command("status")["scaling"][0]["max"] == 9
        assert "KeyError" not in server.logs()


async def test_a_port_that_somebody_has_is_told_and_nothing_is_served(
    swell_up: SwellUp, upstream: UpstreamThread, ports: tuple[int, int]
) -> None:
    taken = int(upstream.url.rpartition(":")[2])
    server = swell_up(spec_of(ports[0], taken), ready=False)
    wait_until(lambda: "free the port" in server.output, seconds=SECONDS, what="the server says why it ends")
    assert f"KEDA cannot be listened to at 127.0.0.1:{taken}" in server.output
    assert server.stop() != 0
