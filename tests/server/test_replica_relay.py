"""What the sidecar bounds: bytes that wait, connections, and those in which nothing moves."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest

from pod_under_test import AUTHORITY, CHAT_PODS, CLIENT, DAY, EXPIRED, Pod, identity
from swell.security.certificates import issue_certificate
from swell.security.replica_tls import CERTIFICATE_FILE, KEY_FILE, client_context
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


async def test_a_certificate_that_is_not_good_now_takes_no_ones_place(sidecar: Sidecar, tmp_path: Path) -> None:
    Pod(tmp_path, 0).mount(lasts=EXPIRED)
    assert not sidecar.reload()
    later = issue_certificate(AUTHORITY, CHAT_PODS, time.time() + 5 * DAY, lasts_seconds=DAY)
    (tmp_path / CERTIFICATE_FILE).write_bytes(later.certificate)
    (tmp_path / KEY_FILE).write_bytes(later.private_key)
    assert not sidecar.reload()
    assert (await _connect(sidecar)).transport.get_extra_info("cipher") is not None
    Pod(tmp_path, 0).mount()
    assert sidecar.reload()


async def test_a_session_is_not_taken_up_again_without_a_certificate(sidecar: Sidecar) -> None:
    def session() -> ssl.SSLSession | None:
        context = client_context(identity())
        plain = socket.create_connection(("127.0.0.1", sidecar.door.port), timeout=WAIT_SECONDS)
        with context.wrap_socket(plain, server_hostname=CHAT_PODS) as secured:
            secured.sendall(b"x")
            assert secured.recv(1) == b"x"  # tickets come before what the engine says
            return secured.session

    found = await asyncio.to_thread(session)
    assert found is None or not found.has_ticket


class Silent:
    """Takes questions and answers none until it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        await self.may_answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()


async def test_a_kubelet_that_has_asked_makes_room_for_nobody(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_health, "MAX_ASKING", 2)
    health, slow = sidecar.health, Silent()
    assert health is not None
    server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    health._engine = server.sockets[0].getsockname()[:2]
    asking = [await _knock(sidecar) for _ in range(2)]
    for each in asking:
        each.transport.write(b"GET /health HTTP/1.1\r\n\r\n")
    await _until(lambda: len(health._asking) == 2 and not health._silent and slow.asked == 1)
    assert await (await _knock(sidecar)).ended()
    slow.may_answer.set()
    assert [await each.ended() for each in asking] == [False, False]
    assert slow.asked == 1
    server.close()


async def test_who_makes_room_before_it_began_leaves_no_socket(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_health, "MAX_ASKING", 1)
    health = sidecar.health
    assert health is not None
    lines = [await _knock(sidecar) for _ in range(20)]
    for each in lines[:-1]:
        assert await each.ended()
    assert not lines[-1].lost.is_set()


class Outgoing(asyncio.Transport):
    """Tells of less and less that is left to be written, as `sizes` say."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.sizes.pop(0)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        return

    def abort(self) -> None:
        self.aborted.set()


async def test_a_gateway_is_waited_for_as_long_as_it_takes_some_more(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica_relay, "LINGER_SECONDS", 0.0)
    pair = replica_relay.Pair(sidecar.relay)
    left = Outgoing(100, 60, 20, 20, 10)
    pair.gateway.transport = left
    pair.lost(pair.engine, None)
    async with asyncio.timeout(WAIT_SECONDS):
        await left.aborted.wait()
    assert left.sizes == [10], "it took nothing between two looks"


def test_what_a_gateway_has_taken_is_what_its_machine_has_acknowledged() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs, _ = server.accept()
        with theirs:
            left = Outgoing(0, 0, 400)
            left._extra = {"socket": ours}
            before = replica_relay._taken(left)
            ours.sendall(b"x" * 1000)
            assert theirs.recv(1000, socket.MSG_WAITALL) == b"x" * 1000
            assert replica_relay._taken(left) == before + 1000
            assert replica_relay._taken(left) == before + 600, "what still waits here was not taken"


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
