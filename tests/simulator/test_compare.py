"""Searches for the cheapest setting, and scores against references, on replays with known answers."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from swell.errors import UserError
from swell.simulator.compare import (
    Contender,
    Found,
    References,
    assess,
    bisect_to,
    compare,
    part,
    representative_day,
)
from swell.simulator.demand import factor_to_peak, peak_replicas
from swell.simulator.feasibility import unloaded_attainment, why_excluded
from swell.simulator.knob_search import Knob
from swell.simulator.parallel import Progress, WorkerLostError, run_all
from swell.simulator.result import Result, Scenario, Timeline
from swell.simulator.traffic import scale_rate
from swell.state.scaling import Decision, LatencyProfile, Objective, Observation, Pool
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("tiny", "T1", 1, 10.0, 0.05, 0.0, 8.0, 0.1, 1e-4, 100_000)
POOL = Pool("T1", PROFILE, 2.0, 120.0)
REQUESTS = 100_000


class Fixed:
    """A scaler that only carries its setting."""

    interval_seconds = 15.0

    def __init__(self, provision: float) -> None:
        self.provision = provision

    def decide(self, seen: Observation) -> Decision:
        return Decision(seen.now, (), "", "")


def traffic(seconds: float, requests: int = 1000, start_unix: float | None = None) -> Traffic:
    arrivals = np.linspace(0.0, seconds, requests)
    ones = np.full(requests, 10, np.int32)
    return Traffic(arrivals, ones, ones, start_unix=start_unix)


def scenario(seconds: float = 3600.0, requests: int = 1000) -> Scenario:
    return Scenario(traffic(seconds, requests), (POOL,), Objective())


def replayed(
    on: Scenario, scaler: Fixed, *, name: str = "", progress: Progress | None = None, needs: float = 5.0, kind: str = ""
) -> Result:
    """Misses fall tenfold with every tenth more than is needed: 1 % at `needs`. A whole trace needs 10 % more."""
    needs *= 1.1 if on.traffic.seconds > 2 * 86400 else 1.0
    misses = min(1.0, 0.01 * 10 ** (-10 * (scaler.provision / needs - 1)))
    if kind == "steps":  # nothing between 20 % and 0.1 %
        misses = 0.2 if misses > 0.01 else 0.001
    if kind == "hopeless":
        misses = 0.03 + misses
    if progress is not None:
        progress(0.5)
    none = np.zeros(0)
    counts = np.zeros(0, np.int32)
    return Result(
        policy=name,
        requests=REQUESTS,
        attained=round(REQUESTS * (1 - misses)),
        cost_usd=scaler.provision * on.traffic.seconds / 3600,
        usd_by_market={},
        replica_hours=0.0,
        accelerator_hours=0.0,
        starts=0,
        preemptions=0,
        ttft_ms={},
        itl_ms={},
        wall_seconds=0.0,
        timeline=Timeline(none, counts, counts, counts, counts, none),
    )


def by_headroom(name: str = "headroom") -> Contender:
    return Contender(name, lambda on, knob: Fixed(knob or 5.0), 0.5, 50.0, True)


def by_target(name: str = "target") -> Contender:
    return Contender(name, lambda on, knob: Fixed(20.0 / (knob or 4.0)), 0.2, 200.0, False)


@pytest.mark.parametrize("contender", [by_headroom(), by_target()], ids=lambda each: each.name)
def test_the_cheapest_setting_is_found_whichever_way_the_knob_turns(contender: Contender) -> None:
    found = bisect_to(scenario(), contender, 0.99, replay=replayed)
    assert found.reached
    assert len(found.probes) <= 9
    assert found.result.cost_usd == pytest.approx(5.0, rel=0.02)
    assert found.result.attainment >= 0.99
    assert found.result.policy == contender.name
    assert all(probe.whole for probe in found.probes)


def test_a_policy_that_jumps_over_the_attainment_is_found_at_the_jump() -> None:
    found = bisect_to(scenario(), by_headroom(), 0.99, replay=partial(replayed, kind="steps"), replays=14)
    assert found.reached
    assert found.result.cost_usd == pytest.approx(5.0, rel=0.03)


def test_a_policy_that_cannot_reach_it_is_reported_with_its_best() -> None:
    found = bisect_to(scenario(), by_headroom(), 0.99, replay=partial(replayed, kind="hopeless"))
    assert not found.reached
    assert found.result.attainment == pytest.approx(0.97, abs=1e-4)
    assert found.result.attainment == max(probe.attainment for probe in found.probes)
    assert 50.0 in [probe.knob for probe in found.probes], "the end of the range was tried"


def test_what_only_the_end_of_the_range_reaches_is_found() -> None:
    found = bisect_to(scenario(), by_headroom(), 0.99, replay=partial(replayed, needs=49.5))
    assert found.reached
    assert found.result.cost_usd == pytest.approx(49.5, rel=0.02)


def test_what_the_least_setting_reaches_is_the_least_setting() -> None:
    found = bisect_to(scenario(), by_headroom(), 0.99, replay=partial(replayed, needs=0.1), replays=20)
    assert found.reached
    assert found.result.knob == pytest.approx(0.5, rel=0.03)


def test_a_week_is_searched_on_a_day_and_corrected_on_the_whole() -> None:
    week = scenario(7 * 86400.0, 10_000)
    day = replace(week, traffic=part(week.traffic, 0.0, 86400.0))
    found = bisect_to(week, by_headroom(), 0.99, day=day, replay=replayed)
    whole = [probe for probe in found.probes if probe.whole]
    assert 2 <= len(whole) <= 5
    assert found.result.cost_usd == pytest.approx(5.5 * 7 * 24, rel=0.02)
    assert found.reached


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_knob_is_geometric_and_its_positions_lead_back(share: float) -> None:
    for knob in (Knob(0.5, 50.0), Knob(2.0, 64.0, False)):
        assert knob.position(knob.at(share)) == pytest.approx(share, abs=1e-12)
    assert Knob(1.0, 100.0).at(0.5) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="range"):
        Knob(2.0, 1.0)


def test_the_representative_day_is_the_one_that_peaks_most() -> None:
    hour = 3600.0
    steady = np.arange(0, 4 * 86400, 60.0)
    burst = np.linspace(2 * 86400 + 5 * hour, 2 * 86400 + 5 * hour + 600, 500)
    arrivals = np.sort(np.concatenate([steady, burst]))
    tokens = np.full(len(arrivals), 7, np.int32)
    blocks = [(index,) for index in range(len(arrivals))]
    trace = Traffic(arrivals, tokens, tokens, blocks, start_unix=1000.0)
    day = representative_day(trace)
    assert day is not None
    assert day.start_unix == 1000.0 + 2 * 86400
    assert len(day) == 1440 + 500
    assert len(day.prefix_blocks) == len(day)
    assert day.seconds < 86400
    assert representative_day(part(trace, 0.0, 2 * 86400.0)) is None


def references() -> References:
    return References(lambda on, attainment: 2.0, by_headroom("oracle"), by_headroom("rate-clairvoyant"))


def test_costs_are_set_against_the_references() -> None:
    slow = Contender("slow", lambda on, knob: Fixed((knob or 1.0) / 2), 0.5, 50.0, True)

    def replay(on: Scenario, scaler: Fixed, *, name: str = "", progress: Progress | None = None) -> Result:
        result = replayed(on, scaler, name=name, progress=progress)
        return replace(result, cost_usd=result.cost_usd * (2.0 if name == "slow" else 1.0))

    comparison = compare(scenario(), [by_headroom(), slow], references=references(), replay=replay)
    first, second = comparison.scores
    assert (first.name, second.name) == ("headroom", "slow")
    assert first.cost_over_oracle == pytest.approx(1.0)
    assert second.cost_over_rate_clairvoyant == pytest.approx(2.0, rel=0.03)
    assert first.cost_over_bound == pytest.approx(2.5, rel=0.03)
    assert comparison.cheapest is first


def test_what_attains_nothing_has_no_ratios() -> None:
    def replay(on: Scenario, scaler: Fixed, *, name: str = "", progress: Progress | None = None) -> Result:
        return replace(replayed(on, scaler, name=name, progress=progress), attained=0)

    (score,) = assess(scenario(), by_headroom(), references=references(), replay=replay).scores
    assert (score.cost_over_bound, score.cost_over_oracle, score.cost_over_rate_clairvoyant) == (None, None, None)


def test_a_reference_that_misses_is_no_reference() -> None:
    comparison = compare(
        scenario(), [by_headroom()], references=references(), replay=partial(replayed, kind="hopeless")
    )
    assert comparison.oracle is not None
    assert not comparison.oracle.reached
    assert comparison.scores[0].cost_over_oracle is None
    assert comparison.cheapest is None


def test_scores_do_not_depend_on_the_number_of_jobs() -> None:
    contenders = [by_headroom(), by_target(), by_headroom("again")]
    told: list[float] = []

    def scores(jobs: int) -> list[tuple[str, float, float | None]]:
        comparison = compare(
            scenario(), contenders, references=references(), jobs=jobs, replay=replayed, progress=told.append
        )
        return [(s.name, s.found.result.cost_usd, s.cost_over_oracle) for s in comparison.scores]

    assert scores(1) == scores(3)
    assert all(0 <= done <= 1 for done in told)
    assert told[-1] == 1.0


def test_one_policy_at_its_default_is_set_against_references_that_attain_as_much() -> None:
    asked: list[float] = []

    def bound(on: Scenario, attainment: float) -> float:
        asked.append(attainment)
        return 1.0

    tight = Contender("tight", lambda on, knob: Fixed(knob or 4.9), 0.5, 50.0, True)
    comparison = assess(scenario(), tight, references=replace(references(), bound=bound), replay=replayed)
    (score,) = comparison.scores
    assert not comparison.searched
    assert not score.found.reached
    assert asked == [score.found.result.attainment]
    assert score.cost_over_oracle == pytest.approx(1.0, rel=0.03)
    ample = assess(scenario(), tight, 6.0, references=references(), replay=replayed).scores[0]
    assert ample.found.reached
    assert ample.found.result.knob == 6.0
    assert ample.cost_over_oracle == pytest.approx(6 / 5, rel=0.03)


def test_tasks_come_back_in_order_and_their_errors_are_raised() -> None:
    def task(value: int, report: Progress) -> int:
        report(0.5)
        return value

    assert run_all([partial(task, value) for value in range(7)], jobs=3) == list(range(7))

    def wrong(report: Progress) -> int:
        raise UserError("no such thing")

    with pytest.raises(UserError, match="no such thing"):
        run_all([partial(task, 1), wrong, partial(task, 2)], jobs=2)


def test_a_process_that_is_killed_is_reported() -> None:
    def dies(report: Progress) -> int:
        import os

        os._exit(9)

    with pytest.raises(WorkerLostError, match="memory"):
        run_all([dies, dies], jobs=2)


def test_probes_tell_the_whole_front() -> None:
    found: Found = bisect_to(scenario(), by_headroom(), 0.99, replay=replayed)
    knobs = [probe.knob for probe in found.probes]
    assert len(set(knobs)) == len(knobs)
    assert all(probe.knob is not None and math.isfinite(probe.cost_usd) for probe in found.probes)


@pytest.mark.parametrize("replicas", [0.2, 3.0])
def test_a_trace_is_brought_to_a_peak(replicas: float) -> None:
    dice = np.random.default_rng(11)
    count = 4000
    arrivals = np.sort(dice.uniform(0.0, 4 * 3600.0, count))
    prompts, outputs = dice.integers(50, 2000, count, dtype=np.int32), dice.integers(5, 300, count, dtype=np.int32)
    trace = Traffic(arrivals, prompts, outputs)
    factor = factor_to_peak(trace, PROFILE, Objective(), replicas, seed=2)
    scaled = scale_rate(trace, factor, seed=2)
    assert peak_replicas(scaled, PROFILE, Objective()) == pytest.approx(replicas, rel=0.05)
    assert len(scaled) / len(trace) == pytest.approx(factor, rel=0.05)
    with pytest.raises(UserError, match="smaller --peak-replicas"):
        factor_to_peak(trace, PROFILE, Objective(), 1e6)


def test_an_idle_fleet_tells_what_hardware_can_serve() -> None:
    assert unloaded_attainment(scenario()) == 1.0
    assert why_excluded(scenario()) == ""
    hasty = replace(scenario(), objective=Objective(itl_ms=5.0))
    assert "the trace on tiny@T1 is excluded: even an idle fleet meets the objective for only 0.00%" in why_excluded(
        hasty
    )
