"""Infrastructure budgets through whole replays: kept to the nano-dollar, and better spent than by a ceiling."""

from dataclasses import replace

import numpy as np
import pytest

from swell.errors import UserError
from swell.simulator.own import swell_scaler
from swell.simulator.result import Result, Scenario
from swell.simulator.run import replay
from swell.simulator.spot import market_for
from swell.simulator.treasury import SimBudget, price_of
from swell.state.scaling import LatencyProfile, Market, Objective, Pool
from swell.state.traffic import Traffic
from swell.units import NANOS_PER_USD

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000, max_sequences=2)
X = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=60.0)
SPOT = tuple(
    replace(X, name=f"X/spot/{zone}", usd_per_hour=usd, market=Market.SPOT, zone=zone, hazard_per_hour=0.7)
    for zone, usd in (("us-east-1a", 1.0), ("us-west-2a", 1.1))
)
OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)
HOUR = 3600.0


def traffic(seed: int, hours: float, rate: float, turn_seconds: float = HOUR) -> Traffic:
    """Thrice as many in every second hour, or other turn, as in the one before."""
    rng = np.random.default_rng(seed)
    arrivals = rng.uniform(0, hours * HOUR, int(hours * HOUR * rate * 1.5))
    kept = np.sort(arrivals[(arrivals // turn_seconds % 2 == 1) | (rng.random(len(arrivals)) < 1 / 3)])
    count = len(kept)
    return Traffic(
        kept, rng.integers(1, 3000, count).astype(np.int32), rng.integers(1, 300, count).astype(np.int32),
        start_unix=1_704_067_200.0,
    )  # fmt: skip


def run(scenario: Scenario) -> Result:
    return replay(scenario, swell_scaler(scenario), name="swell")


@pytest.mark.parametrize("seed", range(12))
def test_no_period_of_a_replay_costs_more_than_the_budget(seed: int) -> None:
    rng = np.random.default_rng(seed)
    budget = SimBudget(int(rng.uniform(0, 25) * NANOS_PER_USD), "hour")
    pools = (X, *SPOT) if seed % 2 else (X,)
    market = market_for(SPOT, seed=seed, horizon_seconds=3 * HOUR) if seed % 2 else None
    scenario = Scenario(
        traffic(seed, 1.3, 1.2), pools, OBJECTIVE, int(rng.integers(0, 3)), 30, seed=seed, spot=market, budget=budget,
        crashes_per_hour=float(rng.choice([0.0, 2.0])), failed_starts=float(rng.choice([0.0, 0.3])),
        minimum_seconds=float(rng.choice([0.0, 60.0, 600.0])),
    )  # fmt: skip
    result = run(scenario)
    assert max(result.spent_usd_nanos) <= budget.usd_nanos
    assert sum(result.spent_usd_nanos) / NANOS_PER_USD == pytest.approx(result.cost_usd, rel=1e-5, abs=1e-4)


class OfTheTrace(SimBudget):
    """As long as the trace."""

    seconds = 2 * HOUR


def test_a_budget_beats_the_constant_ceiling_that_costs_as_much() -> None:
    scenario = Scenario(traffic(1, 2, 0.6, 1200.0), (X,), OBJECTIVE, 0, 40)
    free = run(scenario)
    money = 0.8 * free.cost_usd
    ours = run(replace(scenario, budget=OfTheTrace(int(money * NANOS_PER_USD), "day")))
    ceiling = run(replace(scenario, max_replicas=int(money / 2 / X.usd_per_hour)))
    assert ours.spent_usd_nanos[0] <= money * NANOS_PER_USD
    assert ours.reasons["budget"] > 0
    assert ours.attainment > ceiling.attainment + 0.02, (ours.attainment, ceiling.attainment, ceiling.cost_usd / money)


def test_a_budget_that_is_never_reached_changes_nothing() -> None:
    scenario = Scenario(traffic(3, 0.7, 1.0), (X,), OBJECTIVE, 0, 40)
    free, rich = run(scenario), run(replace(scenario, budget=SimBudget(10**15, "week")))
    assert (rich.attained, rich.cost_usd, rich.starts) == (free.attained, free.cost_usd, free.starts)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x / day", "is not an amount"),
        ("5", "per hour, day, week"),
        ("5 / month", "per hour"),
        ("-1 / day", "negative"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        SimBudget.parse(text)


def test_budgets_as_they_are_written() -> None:
    assert SimBudget.parse("$300.50 / week") == SimBudget(300_500_000_000, "week")
    assert price_of(X) == 3_600_000_000
    assert price_of(replace(X, usd_per_hour=1e-12)) == 1, "never less than it is"
