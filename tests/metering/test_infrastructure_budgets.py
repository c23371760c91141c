"""What is spent of infrastructure budgets, by the lives of replicas: over random histories what the lives cost."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.metering.infrastructure import cost
from swell.metering.infrastructure_budgets import InfrastructureBook, InfrastructureBudget, hourly
from swell.metering.periods import period_at, zone_of
from swell.state.replica_runs import ReplicaRun

START = 1_700_000_000.0
HOUR_MS = 3_600_000
BUDGETS = (
    InfrastructureBudget("", 10**12, "day", "Europe/Berlin"),
    InfrastructureBudget("chat", 10**11, "hour", "UTC"),
    InfrastructureBudget("chat", 10**11, "week", "Asia/Kathmandu"),
)


def life(name: str, model: str, begun: float, **changes: object) -> ReplicaRun:
    ms = int(begun * 1000)
    run = ReplicaRun(
        replica_id=name, model=model, provider="process", market="own", accelerator="L4",
        usd_nanos_per_hour=1_234_567_891, started_unix_ms=ms, seen_unix_ms=ms,
    )  # fmt: skip
    return replace(run, **changes)


def spent_by(runs: dict[str, ReplicaRun], budget: InfrastructureBudget, now: float, minimum_ms: int = 0) -> int:
    """Straight from all lives."""
    period = period_at(budget.period, zone_of(budget.time_zone), now)
    start, end = int(period.start_unix * 1000), int((period.end_unix or 0) * 1000)
    total = 0
    for run in runs.values():
        if budget.model in ("", run.model):
            seen = max(run.seen_unix_ms, int(now * 1000)) if run.ended_unix_ms is None else run.seen_unix_ms
            least = 0 if run.ended_unix_ms is None else minimum_ms  # of what runs it is bound, not spent
            total += cost(replace(run, seen_unix_ms=seen), start, end, least)
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from([0, 60_000, 3_600_000]))
def test_the_book_has_what_the_lives_cost_through_periods_and_restarts(seed: int, minimum_ms: int) -> None:
    dice, minimums = Random(seed), {"chat": minimum_ms, "code": minimum_ms}
    book, runs, now = InfrastructureBook(BUDGETS, minimums), {}, START
    book.begin((), now)
    for step in range(120):
        now += dice.choice([1.0, 30.0, 600.0, 5000.0])
        living = [run for run in runs.values() if run.ended_unix_ms is None]
        if living and dice.random() < 0.4:
            run = dice.choice(living)
            run = replace(run, ended_unix_ms=int(now * 1000), seen_unix_ms=int(now * 1000))
        elif living and dice.random() < 0.3:
            run = replace(dice.choice(living), seen_unix_ms=int(now * 1000))
        else:
            run = life(f"r{step}", dice.choice(["chat", "code"]), now)
        runs[run.replica_id] = run
        book.note(run, now)
        if dice.random() < 0.1:
            book.note(run, now)
        if dice.random() < 0.05:  # a new server reads what is stored
            book = InfrastructureBook(BUDGETS, minimums)
            book.begin([*runs.values(), run], now)
        for budget in BUDGETS:
            assert book.spent(budget, now)[1] == spent_by(runs, budget, now, minimum_ms)
            assert book.spent(budget, now)[0] == budget.limit_at(now)


def test_a_clock_that_is_set_back_finds_the_period_as_it_was() -> None:
    budget = InfrastructureBudget("", 10**12, "day", "UTC")
    evening = START // 86_400 * 86_400 + 86_000
    book = InfrastructureBook((budget,))
    book.begin((), evening)
    book.note(life("a", "chat", evening - 3600), evening)
    ended = life("a", "chat", evening - 3600, ended_unix_ms=int(evening * 1000), seen_unix_ms=int(evening * 1000))
    book.note(ended, evening)
    before = book.spent(budget, evening)
    assert before[1] == 1_234_567_891
    assert book.spent(budget, evening + 600)[1] == 0, "the next day"
    assert book.spent(budget, evening + 1) == before


def test_who_runs_is_known_by_model() -> None:
    book = InfrastructureBook(BUDGETS)
    book.begin([life("a", "chat", START), life("b", "code", START)], START)
    assert [run.replica_id for run in book.running("chat")] == ["a"]
    assert len(book.running()) == 2


@pytest.mark.parametrize(("model", "whole"), [("", 2), ("chat", 1), ("nobody", 0)])
def test_hours_add_up_to_what_runs_cost(model: str, whole: int) -> None:
    first = int(START * 1000)
    runs = [
        life(name, kind, START - 1800, ended_unix_ms=first + 3 * HOUR_MS // 2, seen_unix_ms=first + 3 * HOUR_MS // 2)
        for name, kind in (("a", "chat"), ("b", "code"))
    ]
    hours = hourly(model, runs, first - HOUR_MS, 4)
    assert len(hours) == 4
    assert hours[3] == 0
    assert sum(hours) == whole * 2 * 1_234_567_891


def test_a_minimum_is_counted_at_once_and_what_of_it_is_in_the_next_period_there() -> None:
    budget = InfrastructureBudget("chat", 10**12, "hour", "UTC")
    end = START // 3600 * 3600 + 3600
    book = InfrastructureBook((budget,), {"chat": 1_800_000})
    book.begin((), end - 600)
    begun = int(end * 1000) - 600_000
    book.note(life("a", "chat", end - 600, ended_unix_ms=begun + 5000, seen_unix_ms=begun + 5000), end - 595)
    price = 1_234_567_891
    assert book.spent(budget, end - 595)[1] == price * 600_000 // HOUR_MS
    assert book.spent(budget, end + 1)[1] == price * 1_800_000 // HOUR_MS - price * 600_000 // HOUR_MS
    runs = [life("a", "chat", end - 600, ended_unix_ms=begun + 5000, seen_unix_ms=begun + 5000)]
    assert sum(hourly("chat", runs, int(end * 1000) - HOUR_MS, 3, {"chat": 1_800_000})) == price * 1_800_000 // HOUR_MS
