"""The control channel, spoken to by a client that is built on its messages alone."""

import asyncio
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from swell.clock import ManualClock
from swell.metering.leases import LeaseBook
from swell.server.channel import ControlChannel
from swell.server.publish import LOG_DELTAS, Picture, Publication
from swell.state.messages import (
    FrameBuffer,
    FromServer,
    FromWorker,
    Hello,
    LeaseDeny,
    LeaseGrant,
    LeaseRecall,
    LeaseReport,
    LeaseRequest,
    LimitBalance,
    Load,
    MetricsRequest,
    MetricsResponse,
    Sample,
    decode_from_server,
    encode_message,
)
from swell.state.snapshot import Delta, KeyDigest, KeyEntry, Limits, Snapshot, TenantEntry

EPOCH = 3
WAIT_SECONDS = 5.0
RATE = "tenant:t:requests_per_minute"
SLOTS = "tenant:t:concurrent_requests"
TENANT = TenantEntry("t", Limits(requests_per_minute=8, concurrent_requests=2))
KEY = KeyEntry("k1", "t", (KeyDigest(b"d"),))
PICTURE = Picture(2, (), (KEY,), (TENANT,))


class Worker:
    """A connection as a worker makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._frames, self._ready = FrameBuffer(), list[FromServer]()

    def send(self, message: FromWorker) -> None:
        self._writer.write(encode_message(message))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> FromServer | None:
        """The next message, None at the end of the connection."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not self._ready:
                data = await self._reader.read(65536)
                if not data:
                    return None
                self._ready += [decode_from_server(frame) for frame in self._frames.feed(data)]
        return self._ready.pop(0)

    async def settle(self) -> None:
        """Wait until the server has acted on everything sent so far."""
        self.send(MetricsRequest(99))
        while not isinstance(await self.receive(), MetricsResponse):
            pass

    def close(self) -> None:
        self._writer.close()


