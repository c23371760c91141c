"""Several pools through whole replays, with preemptions. The replay's checkers assert at every turn."""

from dataclasses import replace

import numpy as np
import pytest

from swell.policy.scaling.placement import PlacementRules
from swell.simulator.fleet import limits_of
from swell.simulator.own import swell_scaler
from swell.simulator.result import Result, Scenario
from swell.simulator.run import EXPECTED_OUTPUT_TOKENS, Replay, replay
from swell.simulator.spot import NodeEvent, market_for, replay_market
from swell.state.scaling import Decision, LatencyProfile, Market, Objective, Observation, Pool
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000)
X = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=60.0)
SPOT = tuple(
    replace(X, name=f"X/spot/{zone}", usd_per_hour=usd, market=Market.SPOT, zone=zone, hazard_per_hour=0.7)
    for zone, usd in (("us-east-1a", 1.0), ("us-west-2a", 1.1), ("eu-west-1a", 1.3))
)
OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)
HOUR = 3600.0


def traffic(seed: int, seconds: float, rate: float, longest: int = 3000) -> Traffic:
    rng = np.random.default_rng(seed)
    count = int(seconds * rate)
    prompts = rng.integers(1, longest, count).astype(np.int32)
    return Traffic(np.sort(rng.uniform(0, seconds, count)), prompts, rng.integers(1, 300, count).astype(np.int32))


def run(scenario: Scenario) -> Result:
    return replay(scenario, swell_scaler(scenario), name="swell")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_weather_every_request_is_answered_or_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market = market_for(SPOT, seed=seed, horizon_seconds=1800, nodes=int(rng.integers(1, 8)), notice_seconds=30.0)
    scenario = Scenario(
        traffic(seed, 600, float(rng.uniform(0.5, 10))), (X, *SPOT), OBJECTIVE, int(rng.integers(0, 2)), 12, seed=seed,
        spot=market, crashes_per_hour=float(rng.choice([0.0, 20.0])), failed_starts=float(rng.choice([0.0, 0.3])),
        rules=PlacementRules(on_demand_base=int(rng.integers(0, 2)), max_spot_fraction=float(rng.choice([0.6, 1.0]))),
    )  # fmt: skip
    result = run(scenario)
    assert 0 <= result.attained <= result.requests
    assert result.cost_usd == pytest.approx(sum(result.usd_by_market.values()))


def test_spot_costs_less_for_as_much_attainment_through_preemptions_bit_for_bit() -> None:
    seconds = 2 * HOUR
    market = market_for(SPOT, seed=6, horizon_seconds=seconds + HOUR)
    narrow = replace(PROFILE, max_sequences=2)  # few requests keep several replicas busy
    pools = tuple(replace(pool, profile=narrow) for pool in (X, *SPOT))
    alone = Scenario(traffic(3, seconds, 1.6), pools[:1], OBJECTIVE, 0, 40, seed=3)
    mixed = replace(alone, pools=pools, spot=market)
    without, with_spot, again = run(alone), run(mixed), run(mixed)
    assert with_spot.preemptions > 0
    assert with_spot.attainment >= 0.99
    assert with_spot.cost_usd < 0.7 * without.cost_usd
    assert (again.cost_usd, again.attained, again.starts) == (with_spot.cost_usd, with_spot.attained, with_spot.starts)


def test_a_recording_takes_single_nodes_and_nobody_notices() -> None:
    nodes = [NodeEvent(at, f"n{index}", added=True) for index, at in enumerate(range(0, 600, 60))]
    nodes += [NodeEvent(3000.0 + 300 * index, f"n{index}", added=False) for index in range(5)]
    market = replay_market(nodes, zones=[pool.name for pool in SPOT], horizon_seconds=3 * HOUR)
    scenario = Scenario(traffic(4, 1.2 * HOUR, 4.0), (X, *SPOT), OBJECTIVE, 0, 40, spot=market)
    result = run(scenario)
    assert result.preemptions > 0
    assert result.attainment >= 0.98
    assert result.usd_by_market["spot"] > 0


def test_no_hour_costs_more_than_the_ceiling_allows() -> None:
    scenario = Scenario(
        traffic(5, HOUR / 3, 16.0), (X, *SPOT), OBJECTIVE, 0, 40, spot=market_for(SPOT, seed=2, horizon_seconds=HOUR),
        rules=PlacementRules(usd_per_hour=4.5),
    )  # fmt: skip
    result = run(scenario)
    later = result.timeline.usd_per_hour[30:]  # the fleet begins with what the first minutes need, whatever it costs
    assert later.max() <= 4.5 + 1e-9
    assert result.reasons.get("budget", 0) > 0


class Fixed:
    """Always the same counts."""

    interval_seconds = 30.0

    def __init__(self, **counts: int) -> None:
        self._counts = tuple(counts.items())

    def decide(self, seen: Observation) -> Decision:
        return Decision(seen.now, self._counts, "fixed", "plan")


def test_unlike_replicas_share_by_speed_and_long_prompts_go_where_they_fit() -> None:
    fast = replace(PROFILE, accelerator="Y", step_fixed_ms=4.0, prefill_ms_per_token=0.0125)
    small = replace(PROFILE, accelerator="Z", kv_tokens=2500)
    pools = (X, replace(X, name="Y", profile=fast), replace(X, name="Z", profile=small))
    served: dict[str, list[int]] = {"X": [], "Y": [], "Z": []}

    class Recorded(Replay):
        def _dispatch(self, job, replica, now):  # type: ignore[no-untyped-def]
            served[replica.pool.name].append(job.prompt)
            super()._dispatch(job, replica, now)

    scenario = Scenario(traffic(6, 1800, 12.0), pools, OBJECTIVE, 1, 10)
    replayed = Recorded(scenario, Fixed(X=1, Y=1, Z=1))
    replayed.run()
    assert replayed.result("fixed", 0.0).attainment > 0.97
    later = {name: prompts[len(prompts) // 5 :] for name, prompts in served.items()}  # when all are ready
    assert len(later["Y"]) > len(later["X"]) > 0
    assert 0 < max(served["Z"]) <= 2500 - EXPECTED_OUTPUT_TOKENS < max(served["X"])


def test_limits_of_a_pool_follow_from_its_profile() -> None:
    from swell.policy.scaling.capacity import Mix

    mix = Mix.of_means(1000, 200)
    same = limits_of(X, X, OBJECTIVE, mix, 512)
    assert same.speed == 1.0
    assert same.prompt_tokens == 60_000 - 512
    half = replace(X, profile=replace(PROFILE, step_fixed_ms=60.0, prefill_ms_per_token=2.0))
    slow = limits_of(half, X, OBJECTIVE, mix, 512)
    assert slow.speed < 0.5
    assert PROFILE.prefill_ms(1) < half.profile.prefill_ms(slow.prompt_tokens) <= 5000 + PROFILE.prefill_ms(60_000)
    assert slow.prompt_tokens < same.prompt_tokens
