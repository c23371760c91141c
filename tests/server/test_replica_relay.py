"""What the sidecar bounds: bytes that wait, connections, and those in which nothing moves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from pod_under_test import CHAT_PODS, CLIENT, Pod, identity
from swell.security.replica_tls import client_context
from swell.server import replica_health, replica_relay
from swell.server.replica_relay import IDLE_LOOKS
from swell.server.replica_sidecar import Sidecar, SidecarSettings

WAIT_SECONDS = 10.0
MUCH = 64 * 1024
MOST_BYTES = 16 * 1024 * 1024  # kernel buffers of loopback, on both sides, are a few megabytes


class Engine:
    """Writes without end to whoever connects, as fast as it is read; counts what was taken."""

    def __init__(self) -> None:
        self.written = 0
        self.connections = 0
        self.ended = 0
        self.talks = True
        self.blocked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await reader.read(1)
            while self.talks:
                writer.write(b"x" * MUCH)
                self.blocked.clear()
                drained = asyncio.ensure_future(writer.drain())
                done, _ = await asyncio.wait([drained], timeout=1.0)
                if not done:
                    self.blocked.set()
                await drained
                self.written += MUCH
            await reader.read()
        except OSError:
            pass
        finally:
            self.ended += 1
            writer.close()


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event, and turns are cheap
            await asyncio.sleep(0)


@pytest.fixture
async def engine() -> AsyncIterator[tuple[Engine, int]]:
    made = Engine()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    yield made, server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def sidecar(engine: tuple[Engine, int], tmp_path: Path) -> AsyncIterator[Sidecar]:
    Pod(tmp_path, 0).mount()
    made = Sidecar(SidecarSettings(tmp_path, CLIENT, 0, engine[1], 0, "/health", host="127.0.0.1"))
    await made.open()
    yield made
    made.close()


class Line(asyncio.Protocol):
    """A gateway's connection that counts what comes."""

    def __init__(self) -> None:
        self.received = 0
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    async def ended(self) -> bool:
        """Wait for its end; whether nothing came before."""
        async with asyncio.timeout(WAIT_SECONDS):
            await self.lost.wait()
        return not self.received


async def _connect(sidecar: Sidecar) -> Line:
    context, loop = client_context(identity()), asyncio.get_running_loop()
    _, line = await loop.create_connection(Line, "127.0.0.1", sidecar.door.port, ssl=context, server_hostname=CHAT_PODS)
    return line


async def _knock(sidecar: Sidecar) -> Line:
    """Where kubelets come."""
    assert sidecar.health is not None
    _, line = await asyncio.get_running_loop().create_connection(Line, "127.0.0.1", sidecar.health.port)
    return line


async def test_an_engine_waits_for_a_gateway_that_does_not_read(engine: tuple[Engine, int], sidecar: Sidecar) -> None:
    line = await _connect(sidecar)
    line.transport.pause_reading()
    line.transport.write(b"?")
    async with asyncio.timeout(WAIT_SECONDS):
        await engine[0].blocked.wait()
    before = engine[0].written
    assert 0 < before < MOST_BYTES
    line.transport.resume_reading()
    await _until(lambda: line.received > before + MUCH)
    engine[0].talks = False
    line.transport.abort()
    await _until(lambda: engine[0].ended == 1 and sidecar.relay.connections == 0)


async def test_there_are_no_more_connections_than_the_bound(
    engine: tuple[Engine, int], sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replica_relay, "MAX_CONNECTIONS", 2)
    engine[0].talks = False
    kept = [await _connect(sidecar) for _ in range(2)]
    await _until(lambda: sidecar.relay.connections == 2)
    for _ in range(3):
        assert await (await _connect(sidecar)).ended()
    assert (sidecar.relay.connections, sidecar.relay.refused) == (2, 3)
    assert capsys.readouterr().err.count("more than 2 connections") == 2  # the first and the second
    for line in kept:
        line.transport.close()
    await _until(lambda: sidecar.relay.connections == 0)
    (await _connect(sidecar)).transport.write(b"?")
    await _until(lambda: sidecar.relay.connections == 1)


async def test_a_connection_in_which_nothing_moves_is_ended(engine: tuple[Engine, int], sidecar: Sidecar) -> None:
    engine[0].talks = False
    quiet, speaking = await _connect(sidecar), await _connect(sidecar)
    await _until(lambda: engine[0].connections == 2)
    for _ in range(IDLE_LOOKS):
        sidecar.relay.look()
    speaking.transport.write(b"?")
    await _until(lambda: {pair.quiet_looks for pair in sidecar.relay._pairs} == {0, IDLE_LOOKS})
    sidecar.relay.look()
    assert await quiet.ended()
    await _until(lambda: sidecar.relay.connections == 1)
    assert not speaking.lost.is_set()


async def test_an_engine_that_is_not_there_costs_its_gateway_a_connection(sidecar: Sidecar) -> None:
    sidecar.relay.engine = ("127.0.0.1", 1)
    assert await (await _connect(sidecar)).ended()
    await _until(lambda: sidecar.relay.connections == 0)


async def test_kubelets_that_say_nothing_are_few_and_wait_for_nobody(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_health, "MAX_ASKING", 2)
    health = sidecar.health
    assert health is not None
    silent = [await _knock(sidecar) for _ in range(2)]
    await _until(lambda: len(health._asking) == 2)
    asking = await _knock(sidecar)
    assert await silent[0].ended()
    asking.transport.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert not await asking.ended()
    silent[1].transport.write(b"G" * (replica_health.MAX_HEAD_BYTES + 1024))
    assert await silent[1].ended()
    await _until(lambda: not health._asking)