class Bench:
    """A channel, its clock and its workers."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.known = path, ManualClock(), {"a", "b"}
        self.leases, self.changed = LeaseBook(), asyncio.Event()
        self.channel = ControlChannel(
            publication=Publication(EPOCH, PICTURE),
            leases=self.leases,
            clock=self.clock,
            is_known=lambda name: name in self.known,
            server_samples=lambda: [Sample("swell_server_up", (), 1.0)],
            on_change=self.changed.set,
        )
        self._workers: list[Worker] = []

    async def connect(self) -> Worker:
        worker = Worker(*await asyncio.open_unix_connection(self.path))
        self._workers.append(worker)
        return worker

    async def join(self, name: str, epoch: int = 0, sequence: int = 0, *balances: LimitBalance) -> Worker:
        worker = await self.connect()
        worker.send(Hello(0, name, 1, epoch, sequence, balances))
        return worker

    async def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self.channel.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swell-") as name:  # tmp_path is too long for a Unix socket
        yield Path(name)


@pytest.fixture
async def bench(folder: Path) -> AsyncIterator[Bench]:
    bench = Bench(folder / "control.sock")
    await bench.channel.open(bench.path)
    yield bench
    await bench.close()


async def test_the_socket_is_private(bench: Bench) -> None:
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600


async def test_a_new_worker_gets_everything_and_then_each_change(bench: Bench) -> None:
    worker = await bench.join("a")
    snapshot = await worker.receive()
    assert snapshot == PICTURE.numbered(EPOCH, 1)
    bench.channel.publish(Picture(2, (), (), (TENANT,)))
    delta = await worker.receive()
    assert isinstance(delta, Delta)
    assert (delta.sequence, delta.removed_keys) == (2, ("k1",))


async def test_a_change_that_cannot_be_sent_fails_each_time_and_is_never_taken_for_sent(bench: Bench) -> None:
    worker = await bench.join("a")
    await worker.receive()
    unsendable = msgspec.structs.replace(KEY, key_id="bad", limits=Limits(10**20))
    for keys in ((KEY, unsendable), (unsendable,)):
        with pytest.raises(OverflowError):
            bench.channel.publish(Picture(2, (), keys, (TENANT,)))
    assert bench.channel.publication.picture == PICTURE
    assert await (await bench.join("b")).receive() == PICTURE.numbered(EPOCH, 1)
    bench.channel.publish(Picture(2, (), (), (TENANT,)))
    delta = await worker.receive()
    assert isinstance(delta, Delta)
    assert (delta.sequence, delta.removed_keys) == (2, ("k1",))


async def test_a_worker_that_was_away_gets_what_it_missed(bench: Bench) -> None:
    bench.channel.publish(Picture(3, (), (KEY,), (TENANT,)))
    worker = await bench.join("a", EPOCH, 1)
    assert await worker.receive() == Delta(EPOCH, 2, workers=3)
    worker = await bench.join("b", EPOCH - 1, 1)
    assert isinstance(await worker.receive(), Snapshot)


async def test_shares_of_a_limit_never_exceed_it_over_workers(bench: Bench) -> None:
    granted = 0
    for name in ("a", "b"):
        worker = await bench.join(name)
        await worker.receive()
        for _ in range(10):
            worker.send(LeaseRequest(RATE, 1))
            answer = await worker.receive()
            if isinstance(answer, LeaseRecall):
                answer = await worker.receive()
            if isinstance(answer, LeaseGrant):
                granted += answer.amount
            else:
                assert isinstance(answer, LeaseDeny)
                assert 0 < answer.retry_after_seconds <= 61
    assert granted == 8


async def test_an_amount_over_the_limit_itself_is_denied_with_a_finite_wait(bench: Bench) -> None:
    worker = await bench.join("a")
    await worker.receive()
    worker.send(LeaseRequest(RATE, 9))
    answer = await worker.receive()
    assert isinstance(answer, LeaseDeny)
    assert answer.retry_after_seconds == 60


async def test_what_another_worker_holds_idle_is_recalled(bench: Bench) -> None:
    first, second = await bench.join("a"), await bench.join("b")
    await first.receive()
    await second.receive()
    first.send(LeaseRequest(SLOTS, 2))
    assert isinstance(await first.receive(), LeaseGrant)
    second.send(LeaseRequest(SLOTS, 1))
    assert isinstance(await second.receive(), LeaseDeny)
    assert await first.receive() == LeaseRecall(SLOTS)
    first.send(LeaseReport(SLOTS, 0, 1))
    await first.settle()
    second.send(LeaseRequest(SLOTS, 1))
    assert isinstance(await second.receive(), LeaseGrant)


async def test_a_lost_connection_keeps_its_shares_and_a_dead_worker_frees_its_slots(bench: Bench) -> None:
    worker = await bench.join("a", 0, 0, LimitBalance(SLOTS, 2, 0))
    await worker.receive()
    await worker.settle()
    worker.close()
    assert bench.leases.remaining(SLOTS, bench.clock.monotonic()) == 0
    bench.known.discard("a")
    bench.channel.worker_gone("a")
    assert bench.leases.remaining(SLOTS, bench.clock.monotonic()) == 2


async def test_a_lifted_limit_is_lifted_for_leases_too(bench: Bench) -> None:
    bench.channel.publish(Picture(2, (), (KEY,), (TenantEntry("t"),)))
    assert bench.leases.remaining(RATE, bench.clock.monotonic()) is None


async def test_a_second_connection_of_an_incarnation_replaces_the_first(bench: Bench) -> None:
    first = await bench.join("a")
    await first.receive()
    second = await bench.join("a")
    assert isinstance(await second.receive(), Snapshot)
    assert await first.receive() is None
    assert list(bench.channel.connected()) == ["a"]


async def test_an_unknown_incarnation_and_a_silent_or_speechless_one_are_turned_away(bench: Bench) -> None:
    stranger = await bench.join("z")
    assert await stranger.receive() is None
    early = await bench.connect()
    early.send(LeaseRequest(RATE, 1))
    assert await early.receive() is None
    for data in (b"\x00\x00\x00\x01\xc1", b"\xff\xff\xff\xff"):
        noisy = await bench.connect()
        noisy.send_raw(data)
        assert await noisy.receive() is None
    assert bench.channel.connected() == {}


async def test_metrics_are_summed_and_outlive_their_worker(bench: Bench) -> None:
    for name in ("a", "b"):
        worker = await bench.join(name)
        await worker.receive()
        samples = (Sample("swell_retries_total", (), 2.0), Sample("swell_queued", (), 1.0))
        worker.send(Load(0, 1, (), samples))
        await worker.settle()
    bench.channel.worker_gone("a")
    worker.send(MetricsRequest(5))
    answer = await worker.receive()
    assert isinstance(answer, MetricsResponse)
    rows = [row for row in answer.text.decode().splitlines() if not row.startswith("#")]
    assert rows == ["swell_queued 1", "swell_retries_total 4", "swell_server_up 1"]
    assert answer.token == 5


async def test_a_worker_that_does_not_read_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swell.server.control_line.WRITE_BUFFER_BYTES", 100_000)
    monkeypatch.setattr("swell.server.control_line.MOVE_SECONDS", 0.1)
    await (worker := await bench.join("a")).settle()
    for round_ in range(100):
        keys = tuple(msgspec.structs.replace(KEY, key_id=f"{round_}-{n}") for n in range(1000))
        bench.channel.publish(Picture(2, (), keys, (TENANT,)))
    async with asyncio.timeout(WAIT_SECONDS):
        while bench.channel.connected():
            bench.changed.clear()
            await bench.changed.wait()
    assert worker is not None


async def test_one_that_is_behind_is_not_cut_and_sent_what_it_missed_once_it_reads(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swell.server.control_line.WRITE_BUFFER_BYTES", 100_000)
    await (worker := await bench.join("a")).settle()
    for round_ in range(2 * LOG_DELTAS):
        keys = tuple(msgspec.structs.replace(KEY, key_id=f"{round_}-{n}") for n in range(500))
        bench.channel.publish(Picture(2, (), keys, (TENANT,)))
    seen: list[Snapshot | Delta] = []
    while not seen or seen[-1].sequence < bench.channel.publication.sequence:
        message = await worker.receive()
        assert isinstance(message, Snapshot | Delta)
        seen.append(message)
    assert len(seen) < LOG_DELTAS, "what came meanwhile was not queued"
    assert isinstance(seen[-1], Snapshot)
    assert seen[-1].keys == keys
    bench.channel.publish(PICTURE)
    after = await worker.receive()
    assert isinstance(after, Delta)
    assert after.sequence == seen[-1].sequence + 1
