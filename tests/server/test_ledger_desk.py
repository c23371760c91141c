"""Reports of a running server: whatever is asked for, the store is there for others meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from swell.errors import AtCapacity
from swell.server import ledger_desk
from swell.server.ledger_desk import LedgerDesk
from swell.server.writer import Writer
from swell.state.records import SpoolPosition, UsageFilter
from swell.state.usage_groups import UsageGroup
from swell.testing.memory_reader import MemoryReader
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change

DAY_MS, DAYS = 86_400_000, 30
SECONDS = 10.0


class Desk:
    """A desk over a month with one request a day; `entered` counts how often usage was entered first."""

    def __init__(self, *, has_reader: bool) -> None:
        self.store = MemoryStore(has_reader=has_reader)
        rows = [usage_change(f"r{day}", "pair", reserved_at_unix_ms=day * DAY_MS) for day in range(DAYS)]
        self.store.apply_usage(rows, SpoolPosition("w", 1, 1))
        self.writer = Writer()
        self.entered = 0
        self.entering, self.after_entering = asyncio.Event(), asyncio.Condition()
        self.entering.set()
        self.desk = LedgerDesk(self.store, self.writer, self._ingest)

    @property
    def reader(self) -> MemoryReader:
        return self.store.readers[0]

    async def enter(self, number: int) -> None:
        """As the spool reader does, on the writer thread."""
        row = usage_change(f"new{number}", "pair", reserved_at_unix_ms=number)
        await self.writer.call(lambda: self.store.apply_usage([row], SpoolPosition("w", 1, 2)))

    async def has_entered(self, times: int) -> None:
        """Wait until usage was entered so often."""
        async with self.after_entering:
            await self.after_entering.wait_for(lambda: self.entered >= times)

    async def _ingest(self) -> None:
        await self.entering.wait()
        async with self.after_entering:
            self.entered += 1
            self.after_entering.notify_all()


@asynccontextmanager
async def desk(*, has_reader: bool) -> AsyncIterator[Desk]:
    made = Desk(has_reader=has_reader)
    async with asyncio.timeout(SECONDS):
        try:
            yield made
        finally:
            await made.desk.close()
            made.writer.close()


def requests(groups: Sequence[UsageGroup]) -> int:
    return sum(group.requests for group in groups)


async def reading(reader: MemoryReader) -> None:
    await asyncio.to_thread(reader.is_reading.wait, SECONDS)


async def test_without_a_second_way_a_month_is_asked_by_days_and_others_go_between() -> None:
    async with desk(has_reader=False) as world:
        order: list[str] = []
        whole = world.store.group_usage

        def noted(where: UsageFilter, *rest: object) -> list[UsageGroup]:
            order.append("day")
            return whole(where, *rest)  # type: ignore[arg-type]

        world.store.group_usage = noted  # type: ignore[method-assign]
        report = asyncio.create_task(world.desk.groups(UsageFilter(), ("tenant",)))

        async def other() -> None:
            while not report.done():
                await world.writer.call(lambda: order.append("other"))

        await asyncio.gather(report, other())
        assert requests(report.result()) == DAYS
        assert order.count("day") == DAYS
        assert "day day day" not in " ".join(order), "somebody else's turn comes after each day"


async def test_by_a_second_way_one_question_runs_while_the_store_takes_usage() -> None:
    async with desk(has_reader=True) as world:
        world.reader.go_on.clear()
        report = asyncio.create_task(world.desk.groups(UsageFilter()))
        await reading(world.reader)
        for number in range(20):
            await world.enter(number)
        assert not report.done()
        world.reader.go_on.set()
        assert requests(await report) == DAYS + 20
        assert world.entered == 1, "what workers wrote is entered before the ledger is asked"
        assert await world.desk.read(lambda reads: reads.usage_span()) == (0, (DAYS - 1) * DAY_MS)


async def test_who_is_gone_ends_the_own_question_and_no_other() -> None:
    async with desk(has_reader=True) as world:
        world.reader.go_on.clear()
        first = asyncio.create_task(world.desk.groups(UsageFilter()))
        await reading(world.reader)
        waiting = asyncio.create_task(world.desk.groups(UsageFilter()))
        dropped = asyncio.create_task(world.desk.groups(UsageFilter()))
        await world.has_entered(3)
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        assert not world.reader.interrupts, "it had not begun"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert requests(await waiting) == DAYS


async def test_usage_that_is_being_entered_is_told_though_who_asked_is_gone() -> None:
    async with desk(has_reader=True) as world:
        world.entering.clear()
        report = asyncio.create_task(world.desk.groups(UsageFilter()))
        await asyncio.sleep(0)
        report.cancel()
        with pytest.raises(asyncio.CancelledError):
            await report
        world.entering.set()
        await world.has_entered(1)
        assert not world.reader.is_reading.is_set()


async def test_closing_ends_what_is_being_read() -> None:
    async with desk(has_reader=True) as world:
        world.reader.go_on.clear()
        report = asyncio.create_task(world.desk.groups(UsageFilter()))
        await reading(world.reader)
        await world.desk.close()
        with pytest.raises(AtCapacity, match="ended before it was done"):
            await report
        assert world.reader.is_closed


async def test_reports_beyond_the_bound_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_desk, "MAX_REPORTS", 2)
    async with desk(has_reader=True) as world:
        world.reader.go_on.clear()
        some = [asyncio.create_task(world.desk.groups(UsageFilter())) for _ in range(2)]
        await reading(world.reader)
        with pytest.raises(AtCapacity, match="2 reports are under way"):
            await world.desk.groups(UsageFilter())
        world.reader.go_on.set()
        assert [requests(each) for each in await asyncio.gather(*some)] == [DAYS, DAYS]
