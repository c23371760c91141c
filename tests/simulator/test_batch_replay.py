"""Batch through whole replays: on spot it costs less, and whoever is promised a time attains no less."""

from dataclasses import replace

import numpy as np
import pytest
from test_mix_replay import OBJECTIVE, SPOT, X, run

from swell.errors import UserError
from swell.policy.scaling.placement import PlacementRules
from swell.simulator.result import Scenario
from swell.simulator.spot import NodeEvent, SpotMarket, market_for, replay_market
from swell.simulator.traffic import GeneratedTraffic, between, describe, generate, scale_rate, superpose, with_batch
from swell.state.traffic import Traffic

HOUR = 3600.0
SLOW = replace(X.profile, max_sequences=4, step_fixed_ms=75.0)  # few requests keep several replicas busy
NARROW = tuple(replace(pool, profile=SLOW) for pool in (X, *SPOT))


def day(seed: int, rate: float, share: float, hours: float = 12.0) -> Traffic:
    """The waking hours of a generated day: a curve, drift, spikes."""
    shape = GeneratedTraffic(
        seconds=hours * HOUR, requests_per_second=rate, spikes_per_day=6, drift_deviation=0.2,
        prompt_mean=400, prompt_p95=1000, output_mean=400, output_p95=900, peak_hour=6.0,
    )  # fmt: skip
    return with_batch(generate(shape, seed), share, seed=seed)


def storm(hours: float) -> SpotMarket:
    """Four times in an afternoon every zone loses everything within ten minutes, and has it back after a while."""
    nodes: list[NodeEvent] = []
    for zone, pool in enumerate(SPOT):
        begins = 0.0
        for number, at in enumerate((4.0, 5.0, 6.25, 8.0)):
            name, taken = f"{pool.name}-{number}", at * HOUR + 200.0 * zone
            nodes += [NodeEvent(begins, f"{name}-{n}", added=True, zone=pool.name) for n in range(40)]
            nodes += [NodeEvent(taken, f"{name}-{n}", added=False, zone=pool.name) for n in range(40)]
            begins = taken + 1500.0
        nodes += [NodeEvent(begins, f"{pool.name}-last-{n}", added=True, zone=pool.name) for n in range(40)]
    nodes.sort(key=lambda event: event.at)
    return replay_market(nodes, zones=[pool.name for pool in SPOT], horizon_seconds=hours * HOUR + 2 * HOUR)


@pytest.mark.parametrize("seed", [1, 2])
def test_through_a_storm_batch_costs_less_and_others_attain_no_less(seed: int) -> None:
    print(f"seed {seed}")
    rules = PlacementRules(on_demand_base=1, max_spot_fraction=0.7)
    traffic = day(seed, 0.5, share=0.5)
    scenario = Scenario(traffic, NARROW, OBJECTIVE, 0, 60, spot=storm(12), seed=seed, rules=rules)
    promised = replace(scenario, traffic=replace(traffic, batch=None))
    waits, all_alike = run(scenario), run(promised)
    assert waits.preemptions >= 10
    assert waits.batch is not None
    assert waits.batch.answered == waits.batch.requests == traffic.batch_count > 0.4 * len(traffic)
    assert waits.attainment >= all_alike.attainment
    assert waits.cost_usd < 0.9 * all_alike.cost_usd
    assert waits.usd_by_market["on_demand"] < 0.8 * all_alike.usd_by_market["on_demand"]


def test_batch_alone_needs_no_promise_and_next_to_no_machine_on_demand() -> None:
    traffic = day(3, 0.4, share=1.0, hours=8)
    market = storm(8)
    rules = PlacementRules(on_demand_base=0)
    scenario = Scenario(traffic, NARROW, OBJECTIVE, 0, 60, spot=market, seed=3, rules=rules)
    result = run(scenario)
    assert result.batch is not None
    assert (result.batch.answered, result.promised, result.attainment) == (len(traffic), 0, 1.0)
    assert result.usd_by_market["spot"] > 5 * result.usd_by_market.get("on_demand", 0.0)
    assert result.batch.first_token_p95_seconds < HOUR
    promised = run(replace(scenario, traffic=replace(traffic, batch=None)))
    assert result.cost_usd < promised.cost_usd


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_weather_every_batch_request_is_answered_or_counted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    market = market_for(SPOT, seed=seed, horizon_seconds=1800, nodes=int(rng.integers(1, 8)), notice_seconds=30.0)
    traffic = day(seed, float(rng.uniform(0.5, 6)), float(rng.uniform(0, 1)), hours=0.2)
    scenario = Scenario(
        traffic, (X, *SPOT), OBJECTIVE, int(rng.integers(0, 2)), 12, seed=seed, spot=market,
        crashes_per_hour=float(rng.choice([0.0, 20.0])), failed_starts=float(rng.choice([0.0, 0.3])),
        rules=PlacementRules(on_demand_base=int(rng.integers(0, 2)), max_spot_fraction=float(rng.choice([0.6, 1.0]))),
        routing=str(rng.choice(["least_outstanding_tokens", "round_robin", "prefix_affinity"])),
    )  # fmt: skip
    result = run(scenario)
    batch = result.batch
    assert result.promised + (batch.requests if batch else 0) == result.requests
    assert 0 <= result.attained <= result.promised
    assert batch is None or 0 <= batch.answered <= batch.requests


def test_without_batch_nothing_is_as_if_there_were_such_a_thing() -> None:
    traffic = day(5, 2.0, share=0.0, hours=1)
    market = market_for(SPOT, seed=5, horizon_seconds=2 * HOUR)
    scenario = Scenario(traffic, (X, *SPOT), OBJECTIVE, 0, 20, spot=market)
    none, unsaid = run(scenario), run(replace(scenario, traffic=replace(traffic, batch=None)))
    assert none.batch is None
    assert (none.cost_usd, none.attained, none.reasons) == (unsaid.cost_usd, unsaid.attained, unsaid.reasons)


def test_the_column_goes_with_its_requests() -> None:
    traffic = day(7, 1.0, share=0.3, hours=1)
    assert traffic.batch is not None
    assert traffic.batch_count == pytest.approx(0.3 * len(traffic), rel=0.15)
    assert with_batch(traffic, 0.3, seed=7).batch.tolist() == traffic.batch.tolist()  # type: ignore[union-attr]
    part = between(traffic, 600.0, 1200.0)
    assert part.batch is not None
    kept = (traffic.arrival_seconds >= 600.0) & (traffic.arrival_seconds < 1200.0)
    assert part.batch.tolist() == traffic.batch[kept].tolist()
    for more in (superpose(traffic, 3, seed=1), scale_rate(traffic, 1.7, seed=2), scale_rate(traffic, 0.4, seed=2)):
        assert more.batch_count / len(more) == pytest.approx(traffic.batch_count / len(traffic), abs=0.05)
    assert describe(traffic)["requests"] == len(traffic)
    with pytest.raises(UserError, match="give 0 to 1"):
        with_batch(traffic, 1.5)
