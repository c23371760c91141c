"""Crashes, failed starts and lost spot capacity: nothing is lost, and what was decided can be decided again."""

from dataclasses import replace

import numpy as np
import pytest

from swell.control.scaling import ScalingLoop
from swell.policy.scaling.swell import SwellScaler
from swell.simulator.checkers import Broken, check_idle
from swell.simulator.fleet import Limits, SimReplica
from swell.simulator.result import Scenario
from swell.simulator.run import Replay, replay
from swell.simulator.spot import market_for
from swell.state.scaling import Decision, LatencyProfile, Market, Objective, Observation, Pool
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=400_000)
POOL = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=60.0)
SPOT = replace(POOL, name="X/spot", usd_per_hour=1.2, market=Market.SPOT, zone="us-east-1a", hazard_per_hour=4.0)
OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)


def traffic(seed: int, seconds: float = 1800, rate: float = 6.0) -> Traffic:
    rng = np.random.default_rng(seed)
    count = int(seconds * rate)
    prompts = rng.integers(1, 3000, count).astype(np.int32)
    return Traffic(np.sort(rng.uniform(0, seconds, count)), prompts, rng.integers(1, 300, count).astype(np.int32))


@pytest.mark.parametrize("seed", range(200))
def test_whatever_fails_every_request_is_answered_or_counted(seed: int) -> None:
    """The replay's own checkers assert at every turn; its end is checked here. The seed is in the test's name."""
    rng = np.random.default_rng(seed)
    scenario = Scenario(
        traffic(seed, 300, float(rng.uniform(0.5, 8))), (POOL,), OBJECTIVE, int(rng.integers(0, 2)), 12, seed=seed,
        crashes_per_hour=float(rng.choice([0.0, 5.0, 60.0])), failed_starts=float(rng.choice([0.0, 0.3, 0.9])),
    )  # fmt: skip
    result = replay(scenario, SwellScaler({"X": POOL}, OBJECTIVE, scenario.min_replicas, 12))
    assert 0 <= result.attained <= result.requests
    assert result.cost_usd > 0


def test_lost_replicas_cost_attainment_but_are_replaced() -> None:
    calm = Scenario(traffic(1), (POOL,), OBJECTIVE, 1, 20, seed=3)
    stormy = replace(calm, crashes_per_hour=6.0)
    results = [replay(each, SwellScaler({"X": POOL}, OBJECTIVE, 1, 20)) for each in (calm, stormy)]
    assert results[1].starts > results[0].starts
    assert 0.6 < results[1].attainment < results[0].attainment


class Both:
    """Two replicas of each pool, always."""

    interval_seconds = 10.0

    def decide(self, seen: Observation) -> Decision:
        return Decision(seen.now, (("X", 2), ("X/spot", 4)), "two markets", "plan")


def test_spot_is_cheaper_is_taken_away_with_notice_and_comes_back() -> None:
    seconds = 24 * 3600.0
    market = market_for((SPOT,), seed=5, horizon_seconds=seconds, nodes=4)
    what = Scenario(traffic(2, seconds, 0.5), (POOL, SPOT), OBJECTIVE, 1, 20, seed=5, spot=market)
    first, second = replay(what, Both()), replay(what, Both())
    assert first.preemptions > 0
    assert first.attained == second.attained
    assert first.cost_usd == second.cost_usd
    assert set(first.usd_by_market) == {"on_demand", "spot"}
    assert first.attainment > 0.95


class Log:
    """A fleet that was recorded: it shows what was seen, and keeps what is ordered."""

    def __init__(self, seen: list[Observation]) -> None:
        self._seen = iter(seen)

    def observe(self, now: float) -> Observation:
        return next(self._seen)

    def start(self, pool: str, count: int) -> None:
        assert count > 0

    def drain(self, replica_id: str) -> None:
        assert replica_id


def test_the_log_of_a_run_gives_the_live_loop_the_identical_decisions() -> None:
    seen: list[Observation] = []
    decided: list[Decision] = []
    scenario = Scenario(traffic(4), (POOL,), OBJECTIVE, 0, 20, crashes_per_hour=3.0)

    class Recorded(Replay):
        def observe(self, now: float) -> Observation:
            seen.append(super().observe(now))
            return seen[-1]

        def _note(self, decision: Decision) -> None:
            decided.append(decision)
            super()._note(decision)

    Recorded(scenario, SwellScaler({"X": POOL}, OBJECTIVE, 0, 20)).run()
    again: list[Decision] = []
    loop = ScalingLoop(Log(seen), SwellScaler({"X": POOL}, OBJECTIVE, 0, 20), {"X": POOL}, again.append)
    for observation in seen:
        loop.step(observation.now)
    assert len(again) > 100
    assert again == decided


def test_waiting_beside_a_free_replica_is_a_fault() -> None:
    replica = SimReplica("X-1", POOL, Limits(1, 1.0, 10_000), 0.0, 512)
    check_idle([replica], [])
    with pytest.raises(Broken, match="2 requests wait"):
        check_idle([replica], [1, 2])
    replica.in_flight = 1
    check_idle([replica], [1, 2])
