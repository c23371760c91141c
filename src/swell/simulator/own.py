"""Swell's own policy as a contender: its one knob, and what it learns from history before a replay begins."""

from dataclasses import replace

import numpy as np

from swell.policy.scaling.swell import SwellScaler, decide
from swell.simulator.result import Scenario
from swell.simulator.treasury import tariff_of
from swell.state.funding import Funding
from swell.state.scaling import LengthSums, Observation, Window


def swell_scaler(scenario: Scenario, knob: float | None = None) -> SwellScaler:
    """Swell's policy for a scenario.

    The knob is its headroom: it begins with that caution, and learns from there for so many times fewer misses than may
    be. 1 is what it does by itself. Larger means more replicas.
    """
    scaler = SwellScaler(
        {pool.name: pool for pool in scenario.pools},
        scenario.objective,
        scenario.min_replicas,
        scenario.max_replicas,
        idle_seconds=scenario.idle_seconds,
        headroom=1.0 if knob is None else knob,
        rules=scenario.rules,
    )
    if scenario.history is not None and len(scenario.history):
        _learn(scaler, scenario)
    return scaler


def _learn(scaler: SwellScaler, scenario: Scenario) -> None:
    """Let the policy watch the history; what it decides on the way is nobody's business."""
    history = scenario.history
    if history is None:
        return
    interval = scaler.interval_seconds
    edges = np.arange(0.0, history.seconds + interval, interval)
    rows = np.searchsorted(history.arrival_seconds, edges)
    prompts = history.prompt_tokens.astype(np.float64)
    outputs = history.output_tokens.astype(np.float64)
    end = edges[-1]
    start_unix = scenario.traffic.start_unix
    tariff = tariff_of(scenario.pools, interval, scenario.minimum_seconds)
    funding = None if scenario.budget is None else Funding((), tariff)
    for at, low, high in zip(edges[1:], rows[:-1], rows[1:], strict=True):
        n, o = prompts[low:high], outputs[low:high]
        sums = LengthSums(int(high - low), *(float(x) for x in (n.sum(), n @ n, o.sum(), o @ o, n @ o)))
        window = Window(float(at - end), interval, int(high - low), int(sums.n), sums)
        now_unix = None if start_unix is None else start_unix + float(at - end)
        seen = Observation(float(at - end), window, (), now_unix, funding)
        _, scaler.memory = decide(scaler.settings, scaler.memory, seen)
    scaler.memory = replace(scaler.memory, needed=())  # nothing was there
