"""Swell's own scaling policy, regime by regime."""

from dataclasses import replace
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_scene import OBJECTIVE, POOL, PROFILE
from swell.policy.scaling.capacity import Mix, capacity, requests_per_second, throughput
from swell.policy.scaling.swell import (
    CAUTION_RANGE,
    RELEASE_SHARE,
    ScalingMemory,
    ScalingSettings,
    SwellScaler,
    decide,
    quantile_for,
)
from swell.state.scaling import (
    Decision,
    LengthSums,
    Objective,
    Observation,
    ReplicaState,
    ReplicaView,
    Window,
)

PROMPT, OUTPUT = 1000, 200
RATE = requests_per_second(PROFILE, OBJECTIVE, PROMPT, OUTPUT)
TICK = 10.0


def window(at: float, rate: float, queued: int = 0, in_flight: int = 0) -> Window:
    count = round(rate * TICK)
    done = LengthSums(
        count, count * PROMPT, count * PROMPT**2, count * OUTPUT, count * OUTPUT**2, count * PROMPT * OUTPUT
    )
    return Window(at, TICK, count, count * PROMPT, done, queued=queued, in_flight=in_flight)


def fleet(ready: int, starting: int = 0) -> tuple[ReplicaView, ...]:
    return tuple(
        ReplicaView(f"X-{i}", "X", ReplicaState.READY if i < ready else ReplicaState.STARTING, 0.0)
        for i in range(ready + starting)
    )


class Fleet:
    """Follows every decision at once, so that only the policy is seen."""

    def __init__(self, ready: int = 0, **changes: float) -> None:
        self.scaler = SwellScaler({"X": POOL}, OBJECTIVE, 0, 50, **changes)
        self.ready = ready
        self.now = 0.0
        self.decisions: list[Decision] = []

    def run(self, seconds: float, rate: float, queued: int = 0) -> list[Decision]:
        begun = len(self.decisions)
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            seen = Observation(self.now, window(self.now, rate, queued), fleet(self.ready))
            decision = self.scaler.decide(seen)
            self.decisions.append(decision)
            self.ready = decision.replicas
        return self.decisions[begun:]


def test_nothing_observed_means_hold() -> None:
    decision = SwellScaler({"X": POOL}, OBJECTIVE).decide(Observation(1.0, None, fleet(3, 1)))
    assert (decision.replicas, decision.is_hold, decision.binding) == (4, True, "hold")


def test_steady_demand_gets_what_carries_it_with_a_margin_and_then_only_holds() -> None:
    some = Fleet()
    some.run(3600, 5.5 * RATE)
    assert all(decision.is_hold for decision in some.run(3600, 5.5 * RATE))
    assert 6 <= some.ready <= 8


@pytest.mark.parametrize("start_seconds", [5.0, 120.0])
@pytest.mark.parametrize("load", [1.95, 2.05, 2.1, 5.13])
def test_a_demand_near_a_whole_number_is_not_followed_up_and_down(load: float, start_seconds: float) -> None:
    """As the capacity model has it: so many are in the system as end as fast as they arrive."""
    mix = Mix.of_means(PROMPT, OUTPUT)
    rate, batch = capacity(PROFILE, OBJECTIVE, mix)
    scaler = SwellScaler({"X": replace(POOL, start_seconds=start_seconds)}, OBJECTIVE)
    ready, changes = ceil(load) + 1, []
    for turn in range(1, 721):
        low, high = 0.0, float(batch)
        for _ in range(50):
            middle = (low + high) / 2
            below = throughput(PROFILE, mix, middle) < min(load / ready, 1.0) * rate
            low, high = (middle, high) if below else (low, middle)
        seen = replace(window(turn * TICK, load * rate, in_flight=round(low * ready)), mean_in_flight=low * ready)
        decided = scaler.decide(Observation(turn * TICK, seen, fleet(ready))).replicas
        if decided != ready:
            changes.append(turn * TICK)
        ready = decided
    assert len(changes) <= 6
    assert len([at for at in changes if at > 3600.0]) <= 1  # the margin shrinks once, as errors are learnt


def test_more_demand_is_met_at_once_and_less_only_after_the_release_time() -> None:
    some = Fleet()
    some.run(1800, 2.0 * RATE)
    before = some.ready
    up = some.run(120, 8.0 * RATE)
    assert some.ready >= 8
    assert up[-1].binding in ("forecast", "backlog")
    high = some.ready
    falling = some.run(600, 2.0 * RATE)
    first = next(i for i, decision in enumerate(falling) if decision.replicas < high)
    assert first * TICK >= RELEASE_SHARE * POOL.start_seconds - TICK
    assert any(decision.binding == "release" for decision in falling)
    some.run(7200, 2.0 * RATE)
    assert some.ready <= before + 2


