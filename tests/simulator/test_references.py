"""The oracle and the rate-clairvoyant policy: what they order and when, and what whole replays of them come to."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from bound_scenes import pool, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.policy.scaling.capacity import Mix, capacity
from swell.simulator.bounds.program import linear_bound
from swell.simulator.references import Planned, RateClairvoyant, spread_work
from swell.simulator.result import Scenario
from swell.simulator.run import replay
from swell.state.scaling import LatencyProfile, Market, Objective, Observation, Pool, ReplicaState, ReplicaView, Window
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("m", "a", 1, 8.0, 0.05, 1.5e-6, 12.0, 0.03, 8e-5, 400_000)
OBJECTIVE = Objective(ttft_ms=5000, itl_ms=100.0, beyond_prefill=True)


def at(now: float, replicas: tuple[ReplicaView, ...] = (), queued: int = 0) -> Observation:
    return Observation(now, Window(now, 30.0, queued=queued), replicas)


def counts(scaler: Planned | RateClairvoyant, seconds: range, pool_name: str = "a") -> list[int]:
    return [dict(scaler.decide(at(float(now))).counts)[pool_name] for now in seconds]


def steps(rates: list[float], seconds: float = 600.0, seed: int = 1) -> Traffic:
    """Alike requests at one rate after the other, each for so long."""
    random = np.random.default_rng(seed)
    arrivals = np.sort(
        np.concatenate([(i + random.random(round(rate * seconds))) * seconds for i, rate in enumerate(rates)])
    )
    size = len(arrivals)
    return Traffic(arrivals, np.full(size, 1000, dtype=np.int32), np.full(size, 100, dtype=np.int32))


def world(rates: list[float], start: float = 120.0, **fleet: int) -> Scenario:
    return Scenario(steps(rates), (Pool("a", PROFILE, 3.6, start),), OBJECTIVE, **fleet)


def per_replica() -> float:
    return capacity(PROFILE, OBJECTIVE, Mix.of_means(1000, 100))[0]


def test_the_plan_is_ordered_so_that_it_is_ready_in_time() -> None:
    # Work of 60 s a slot in slots 0 and 10, of 120 s in slot 20; starts take 90 s.
    made = scene([(0, 59.0, 5), (600, 59.0, 5), (1200, 59.0, 5), (1200, 59.0, 5)], (pool(90.0),))
    planned = Planned(made)
    assert counts(planned, range(30, 600, 30)) == [1] + [0] * 15 + [1, 1, 1]  # ordered at 510 s, 90 s before 600 s
    assert counts(planned, range(1080, 1290, 30)) == [0, 2, 2, 2, 2, 2, 2]  # and the last slot's hold on after it


def test_gaps_up_to_the_start_up_are_bridged() -> None:
    made = scene([(0, 59.0, 5), (180, 59.0, 5)], (pool(120.0),))
    assert counts(Planned(made), range(30, 240, 30)) == [1] * 7
    made = scene([(0, 59.0, 5), (210, 59.0, 5)], (pool(60.0),))
    assert counts(Planned(made), range(30, 240, 30)) == [1, 0, 0, 1, 1, 1, 1]


def test_the_true_rate_is_known_for_the_start_up_ahead_and_no_further() -> None:
    made = world([3 * per_replica() * 0.99, 7 * per_replica() * 0.99, 0.5 * per_replica(), 2.5 * per_replica()])
    found = counts(RateClairvoyant(made), range(30, 2400, 30))
    expected = []
    for now in range(30, 2400, 30):
        begins = range(now // 600, ceil((now + 150) / 600))
        expected.append(max([3, 7, 1, 3][min(3, slot)] for slot in begins))
    assert found == expected


def test_a_last_slot_that_is_short_keeps_its_rate() -> None:
    traffic = steps([2 * per_replica() * 0.99] * 2)
    kept = traffic.arrival_seconds < 690
    cut = Traffic(traffic.arrival_seconds[kept], traffic.prompt_tokens[kept], traffic.output_tokens[kept])
    found = counts(RateClairvoyant(Scenario(cut, (Pool("a", PROFILE, 1.0, 60.0),), OBJECTIVE)), range(30, 690, 30))
    assert set(found) <= {2, 3}
    assert found[-1] >= 2


@given(first=st.floats(0.3, 3), more=st.floats(1.0, 3))
@settings(max_examples=20)
def test_a_larger_knob_never_means_fewer_replicas(first: float, more: float) -> None:
    made = world([5.0, 20.0, 1.0])
    for reference in (Planned, RateClairvoyant):
        low, high = reference(made, first), reference(made, first * more)
        moments = range(30, 2000, 90)
        assert all(a <= b for a, b in zip(counts(low, moments), counts(high, moments), strict=True))


def test_bounds_of_the_fleet_and_a_queue_are_minded() -> None:
    made = world([20 * per_replica(), 0.1], min_replicas=2, max_replicas=5)
    clairvoyant = RateClairvoyant(made)
    assert counts(clairvoyant, range(30, 1200, 300)) == [5, 5, 2, 2]
    quiet = Planned(scene([(0, 1.0, 5), (6000, 1.0, 5)], (pool(60.0),)))
    assert counts(quiet, range(600, 631, 30)) == [0, 0]
    decided = quiet.decide(at(660.0, queued=3))
    assert (decided.replicas, decided.binding) == (1, "floor")


def test_it_holds_where_the_fleet_is_what_it_wants() -> None:
    made = world([0.5 * per_replica()])
    ready = ReplicaView("r", "a", ReplicaState.READY, 0.0)
    assert RateClairvoyant(made).decide(at(30.0, (ready,))).is_hold
    assert not RateClairvoyant(made).decide(at(30.0)).is_hold
    with pytest.raises(ValueError, match="positive"):
        RateClairvoyant(made, 0.0)


def test_the_rate_clairvoyant_takes_the_pool_that_is_cheapest_per_request_and_lasts() -> None:
    pools = (
        Pool("a", PROFILE, 3.0, 60.0),
        Pool("b", PROFILE, 2.0, 60.0),
        Pool("s", PROFILE, 1.0, 60.0, market=Market.SPOT),
    )
    made = Scenario(steps([2.5 * per_replica()]), pools, OBJECTIVE)
    assert dict(RateClairvoyant(made).decide(at(60.0)).counts) == {"a": 0, "b": 3, "s": 0}


def test_a_plan_over_pools_rounds_up_what_stands_in_for_each_other_once() -> None:
    pools = (pool(60.0), pool(60.0, usd=1800.0, name="s", market=Market.SPOT))
    made = scene([(tick * 60.0, 90.0, 1) for tick in range(20)], pools)
    limited = replace(made, pools=(pools[0], replace(pools[1], max_replicas=1)))
    decided = dict(Planned(limited).decide(at(300.0)).counts)
    assert decided == {"a": 1, "s": 1}  # half a replica on demand and one on spot


def test_spread_work_is_all_of_it_over_the_time_of_the_output() -> None:
    traffic = Traffic(np.array([30.0]), np.array([1000], dtype=np.int32), np.array([900], dtype=np.int32))
    spread = spread_work(traffic, PROFILE, OBJECTIVE, 60.0)  # 90 s from 30 s on
    assert spread[0] == pytest.approx(spread.sum() / 3)
    assert spread[1] == pytest.approx(spread.sum() * 2 / 3)


@pytest.mark.parametrize("reference", [Planned, RateClairvoyant])
def test_whole_replays_reach_the_objective_at_some_headroom_and_never_undercut_the_bound(
    reference: type[Planned] | type[RateClairvoyant],
) -> None:
    made = world([5.0, 12.0, 5.0])
    results = [replay(made, reference(made, knob)) for knob in (0.7, 1.2, 2.2)]
    assert results[-1].attainment >= 0.99
    assert [result.cost_usd for result in results] == sorted(result.cost_usd for result in results)
    for result in results:
        asked = Scenario(made.traffic, made.pools, Objective(5000, 100.0, result.attainment, 0.0, True))
        assert linear_bound(asked).usd <= result.cost_usd
