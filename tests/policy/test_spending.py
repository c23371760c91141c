"""What budgets pay for: never overspent, whatever is asked for, however late turns come and long drains take."""

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.policy.scaling.diff import Drain, Start, actions
from swell.policy.scaling.spending import (
    Bound,
    bound_when_kept,
    bound_when_let_go,
    cost,
    lasts_seconds,
    most_affordable,
    rate_ceiling,
    shares,
    spend_of,
    water_level,
)
from swell.state.funding import Fund, Funding, Tariff
from swell.state.scaling import Decision, ReplicaState, ReplicaView
from swell.units import NANOS_PER_USD

PRICE = 2 * NANOS_PER_USD + 1  # an hour
START = 120.0


@dataclass
class Fleet:
    """One pool that does what it is told, with a bill of its own. Drains take as long as they like up to the bound."""

    tariff: Tariff
    dice: Random
    now: float = 0.0
    replicas: list[ReplicaView] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)  # of those that drain
    lives: list[tuple[float, float]] = field(default_factory=list)
    count: int = 0

    def funding(self, cap: int, seconds: float) -> Funding:
        start = self.now // seconds * seconds
        end = start + seconds
        left = cap - self.spent(start, end, self.now)  # what ended is known to its last billed second
        after = cap - self.spent(end, end + seconds, self.now)
        return Funding((Fund("it", cap, left, after, left, end - self.now),), self.tariff)

    def spent(self, start: float, end: float, now: float) -> int:
        lives = [*self.lives, *((r.ordered_at, now) for r in self.replicas)]
        return sum(cost(PRICE, min(b, end) - max(a, start)) for a, b in lives if min(b, end) > max(a, start))

    def turn(self, count: int) -> None:
        for action in actions(Decision(self.now, (("X", count),), "", ""), self.replicas, {}):
            if isinstance(action, Start):
                for _ in range(action.count):
                    self.count += 1
                    view = ReplicaView(f"r{self.count}", "X", ReplicaState.STARTING, self.now, ordered_at=self.now)
                    self.replicas.append(view)
            elif isinstance(action, Drain):
                drain = self.dice.choice([0.0, self.dice.uniform(0, 1), 1.0]) * self.tariff.drain_seconds
                self.ends[action.replica_id] = self.now + drain
                self.replicas = [
                    replace(r, state=ReplicaState.DRAINING, since=self.now) if r.replica_id == action.replica_id else r
                    for r in self.replicas
                ]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for view in list(self.replicas):
            minimum = view.ordered_at + self.tariff.minimum_seconds
            if self.ends.get(view.replica_id, self.now + 1) <= self.now:
                self.lives.append((view.ordered_at, max(self.ends[view.replica_id], minimum)))
                self.replicas.remove(view)
            elif view.state is ReplicaState.STARTING and view.ordered_at + START <= self.now:
                self.replicas[self.replicas.index(view)] = replace(view, state=ReplicaState.READY)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    cents=st.integers(0, 3000),
    seconds=st.sampled_from([1800.0, 3600.0, 14_400.0]),
    drain=st.sampled_from([0.0, 30.0, 600.0]),
    minimum=st.sampled_from([0.0, 60.0, 900.0]),
)
def test_no_period_ever_costs_more_than_its_budget(
    seed: int, cents: int, seconds: float, drain: float, minimum: float
) -> None:
    dice, cap = Random(seed), cents * NANOS_PER_USD // 100
    fleet = Fleet(Tariff((("X", PRICE),), drain, 70.0, minimum), dice)
    while fleet.now < 3 * seconds:
        wanted = dice.choice([0, 1, dice.randrange(20), 100])
        funding = fleet.funding(cap, seconds)
        count = most_affordable(funding, "X", fleet.replicas, fleet.now, START, wanted)
        assert 0 <= count <= wanted
        fleet.turn(count)
        fleet.pass_time(dice.uniform(5, 70))
    roundings = len(fleet.lives) + len(fleet.replicas)
    for period in range(3):
        assert fleet.spent(period * seconds, (period + 1) * seconds, fleet.now) <= cap + roundings


def funding(left: int, ends_in: float = 3600.0, after: int = 10**15, drain: float = 600.0) -> Funding:
    fund = Fund("it", left, left, after, left, ends_in)
    return Funding((fund,), Tariff((("X", PRICE),), drain, 70.0))


