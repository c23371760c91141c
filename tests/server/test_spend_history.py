"""What was spent by the hour: read in small pieces, once, and again where it could have changed."""

from collections.abc import AsyncIterator

import pytest

from swell.metering.thresholds import MOST_HOURS
from swell.server.spend_history import HOUR_MS, PIECE_HOURS, SpendHistory
from swell.server.writer import Writer
from swell.state.budgets import BudgetLimit
from swell.state.records import SpoolPosition
from swell.testing.budget_suite import budget_limit
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change

HOUR = 3600.0
START_MS = 1_000 * HOUR_MS + 900_000  # a zone of 15 minutes
LIMIT = budget_limit(start_unix_ms=START_MS, end_unix_ms=START_MS + 24 * HOUR_MS)


class Asked(MemoryStore):
    """Keeps what it was asked for: the first hour, counted from the period's start, and how many."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[tuple[int, int]] = []

    def hourly_spend(self, limit: BudgetLimit, first_unix_ms: int, hours: int) -> list[int]:
        assert (first_unix_ms - START_MS) % HOUR_MS == 0
        self.pieces.append(((first_unix_ms - START_MS) // HOUR_MS, hours))
        return super().hourly_spend(limit, first_unix_ms, hours)

    def charge(self, nanos: int, hour: float, kind: str = "pair", name: str = "") -> None:
        at = START_MS + int(hour * HOUR_MS)
        change = usage_change(name or f"r{hour}", kind, reserved_at_unix_ms=at, charge_usd_nanos=nanos)
        self.apply_usage([change], SpoolPosition("spool1", 1, 1))


@pytest.fixture
def store() -> Asked:
    return Asked()


@pytest.fixture
async def history(store: Asked) -> AsyncIterator[SpendHistory]:
    writer = Writer()
    yield SpendHistory(store, writer)
    writer.close()


def at(hour: float) -> float:
    return START_MS / 1000 + hour * HOUR


async def test_hours_are_counted_from_the_periods_start_and_reach_back_before_it(
    store: Asked, history: SpendHistory
) -> None:
    for hour, nanos in ((-2.0, 5), (-0.5, 7), (0.0, 1), (0.999, 2), (2.5, 9)):
        store.charge(nanos, hour)
    assert await history.hours(LIMIT, at(2.75)) == [5, 7, 3, 0, 9]
    assert max(hours for _, hours in store.pieces) == PIECE_HOURS
    assert sum(hours for _, hours in store.pieces) == MOST_HOURS + 1


async def test_what_is_over_for_an_hour_is_read_once(store: Asked, history: SpendHistory) -> None:
    store.charge(5, -3.5)
    await history.hours(LIMIT, at(2.5))
    store.pieces.clear()
    assert await history.hours(LIMIT, at(2.9)) == [5, 0, 0, 0, 0, 0, 0]
    assert store.pieces == [(1, 2)]
    assert await history.hours(LIMIT, at(4.1)) == [5, 0, 0, 0, 0, 0, 0, 0, 0]
    assert store.pieces[1:] == [(1, 4)]


async def test_a_request_that_ends_after_its_hour_counts_with_what_it_came_to(
    store: Asked, history: SpendHistory
) -> None:
    store.charge(1000, 0.9, "reserved", "long")
    assert await history.hours(LIMIT, at(1.1)) == [1000, 0]
    store.charge(40, 0.9, "settled", "long")
    assert await history.hours(LIMIT, at(1.5)) == [40, 0]


async def test_a_clock_that_is_set_back_and_forth_changes_nothing(store: Asked, history: SpendHistory) -> None:
    for hour in range(-5, 12):
        store.charge(hour + 10, hour + 0.5)
    expected = [hour + 10 for hour in range(-5, 12)]
    assert await history.hours(LIMIT, at(11.9)) == expected
    assert await history.hours(LIMIT, at(3.9)) == expected[:9]
    assert await history.hours(LIMIT, at(11.9)) == expected
    assert await history.hours(LIMIT, at(5_000)) == [0]
    assert await history.hours(LIMIT, at(11.9)) == expected


async def test_nobody_spent_anything(store: Asked, history: SpendHistory) -> None:
    assert await history.hours(LIMIT, at(0.0)) == [0]
    history.keep(set())
    store.pieces.clear()
    await history.hours(LIMIT, at(0.0))
    assert sum(hours for _, hours in store.pieces) == MOST_HOURS + 1, "what was forgotten is read again"
