"""How a budget is spread: headroom goes before replicas, peaks before the rest, and the decision says what it costs."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_scene import OBJECTIVE, POOL, PROFILE
from swell.policy.scaling.capacity import requests_per_second
from swell.policy.scaling.funded import span
from swell.policy.scaling.spending import cost
from swell.policy.scaling.swell import SwellScaler
from swell.policy.scaling.thrift import RUNGS, ThriftMemory, learn, ration
from swell.state.funding import Fund, Funding, Tariff
from swell.state.scaling import (
    Decision,
    LengthSums,
    Observation,
    ReplicaState,
    ReplicaView,
    Window,
)
from swell.units import NANOS_PER_USD

RATE = requests_per_second(PROFILE, OBJECTIVE, 1000, 200)
PRICE = 2 * NANOS_PER_USD
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
TARIFF = Tariff((("X", PRICE),), 600.0, 70.0)


def wants(replicas: float) -> tuple[float, ...]:
    """A tenth of it is headroom at each rung."""
    return tuple(replicas * (0.5 + 0.5 * rung) for rung in RUNGS)


def a_week(by_hour: list[float]) -> ThriftMemory:
    """What was learnt in one that had these hours of the day."""
    memory = ThriftMemory()
    for hour in range(7 * 24 + 1):
        now = hour * HOUR
        memory = learn(memory, now, now, wants(by_hour[hour % 24]), None)
    return memory


def fund(left: float, ends_in: float = DAY) -> Fund:
    nanos = int(left * NANOS_PER_USD)
    return Fund("the budget", nanos, nanos, 10**15, nanos, ends_in)


def rationed(memory: ThriftMemory, left: float, ends_in: float = DAY, least: int = 0) -> ThriftMemory:
    """A day costs 24 hours of 2 dollars for each replica."""
    return ration(memory, Funding((fund(left, ends_in),), TARIFF), memory.seen_at + HOUR, WEEK, PRICE, least, 100)


FLAT = a_week([4.0] * 24)
PEAKED = a_week([2.0] * 12 + [10.0] * 12)


def test_what_lasts_takes_nothing() -> None:
    found = rationed(FLAT, 4 * 48 + 1).ration
    assert not found.binds
    assert found.surplus == pytest.approx(NANOS_PER_USD, rel=0.01)
    assert rationed(FLAT, 4 * 48 + 1).wanted == (("the budget", 4 * 48 * NANOS_PER_USD),)


def test_headroom_goes_first_and_no_more_of_it_than_must() -> None:
    found = rationed(FLAT, 0.9 * 4 * 48).ration
    assert found.binds
    assert found.level is None
    assert found.thrift == pytest.approx(0.8, abs=0.01), "what is wanted falls by half of what the rung does"


def test_then_the_peaks_are_shaved_where_the_money_lasts() -> None:
    lean = 0.6  # of what is wanted, at the last rung
    found = rationed(PEAKED, 0.5 * lean * (2 * 24 + 10 * 24)).ration
    assert found.thrift == RUNGS[-1]
    # 1.2 replicas in the quiet half, and of 86.4 dollars what is left in the other: 2.4 an hour of 57.6 for 12 hours
    assert found.level == pytest.approx((0.5 * 0.6 * 288 - 1.2 * 24) / 12 * NANOS_PER_USD, rel=0.001)
    assert rationed(PEAKED, 10.0, least=3).ration.level == 3 * PRICE, "the least is kept as long as there is money"


@settings(max_examples=60)
@given(st.floats(0, 400), st.floats(0, 400), st.floats(60, 3 * WEEK))
def test_more_money_never_allows_less(left: float, more: float, ends_in: float) -> None:
    poor, rich = rationed(PEAKED, left, ends_in).ration, rationed(PEAKED, left + more, ends_in).ration
    assert poor.thrift <= rich.thrift
    assert (poor.level if poor.level is not None else 10**18) <= (rich.level if rich.level is not None else 10**18)
    assert poor.even <= rich.even


def test_where_not_even_one_replica_lasts_it_is_there_until_the_money_is_out() -> None:
    world = World(20.0)  # for ten hours of one
    decisions = world.run(3600, 0.5)
    assert {decision.replicas for decision in decisions[60:]} == {1}
    world.run(12 * HOUR, 0.5)
    assert world.turn(0.5).replicas == 0
    assert world.left >= 0


def test_hours_that_nobody_knows_are_as_those_that_are_known_or_as_now() -> None:
    begun = learn(ThriftMemory(), 0.0, 0.0, wants(3.0), None)
    assert rationed(begun, 3 * 48 + 1).ration.surplus == pytest.approx(NANOS_PER_USD, rel=0.01)
    assert rationed(begun, 3 * 48 - 10).ration.binds


def test_more_than_usual_of_late_is_expected_to_fade() -> None:
    memory = FLAT
    for minute in range(24 * 60):
        at = WEEK + HOUR + minute * 60.0
        memory = learn(memory, at, at, wants(8.0), None)
    [(_, day)] = ration(memory, Funding((fund(1e6),), TARIFF), 1e7, WEEK, PRICE, 0, 100).wanted
    [(_, week)] = ration(memory, Funding((fund(1e6, WEEK),), TARIFF), 1e7, WEEK, PRICE, 0, 100).wanted
    assert day > 1.3 * 4 * 48 * NANOS_PER_USD
    assert week < 7 * day


def test_what_is_paid_beyond_what_was_expected_is_expected_from_then_on() -> None:
    memory = FLAT
    for minute in range(48 * 60):
        at = WEEK + HOUR + minute * 60.0
        memory = learn(memory, at, at, wants(4.0), 5.0)
    assert memory.expected_price(PRICE) == pytest.approx(1.25 * PRICE, rel=0.02)


class World:
    """A fleet that follows at once, paid from one budget; `ends` is the period's end."""

    def __init__(self, cap: float, ends: float = DAY) -> None:
        self.scaler = SwellScaler({"X": POOL}, OBJECTIVE, 0, 50)
        self.left = int(cap * NANOS_PER_USD)
        self.cap, self.ends, self.now, self.ready = self.left, ends, 0.0, 0
        self.is_funded = True

    def turn(self, load: float, queued: int = 0) -> Decision:
        self.now += 10.0
        self.left -= cost(PRICE, 10.0) * self.ready
        if self.now >= self.ends:
            self.left, self.ends = self.cap, self.ends + DAY
        count = round(load * RATE * 10)
        sums = LengthSums(count, count * 1000, count * 1000**2, count * 200, count * 200**2, count * 200_000)
        fund = Fund("the budget", self.cap, self.left, self.cap, self.left, self.ends - self.now)
        seen = Observation(
            self.now, Window(self.now, 10.0, count, count * 1000, sums, queued=queued),
            tuple(ReplicaView(f"r{i}", "X", ReplicaState.READY, 0.0) for i in range(self.ready)), None,
            Funding((fund,), TARIFF, self.ready * PRICE) if self.is_funded else None,
        )  # fmt: skip
        decision = self.scaler.decide(seen)
        self.ready = decision.replicas
        return decision

    def run(self, seconds: float, load: float, queued: int = 0) -> list[Decision]:
        return [self.turn(load, queued) for _ in range(round(seconds / 10))]