def test_what_waits_asks_for_more_than_the_forecast() -> None:
    calm, waiting = Fleet(ready=2), Fleet(ready=2)
    calm.run(300, 1.5 * RATE)
    waiting.run(290, 1.5 * RATE)
    [decision] = waiting.run(TICK, 1.5 * RATE, queued=round(RATE * 600))
    assert decision.binding == "backlog"
    assert decision.replicas >= max(6, calm.ready + 1)  # 1.5, and 600 replica-seconds within 130 s
    assert "wait" in decision.reason


def test_to_zero_after_the_idle_time_and_from_zero_at_once() -> None:
    some = Fleet(idle_seconds=200.0)
    some.run(600, 0.5 * RATE)
    quiet = some.run(1200, 0.0)
    zero = next(i for i, decision in enumerate(quiet) if decision.replicas == 0)
    assert 190 <= (zero + 1) * TICK <= 600
    assert quiet[zero].binding == "idle"
    assert all(decision.is_hold for decision in quiet[zero + 1 :])
    [woken] = some.run(TICK, 1 / TICK, queued=1)
    assert woken.replicas == 1


def test_after_an_idle_time_one_request_does_not_bring_back_the_fleet_of_the_last_burst() -> None:
    some = Fleet(idle_seconds=20.0)
    some.run(300, 8.0 * RATE)
    some.run(300, 0.0)
    assert some.ready == 0
    [woken] = some.run(TICK, 1 / TICK, queued=1)
    assert woken.replicas == 1


def test_every_decision_says_why() -> None:
    some = Fleet()
    decisions = some.run(600, 3 * RATE) + some.run(600, 9 * RATE) + some.run(900, RATE)
    for decision in decisions:
        assert decision.reason
        assert dict(decision.inputs)["demand"] >= 0
    changed = [decision for decision in decisions if not decision.is_hold]
    assert changed
    assert all(decision.rejected for decision in changed)


@pytest.mark.parametrize(("least", "most", "binding"), [(4, 9, "floor"), (0, 2, "ceiling")])
def test_bounds_hold_and_are_named(least: int, most: int, binding: str) -> None:
    rate = RATE if binding == "floor" else 8 * RATE
    scaler = SwellScaler({"X": POOL}, OBJECTIVE, least, most)
    for tick in range(1, 60):
        decision = scaler.decide(Observation(tick * TICK, window(tick * TICK, rate), fleet(3)))
    assert decision.replicas == (least if binding == "floor" else most)
    assert decision.binding == binding


rates = st.lists(st.one_of(st.none(), st.floats(0, 30)), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(rates, st.integers(0, 5), st.integers(5, 40))
def test_inside_bounds_and_equal_for_equal_observations(rates: list[float | None], least: int, most: int) -> None:
    def once() -> list[Decision]:
        settings_, memory, found = ScalingSettings(POOL, OBJECTIVE, least, most), ScalingMemory(), []
        for tick, rate in enumerate(rates, 1):
            seen = None if rate is None else window(tick * TICK, rate * RATE)
            decision, memory = decide(settings_, memory, Observation(tick * TICK, seen, fleet(least)))
            found.append(decision)
        return found

    first = once()
    assert first == once()
    assert all(least <= decision.replicas <= most for decision in first)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.1, 20), min_size=5, max_size=60), st.floats(1.05, 3))
def test_more_demand_never_gets_fewer_replicas(rates: list[float], factor: float) -> None:
    def last(by: float) -> int:
        settings_, memory = ScalingSettings(POOL, OBJECTIVE, 0, 10_000), ScalingMemory()
        for tick, rate in enumerate(rates, 1):
            seen = replace(window(tick * TICK, 0), arrivals=ceil(rate * by * 100), arrived_prompt_tokens=0)
            decision, memory = decide(settings_, memory, Observation(tick * TICK, seen, fleet(1)))
        return decision.replicas

    assert last(factor) >= last(1.0)


def test_a_service_just_met_keeps_its_fleet_for_a_release_time() -> None:
    many = Fleet(ready=9)
    decisions = many.run(RELEASE_SHARE * POOL.start_seconds, 0.5 * RATE)
    assert {decision.replicas for decision in decisions} == {9}
    assert decisions[-1].binding == "release"
    assert many.run(3 * TICK, 0.5 * RATE)[-1].replicas < 9


