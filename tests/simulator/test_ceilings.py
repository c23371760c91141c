"""Policies that know no budget, inside one: by the largest maximum that their spend allows, and never beyond it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.simulator.ceilings import MOST_REPLAYS, largest_ceiling, most_spent, paid_throughout
from swell.simulator.compare import Comparison, assess, compare
from swell.simulator.contenders import contender
from swell.simulator.peers import PEERS
from swell.simulator.report import page
from swell.simulator.result import Result, Scenario, Timeline
from swell.simulator.summary import as_json, columns, ranking, rows, sentences
from swell.simulator.treasury import SimBudget
from swell.state.scaling import LatencyProfile, Objective, Pool
from swell.state.traffic import Traffic
from swell.units import NANOS_PER_USD

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000, max_sequences=2)
POOL = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=60.0)
HOUR = 3600.0
PEAK = 7
BUDGET = SimBudget(4 * NANOS_PER_USD, "hour")
NAMES = ("swell", "hpa", "static")


def traffic(hours: float, rate: float = 0.6, seed: int = 1) -> Traffic:
    """Thrice as many in every second third of an hour as in the one before."""
    rng = np.random.default_rng(seed)
    at = rng.uniform(0, hours * HOUR, int(hours * HOUR * rate * 1.5))
    at = np.sort(at[(at // 1200 % 2 == 1) | (rng.random(len(at)) < 1 / 3)])
    prompts, outputs = (rng.integers(1, most, len(at)).astype(np.int32) for most in (3000, 300))
    return Traffic(at, prompts, outputs, start_unix=1_704_067_200.0)


SCENARIO = Scenario(traffic(1.1, 0.7), (POOL,), Objective(5000, 100, 0.99, beyond_prefill=True), 0, 40)


class Known:
    """A policy that needs PEAK replicas: what it costs and attains with fewer is known."""

    def __init__(self, prices: list[int]) -> None:
        self.prices, self.asked = prices, list[int]()

    def __call__(self, most: int) -> Result:
        self.asked.append(most)
        replicas = min(most, PEAK)
        none, counts = np.zeros(1), np.full(1, replicas, np.int32)
        return Result(
            policy="known", requests=100, attained=replicas * 10, cost_usd=float(replicas), usd_by_market={},
            replica_hours=0.0, accelerator_hours=0.0, starts=0, preemptions=0, ttft_ms={}, itl_ms={}, wall_seconds=0.0,
            timeline=Timeline(none, counts, counts, counts, counts, none),
            spent_usd_nanos=tuple(replicas * price for price in self.prices),
        )  # fmt: skip


@given(prices=st.lists(st.integers(1, 100), min_size=1, max_size=4), amount=st.integers(0, 1000))
def test_the_largest_maximum_that_is_affordable_is_found_in_few_replays(prices: list[int], amount: int) -> None:
    run = Known(prices)
    found = largest_ceiling(SCENARIO, SimBudget(amount, "hour"), run)
    affordable = min(amount // price for price in prices)
    if affordable >= PEAK:
        assert found.max_replicas is None
        assert run.asked == [SCENARIO.max_replicas]
        assert found.result is found.free
    else:
        assert found.max_replicas == affordable
        assert most_spent(found.result) <= amount < most_spent(found.free)
        assert len(run.asked) <= MOST_REPLAYS + 2


def test_the_first_maximum_is_what_the_money_pays_for_all_the_time() -> None:
    assert paid_throughout(SCENARIO, SimBudget(11 * NANOS_PER_USD, "hour")) == 3
    span = SCENARIO.traffic.seconds / HOUR
    assert paid_throughout(SCENARIO, SimBudget(11 * NANOS_PER_USD, "week")) == int(11 / 3.6 / span)
    free = replace(SCENARIO, pools=(replace(POOL, usd_per_hour=0.0),))
    assert paid_throughout(free, SimBudget(0, "hour")) == 40


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("usd", [0, 5])
def test_no_peer_spends_more_than_the_budget_in_any_period(name: str, usd: int) -> None:
    budget = SimBudget(usd * NANOS_PER_USD, "hour")
    scenario = replace(SCENARIO, traffic=traffic(1.1, 0.4), budget=budget)
    (score,) = assess(scenario, contender(name), attainment=0.99).scores
    found = score.found
    assert most_spent(found.result) <= budget.usd_nanos
    assert found.without_budget is not None
    if found.max_replicas is not None:
        assert int(found.result.timeline.present.max(initial=0)) <= found.max_replicas
    assert (found.result.attained > 0) == (usd > 0)


@pytest.fixture(scope="module")
def made() -> Comparison:
    """Three policies under a budget that is too little for each."""
    return compare(replace(SCENARIO, budget=BUDGET), [contender(name) for name in NAMES], attainment=0.97)


def test_a_comparison_under_a_budget_has_each_at_its_setting_without_it(made: Comparison) -> None:
    free = compare(SCENARIO, [contender(name) for name in NAMES[1:]], attainment=0.97)
    assert tuple(score.name for score in made.scores) == NAMES
    for inside, outside in zip(made.scores[1:], free.scores, strict=True):
        without = inside.found.without_budget
        assert without is not None
        assert (without.attained, without.cost_usd, without.knob) == (
            outside.found.result.attained, outside.found.result.cost_usd, outside.found.result.knob,
        )  # fmt: skip
    for score in made.scores:
        result, without = score.found.result, score.found.without_budget
        assert without is not None
        assert result.knob == without.knob
        assert most_spent(result) <= BUDGET.usd_nanos < without.cost_usd / 1.2 * NANOS_PER_USD
        assert score.found.reached == (result.attainment >= 0.97)
    ours, hpa, static = made.scores
    assert ours.found.max_replicas is None
    assert ours.found.result.reasons["budget"] > 0
    assert static.found.max_replicas == int(4 / 3.6)
    assert hpa.found.spent_usd_nanos_without is not None
    assert hpa.found.spent_usd_nanos_without > BUDGET.usd_nanos


def test_what_is_said_under_a_budget(made: Comparison) -> None:
    ours, hpa, _ = made.scores
    heads = columns(made)
    assert heads[3:6] == ("most in an hour", "replicas", "without budget")
    by_name = {row[0]: dict(zip(heads, row, strict=True)) for row in rows(made)}
    assert by_name["hpa"]["replicas"] == f"at most {hpa.found.max_replicas}"
    assert "% over" in by_name["hpa"]["without budget"]
    assert by_name["swell"]["replicas"] == ""
    assert "Of $4.00 per hour it spends at most $" in " ".join(sentences(made, ours))
    assert f"hpa {hpa.found.result.attainment:.2%} (at most" in ranking(made, ours)
    numbers = as_json(made, hpa)["budget"]
    assert numbers["max_replicas"] == hpa.found.max_replicas
    assert max(numbers["spent_usd_nanos"]) <= numbers["usd_nanos"] < numbers["most_spent_usd_nanos_without"]
    assert as_json(made, ours)["budget"]["max_replicas"] is None
    assert columns(replace(made, scenario=SCENARIO))[3] == "over bound"
    assert all(f"<th>{head}</th>" in page(made) for head in heads[:6])