def test_enough_money_changes_nothing_and_none_means_none() -> None:
    rich, free = World(10_000.0), World(0.0)
    free.is_funded = False
    for load in (3.0, 6.0, 0.5):
        assert [(d.counts, d.binding) for d in rich.run(1800, load)] == [
            (d.counts, d.binding) for d in free.run(1800, load)
        ]
    poor = World(0.0)
    decisions = poor.run(600, 3.0)
    assert {decision.replicas for decision in decisions} == {0}
    assert decisions[-1].binding == "budget"


def test_the_decision_says_what_is_given_up_until_when_and_what_it_would_cost_instead() -> None:
    world = World(60.0)
    world.run(1800, 5.0)
    decision = world.turn(5.0)
    assert decision.binding == "budget"
    assert decision.replicas < 5
    wanted = dict(decision.inputs)["without_budget"]
    share = 1 - decision.replicas / wanted
    assert (
        f"{decision.replicas} of {wanted:.0f} replicas: {share:.0%} of what is asked for is given up" in decision.reason
    )
    assert "left of the budget last until it begins anew in 23." in decision.reason
    [without] = [option for option in decision.rejected if "without a budget" in option.why]
    assert without.replicas == wanted
    assert f"for ${wanted * 2:.2f} an hour: the budget would run out in" in without.why
    assert dict(decision.wanted)["the budget"] > world.left


def test_a_backlog_is_worked_off_as_far_as_an_even_part_of_the_money_goes() -> None:
    world = World(60.0)
    world.run(1800, 1.0)
    assert max(d.replicas for d in world.run(600, 1.0, queued=5000)) <= 4, "unbounded it asks for dozens"


def test_misses_that_a_budget_is_to_blame_for_teach_no_caution() -> None:
    world = World(20.0)
    world.run(1800, 5.0)
    before = world.scaler.memory.caution
    window = Window(world.now + 10, 10.0, 50, 50_000, judged=50, attained=0)
    tight = Funding((fund(1.0),), TARIFF)
    world.scaler.decide(Observation(world.now + 10, window, (), None, tight))
    assert world.scaler.memory.caution == before
    world.scaler.memory = replace(world.scaler.memory, thrift=ThriftMemory())
    world.scaler.decide(Observation(world.now + 20, replace(window, at=world.now + 20), (), None, tight))
    assert world.scaler.memory.caution > before


def test_no_cliff_where_a_period_ends() -> None:
    """The same load throughout, for which the money lasts two thirds: about as many before the end and after."""
    world = World(0.66 * 3 * 48)
    world.run(DAY - 600, 3.0)
    around = [decision.replicas for decision in world.run(1800, 3.0)]
    assert max(around) - min(around) <= 1
    assert world.left >= 0


def test_lengths_of_time_as_people_say_them() -> None:
    assert [span(s) for s in (90.0, 7200.0, 200_000.0)] == ["2 min", "2.0 h", "2.3 days"]