def test_requests_under_way_count_in_the_lengths() -> None:
    scaler = SwellScaler({"X": POOL}, OBJECTIVE)
    short = LengthSums(10, 10 * PROMPT, 10 * PROMPT**2, 10 * 20, 10 * 20**2, 10 * PROMPT * 20)  # the first to be ready
    seen = replace(window(TICK, 4.0), completed=short, decoded_tokens=2000, in_flight=30)
    decision = scaler.decide(Observation(TICK, seen, fleet(4)))
    assert dict(decision.inputs)["mean_output"] == pytest.approx(
        140
    )  # as if the 30 were at a third: (200 + 3 * 1800) / 40
    later = replace(window(2 * TICK, 100.0), decoded_tokens=1000 * OUTPUT)  # as many ended as arrived
    decision = scaler.decide(Observation(2 * TICK, later, fleet(4)))
    assert dict(decision.inputs)["mean_output"] == pytest.approx(OUTPUT, rel=0.01)


def judged(scaler: SwellScaler, now: float, missed: int) -> None:
    seen = replace(window(now, 10.0), judged=100, attained=100 - missed)
    scaler.decide(Observation(now, seen, fleet(4)))


@given(st.lists(st.integers(0, 100), min_size=1, max_size=50), st.integers(1, 50))
@settings(max_examples=60, deadline=None)
def test_more_misses_never_mean_less_caution(missed: list[int], more: int) -> None:
    few, many = SwellScaler({"X": POOL}, OBJECTIVE), SwellScaler({"X": POOL}, OBJECTIVE)
    for turn, count in enumerate(missed):
        judged(few, (turn + 1) * TICK, count)
        judged(many, (turn + 1) * TICK, min(100, count + more))
    low, high = CAUTION_RANGE
    assert low <= few.memory.caution <= many.memory.caution <= high


def test_caution_settles_where_as_many_miss_as_may() -> None:
    scaler = SwellScaler({"X": POOL}, OBJECTIVE)
    for turn in range(1, 201):
        judged(scaler, turn * TICK, 1)
    assert scaler.memory.caution == pytest.approx(1.0)
    for turn in range(201, 401):
        judged(scaler, turn * TICK, 0)
    assert scaler.memory.caution < 1.0
    fixed = SwellScaler({"X": POOL}, OBJECTIVE, caution=1.5)
    judged(fixed, TICK, 100)
    assert fixed.memory.caution == 1.0
    assert dict(fixed.decide(Observation(20.0, window(20.0, 1.0), fleet(1))).inputs)["quantile"] == quantile_for(
        OBJECTIVE, 1.5
    )


@given(st.floats(0.5, 0.9999), st.floats(0.5, 0.9999), st.floats(0.1, 8))
def test_a_higher_attainment_asks_for_a_higher_quantile(one: float, other: float, caution: float) -> None:
    low, high = (quantile_for(Objective(attainment=each), caution) for each in sorted((one, other)))
    assert 0 < low <= high <= 1


def test_lengths_stay_what_they_are_however_few_requests_there_are() -> None:
    rare = Fleet(ready=1)
    decisions = [decision for _ in range(400) for decision in rare.run(TICK, 0.1)]
    assert dict(decisions[-1].inputs)["mean_output"] == pytest.approx(OUTPUT, rel=1e-6)
    assert dict(decisions[-1].inputs)["mean_prompt"] == pytest.approx(PROMPT, rel=1e-6)


def test_an_outage_of_an_hour_does_not_buy_replicas_for_days() -> None:
    scaler = SwellScaler({"X": POOL}, OBJECTIVE)
    for turn in range(1, 361):
        judged(scaler, turn * TICK, 1)
    for turn in range(361, 721):
        judged(scaler, turn * TICK, 100)
    assert 1.0 < scaler.memory.caution < CAUTION_RANGE[1] / 2 + 20 * 360 * TICK / (720 * TICK)
    before = scaler.memory.caution
    for turn in range(721, 9361):
        judged(scaler, turn * TICK, 0)
    assert scaler.memory.caution < before - 1


def test_a_server_that_finds_replicas_counts_idle_time_from_then() -> None:
    fresh = SwellScaler({"X": replace(POOL, start_seconds=5.0)}, OBJECTIVE, idle_seconds=300.0)
    idle = [
        fresh.decide(Observation(turn * TICK, Window(turn * TICK, TICK), fleet(1))).replicas for turn in range(1, 40)
    ]
    assert idle[:30] == [1] * 30
    assert idle[-1] == 0
