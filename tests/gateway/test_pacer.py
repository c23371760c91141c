"""Bursts are read in few pieces while the worker is busy; nothing is lost, and back-pressure still holds."""

import asyncio
from pathlib import Path

import pytest
from memory_transport import MemoryGateway, MemoryTransport

from swell.gateway.pacer import BURST_SECONDS, BUSY_SHARE, CALM_SHARE, Pacer
from swell.gateway.upstream import UpstreamConnection, UpstreamPool
from swell.state.snapshot import ReplicaEntry
from swell.state.worker import Bounds, Timeouts

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"9\r\ndata: {}\n\r\n"
END = b"0\r\n\r\n"


class Sleeper:
    """Something that rests."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    def rested(self) -> None:
        self.woken.set()


class Reader:
    """Whoever asked: keeps what came."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = False

    def answer_begins(self, connection: UpstreamConnection) -> None:
        connection.sink = self.take

    def answer_whole(self, content_type: bytes, body: bytes) -> None:
        raise AssertionError("a stream is not a whole answer")

    def answer_ends(self, *, reusable: bool) -> None:
        self.ended = True

    def answer_fails(self, reason: str, *, stale: bool) -> None:
        raise AssertionError(reason)

    def take(self, data: bytes) -> None:
        self.got += data


class World:
    """A connection on a clock of its own, whose pacer wakes nobody until it is told to."""

    def __init__(self, *, busy: bool = True, content_type: bytes = b"text/event-stream") -> None:
        self.now = 100.0
        self.pacer = Pacer(asyncio.get_running_loop())
        self.pacer.is_busy = busy
        self.resting: list[UpstreamConnection] = []
        self.pacer.rest = self.resting.append  # type: ignore[method-assign,assignment]
        entry = ReplicaEntry("m-0", "127.0.0.1", 1)
        self.pool = UpstreamPool(entry, Timeouts(), Bounds(), pacer=self.pacer, now=lambda: self.now)
        self.connection, self.transport = UpstreamConnection(self.pool), MemoryTransport()
        self.connection.connection_made(self.transport)
        self.reader = Reader()
        self.connection.send(self.reader, b"POST / HTTP/1.1\r\n\r\n")
        self.connection.data_received(HEAD % content_type + EVENT)

    def read(self, data: bytes, *, after: float) -> None:
        self.now += after
        self.connection.data_received(data)


async def test_a_burst_rests_between_reads_and_the_end_wakes_nobody() -> None:
    world = World()
    assert not world.resting  # the first event of all passes at once
    world.read(EVENT, after=BURST_SECONDS / 4)
    assert world.resting == [world.connection]
    assert not world.transport.reading
    world.connection.rested()
    assert world.transport.reading
    world.read(EVENT + END, after=BURST_SECONDS / 4)
    assert world.reader.ended
    assert world.reader.got == EVENT * 3 + END
    assert world.transport.reading  # it is kept for the next request
    assert world.resting == [world.connection]


async def test_slow_streams_other_answers_and_calm_workers_never_rest() -> None:
    slow, plain, calm = World(), World(content_type=b"application/json"), World(busy=False)
    slow.read(EVENT, after=BURST_SECONDS * 1.01)
    plain.read(EVENT, after=0)
    calm.read(EVENT, after=0)
    for world in (slow, plain, calm):
        assert not world.resting
        assert world.transport.reading


@pytest.mark.parametrize("order", ["held, rested, released", "held, released, rested"])
async def test_a_client_that_does_not_keep_up_stops_the_reading_whoever_wakes(order: str) -> None:
    world = World()
    world.read(EVENT, after=0)
    for step in order.split(", "):
        assert not world.transport.reading
        {"held": world.connection.hold, "released": world.connection.go_on, "rested": world.connection.rested}[step]()
    assert world.transport.reading


async def test_a_connection_that_is_gone_is_not_read_again() -> None:
    world = World()
    world.read(EVENT, after=0)
    world.connection.abort()
    world.connection.rested()
    assert not world.transport.reading


async def test_the_timer_wakes_everybody_and_can_be_set_again() -> None:
    pacer = Pacer(asyncio.get_running_loop())
    for _ in range(3):
        sleepers = [Sleeper(), Sleeper()]
        for sleeper in sleepers:
            pacer.rest(sleeper)
        for sleeper in sleepers:
            await asyncio.wait_for(sleeper.woken.wait(), 5)
    last = Sleeper()
    pacer.rest(last)
    pacer.close()
    assert last.woken.is_set()


async def test_busy_and_calm_have_bounds_apart() -> None:
    pacer = Pacer(asyncio.get_running_loop())
    seen, cpu = [], 0.0
    between = (BUSY_SHARE + CALM_SHARE) / 2
    for second, share in enumerate((0.0, between, 0.9, between, 0.1, between)):
        cpu += share
        pacer.look(second + 1.0, cpu)
        seen.append(pacer.is_busy)
    pacer.look(6.0, cpu)  # no time has passed: nothing is known
    assert seen == [False, False, True, True, False, False]
    assert not pacer.is_busy
    pacer.close()


def test_a_stream_and_its_head_are_one_write(tmp_path: Path) -> None:
    gateway = MemoryGateway(tmp_path)
    writes: list[bytes] = []
    gateway.client_transport.write = lambda data: writes.append(bytes(data))  # type: ignore[method-assign]
    body = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}'
    key = gateway.token if isinstance(gateway.token, bytes) else gateway.token.encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-api-key: %b\r\ncontent-length: %d\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    upstream = HEAD % b"text/event-stream"
    for answer in ([upstream + chunk, END], [upstream, chunk, END], [upstream, END]):
        writes.clear()
        gateway.exchange(head % (key, len(body)) + body, answer)
        assert writes[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"".join(writes).endswith(b"".join(answer)[len(upstream) :])
        assert len(writes) == len(answer)  # the head never costs a write of its own where something came with it
    gateway.close()