def ready(count: int) -> tuple[ReplicaView, ...]:
    return tuple(ReplicaView(f"r{i}", "X", ReplicaState.READY, 0.0) for i in range(count))


@given(st.integers(0, 10**11), st.integers(0, 10**10), st.integers(0, 12), st.floats(1, 10**5))
def test_who_has_more_left_may_have_no_fewer(left: int, more: int, present: int, ends_in: float) -> None:
    def most(money: int) -> int:
        return most_affordable(funding(money, ends_in), "X", ready(present), 0.0, START, 50)

    assert most(left) <= most(left + more)
    assert rate_ceiling(funding(left, ends_in), ready(present), 0.0, START) <= rate_ceiling(
        funding(left + more, ends_in), ready(present), 0.0, START
    )


@given(st.integers(0, 10**11), st.integers(0, 30), st.integers(0, 30))
def test_what_is_decided_is_paid_for_to_its_end(left: int, present: int, wanted: int) -> None:
    given_ = funding(left)
    count = most_affordable(given_, "X", ready(present), 0.0, START, wanted)
    kept = bound_when_kept(given_.tariff, ready(min(count, present)), 0.0, 3600.0)
    gone = bound_when_let_go(given_.tariff, ready(max(0, present - count)), 0.0, 3600.0)
    new = max(0, count - present) * cost(PRICE, START + 670)
    assert count == 0 or kept.before + gone.before + new <= left


def test_what_ends_in_the_next_period_must_be_paid_by_it() -> None:
    late = funding(10**12, ends_in=100.0, after=cost(PRICE, 570) + 5)
    assert most_affordable(late, "X", ready(1), 0.0, START, 5) == 1, "570 s of its drain are the next period's"
    assert most_affordable(late, "X", (), 0.0, START, 5) == 0, "and a new one would be there for longer"


def test_a_minimum_that_is_billed_is_paid_for_before_anything_is_ordered() -> None:
    short = funding(cost(PRICE, 900))
    assert most_affordable(short, "X", (), 0.0, START, 5) == 1
    hourly = replace(short, tariff=replace(short.tariff, minimum_seconds=3600.0))
    assert most_affordable(hourly, "X", (), 0.0, START, 5) == 0


@given(
    st.lists(st.tuples(st.integers(1, 10**5), st.integers(0, 10**11)), min_size=1, max_size=30), st.integers(0, 10**13)
)
def test_the_water_level_is_the_highest_that_lasts(hours: list[tuple[int, int]], left: int) -> None:
    level = water_level(hours, left)
    if level is None:
        assert spend_of(hours) <= left
        return

    def at(height: int) -> int:
        return sum(seconds * min(wanted, height) for seconds, wanted in hours)

    assert at(level) <= left * 3600 < at(level + 1) or spend_of(hours) - left <= 1


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=8), st.integers(0, 10**10)
)
def test_shares_pay_floors_first_and_never_add_up_to_more(parts: list[tuple[int, int]], left: int) -> None:
    floors, wanted = [floor for floor, _ in parts], [want for _, want in parts]
    found = shares(left, floors, wanted)
    assert sum(found) <= left
    if sum(floors) <= left:
        assert all(share >= floor for share, floor in zip(found, floors, strict=True))


def test_shares_beyond_floors_follow_what_is_wanted() -> None:
    assert shares(100, [10, 0], [40, 60]) == [40, 60]
    assert shares(70, [10, 0], [40, 60]) == [30, 40]
    assert shares(5, [10, 10], [50, 10]) == [2, 2]
    assert shares(100, [0, 0], [0, 0]) == [50, 50]


def test_how_long_money_lasts() -> None:
    fund = Fund("it", 100, 50, 100, 50, ends_in_seconds=7200.0)
    assert lasts_seconds(fund, 50) == 3600.0
    assert lasts_seconds(fund, 25) is None, "to the end"
    assert lasts_seconds(fund, 0) is None
    assert Bound(3, 1) - Bound(1, 1) == Bound(2, 0)


@pytest.mark.parametrize("wanted", [0, 1, 7])
def test_replicas_that_cost_nothing_are_never_bounded(wanted: int) -> None:
    free = Funding((Fund("it", 0, 0, 0, 0, 60.0),), Tariff((), 600.0, 70.0))
    assert most_affordable(free, "X", ready(2), 0.0, START, wanted) in (wanted, 0)
