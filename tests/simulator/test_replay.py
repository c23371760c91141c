"""Whole replays: nothing is lost, money adds up, and the same seed gives the same run."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.errors import UserError
from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.swell import SwellScaler
from swell.simulator.result import Result, Scenario
from swell.simulator.run import replay, sums_of
from swell.state.scaling import Decision, LatencyProfile, Objective, Observation, Pool
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=400_000)
POOL = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=60.0)
OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)


class Plan:
    """Replicas by time, and what it saw."""

    interval_seconds = 10.0

    def __init__(self, *steps: tuple[float, int]) -> None:
        self.steps = steps
        self.seen: list[Observation] = []

    def decide(self, seen: Observation) -> Decision:
        self.seen.append(seen)
        count = next((n for at, n in reversed(self.steps) if seen.now >= at), 0)
        return Decision(seen.now, (("X", count),), "as planned", "plan")


def traffic(seconds: float = 600, rate: float = 4.0, seed: int = 1) -> Traffic:
    rng = np.random.default_rng(seed)
    count = max(1, int(seconds * rate))
    prompts = rng.integers(1, 3000, count).astype(np.int32)
    return Traffic(np.sort(rng.uniform(0, seconds, count)), prompts, rng.integers(1, 300, count).astype(np.int32))


def scenario(**changes: object) -> Scenario:
    return replace(Scenario(traffic(), (POOL,), OBJECTIVE), **changes)


def test_a_fleet_that_is_large_enough_attains_and_pays_for_its_time() -> None:
    result = replay(scenario(min_replicas=3), Plan((0, 3)))
    assert result.attainment > 0.995
    assert result.requests == 2400
    assert result.cost_usd == pytest.approx(3 * result.timeline.seconds[-1] / 1000, rel=0.03)  # 3.6 USD/h: 1 a 1000 s
    assert result.usd_by_market == {"on_demand": pytest.approx(result.cost_usd)}
    assert result.starts == 3


def test_starting_takes_its_time_and_is_paid() -> None:
    result = replay(scenario(min_replicas=1), Plan((0, 1), (100, 3), (300, 1)))
    when = result.timeline.seconds
    assert result.timeline.present[when == 100.0] == [3]
    assert result.timeline.ready[when == 150.0] == [1]
    assert result.timeline.ready[when == 170.0] == [3]
    assert result.timeline.present[when == 300.0] == [1]
    assert result.cost_usd == pytest.approx((2 * 200 + when[-1]) / 1000, rel=0.05)


def test_without_replicas_requests_wait_and_are_missed_and_none_is_lost() -> None:
    quiet = replace(traffic(seconds=50), arrival_seconds=traffic(seconds=50).arrival_seconds + 900)
    plan = Plan((0, 0), (1000, 1))
    result = replay(scenario(traffic=quiet, warm_seconds=100), plan)
    assert result.attained == 0
    assert plan.seen[-1].window is not None
    assert max(seen.window.queued for seen in plan.seen if seen.window) == len(quiet)


@pytest.mark.parametrize("seed", [1, 2])
def test_those_who_are_late_are_demoted_or_refused_as_the_model_says(seed: int) -> None:
    """Refused ones cost no time of a replica, and are misses all the same; nobody waits who cannot be in time."""
    crowd = scenario(traffic=traffic(300, 30.0, seed), min_replicas=1, max_in_flight=16)
    plan = Plan((0, 1))
    demoted, refused = replay(crowd, Plan((0, 1))), replay(replace(crowd, refuses_late=True), plan)
    assert demoted.requests == refused.requests
    assert len(demoted.ttft_ms) == len(refused.ttft_ms) == 3
    windows = [seen.window for seen in plan.seen if seen.window]
    assert max(window.queued for window in windows) < 30.0 * 6
    assert max(demoted.timeline.queued) > 5 * max(refused.timeline.queued)
    assert sum(window.judged - window.completed.count for window in windows) > 0.5 * refused.requests
    assert refused.ttft_ms["p99"] < 6000 < demoted.ttft_ms["p99"]
    assert 0 < demoted.attained <= refused.attained < refused.requests


def test_a_fleet_that_never_comes_ends_the_replay_all_the_same() -> None:
    result = replay(scenario(warm_seconds=0), Plan((0, 0)))
    assert (result.attained, result.ttft_ms) == (0, {})


@pytest.mark.parametrize(
    ("prompts", "outputs", "apart", "most"),
    [
        ((10, 10), (10_000_000, 10), 1.0, 2),  # as a rate, that one output fills the 10,000 that there may be
        ((300_000, 300_000), (100, 1), 60.0, 2),
        ((100, 100), (100, 100), 20.0, 1),
        ((100,) * 30, (2000,) * 30, 1.0, 1),  # one replica carries thirty at a time
        ((1000,) * 400, (1000,) * 400, 0.5, 4),
    ],
)
def test_few_requests_begin_with_no_more_replicas_than_could_serve_them(
    prompts: tuple[int, ...], outputs: tuple[int, ...], apart: float, most: int
) -> None:
    few = Traffic(np.arange(len(prompts)) * apart, np.array(prompts, np.int32), np.array(outputs, np.int32))
    plan = Plan((0, 1))
    replay(scenario(traffic=few), plan)
    assert 1 <= plan.seen[0].ready <= most


def test_a_trace_begins_with_the_replicas_that_its_first_ten_minutes_fill() -> None:
    plan = Plan((0, 1))
    replay(scenario(traffic=traffic(1200, 40.0), warm_seconds=600), plan)
    sums = sums_of(scenario(traffic=traffic(1200, 40.0)), 0.0, 600.0)
    mix = Mix.of_sums(sums)
    assert mix is not None
    assert plan.seen[0].ready == ceil(sums.count / 600 / capacity(PROFILE, OBJECTIVE, mix)[0])


def test_nothing_to_replay_is_said() -> None:
    empty = Traffic(np.zeros(0), np.zeros(0, np.int32), np.zeros(0, np.int32))
    with pytest.raises(UserError, match="nothing to replay"):
        replay(scenario(traffic=empty), Plan())


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31), st.floats(0.2, 20), st.lists(st.tuples(st.floats(0, 300), st.integers(0, 5)), max_size=6),
    st.sampled_from(["least_outstanding_tokens", "round_robin", "prefix_affinity"]), st.integers(1, 40),
)  # fmt: skip
def test_any_plan_keeps_every_request_and_every_bound(
    seed: int, rate: float, steps: list[tuple[float, int]], routing: str, limit: int
) -> None:
    """The checkers inside the replay assert; here, that the windows add up to the trace."""
    plan = Plan(*sorted(steps), (300, 2))
    what = scenario(traffic=traffic(300, rate, seed), routing=routing, max_in_flight=limit)
    result = replay(what, plan)
    windows = [seen.window for seen in plan.seen if seen.window]
    assert sum(window.arrivals for window in windows) <= result.requests
    assert sum(window.judged for window in windows) <= result.requests
    assert sum(window.attained for window in windows) <= result.attained <= result.requests
    assert all(window.in_flight + window.queued >= 0 for window in windows)


def test_the_same_scenario_gives_the_same_run_bit_for_bit() -> None:
    def once() -> Result:
        return replay(scenario(), SwellScaler({"X": POOL}, OBJECTIVE, 1, 20))

    first, second = once(), once()
    assert replace(first, wall_seconds=0, timeline=second.timeline) == replace(second, wall_seconds=0)
    for column in ("seconds", "ready", "present", "in_system", "queued", "usd_per_hour"):
        assert (getattr(first.timeline, column) == getattr(second.timeline, column)).all()


def test_tokens_are_seen_when_they_are_produced_and_once() -> None:
    """Also of requests under way, across replicas that end."""
    plan = Plan((0, 3), (200, 1), (300, 3))
    result = replay(scenario(min_replicas=3), plan)
    windows = [seen.window for seen in plan.seen if seen.window]
    outputs = int(traffic().output_tokens.sum())
    produced = sum(w.decoded_tokens for w in windows)
    assert result.requests == 2400
    assert produced == pytest.approx(outputs, rel=0.02)  # the last requests end after the last window
    first = windows[0]
    assert first.decoded_tokens > first.completed.o
