"""NVIDIA Dynamo's planner (ai-dynamo 1.6), aggregated: one pool does prefill and decode.

Rules: dynamo/planner. Every 180 s it foretells the next interval's requests, mean prompt and mean output, each by
itself, and orders what carries them at the largest rate that one replica holds inside the objective; at most 8 replicas
more or fewer at a time. The scenario's bound takes the place of its budget of 8 GPUs. Its `auto_arima` is
`AutoRegression` here. A history warms the forecasts up, as its `load_predictor_warmup_trace` does. `DynamoLoad` adds
the loop of `dynamo_load.py`.

Knob: a factor on the foretold requests, published as 1. Larger means more replicas.
"""

from collections.abc import Callable

import numpy as np

from swell.policy.scaling.capacity import requests_per_second
from swell.simulator.peers.base import Peer, Want, known_lengths, whole
from swell.simulator.peers.dynamo_load import load_step
from swell.simulator.peers.predictors import AutoRegression, Predictor
from swell.simulator.result import Scenario
from swell.state.scaling import LengthSums, Observation, ReplicaState, Window
from swell.state.traffic import Traffic

ADJUSTMENT_SECONDS = 180.0
LOAD_SECONDS = 5.0
MOST_CHANGED = 8
WINDOW_INTERVALS = 50  # that a forecast remembers


class Dynamo(Peer):
    """The throughput loop."""

    period_seconds = ADJUSTMENT_SECONDS
    follows_load = False

    def __init__(
        self, scenario: Scenario, knob: float | None = None, *, predictor: Callable[[], Predictor] | None = None
    ) -> None:
        super().__init__(scenario, knob)
        make = predictor or (lambda: AutoRegression(WINDOW_INTERVALS))
        self._requests, self._prompt, self._output = make(), make(), make()
        self._objective = scenario.objective
        known = known_lengths(scenario)
        self._lengths = (known.n / max(1, known.count), known.o / max(1, known.count))  # until some are observed
        self._floor = self.low  # the throughput loop's last result
        self._begin_interval()
        if scenario.history is not None:
            self._warm_up(scenario.history)

    def default_knob(self, scenario: Scenario) -> float:
        return 1.0

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        self._arrivals += window.arrivals
        self._prompt_tokens += window.arrived_prompt_tokens
        self._completed += window.completed
        self._seconds += window.seconds
        if self._seconds < ADJUSTMENT_SECONDS - 1e-9:
            return self._by_load(seen, window, current) or Want(current, "hold", "between two decisions")
        found = self._by_forecast(current)
        self._begin_interval()
        self._floor = self.clipped(found.replicas)
        if not self.follows_load:
            return found
        if found.replicas < current:  # a floor: only the load loop lets go
            found = Want(current, "hold", found.reason, found.inputs)
        by_load = self._by_load(seen, window, current)
        return by_load if by_load is not None and by_load.replicas > found.replicas else found

    def _by_forecast(self, current: int) -> Want:
        self._learn(self._arrivals * ADJUSTMENT_SECONDS / self._seconds)
        requests = self._requests.forecast()[0] * self.knob
        prompt = self._prompt.forecast()[0] or self._lengths[0]
        output = self._output.forecast()[0] or self._lengths[1]
        rate = requests_per_second(self.pool.profile, self._objective, max(1.0, prompt), max(1.0, output))
        needed = max(self.low, whole(requests / ADJUSTMENT_SECONDS / rate))
        replicas = min(max(needed, current - MOST_CHANGED), current + MOST_CHANGED)
        return Want(
            replicas,
            "forecast" if replicas == needed else "rate",
            f"{requests:.0f} requests in {ADJUSTMENT_SECONDS:.0f} s of {prompt:.0f} + {output:.0f} tokens, "
            f"{rate:.2f} a second and replica: {needed} replicas",
            (("requests", requests), ("prompt", prompt), ("output", output), ("rate", rate)),
        )

    def _learn(self, requests: float) -> None:
        """One interval's load; lengths only where there were any."""
        self._requests.add(requests)
        if self._arrivals:
            self._prompt.add(self._prompt_tokens / self._arrivals)
        if self._completed.count:
            self._output.add(self._completed.o / self._completed.count)

    def _by_load(self, seen: Observation, window: Window, current: int) -> Want | None:
        """The load loop's step; None where it has nothing to say. Nothing moves while replicas start."""
        ready = self.ready(seen)
        is_moving = len(ready) != current or any(r.state is ReplicaState.STARTING for r in self.mine(seen))
        if not self.follows_load or not ready or is_moving:
            return None
        step, why = load_step(ready, window.queued, self.pool.profile, self._objective, self._mean_lengths())
        if step < 0 and current <= self._floor:
            return None
        return Want(current + step, "load", why) if step else None

    def _mean_lengths(self) -> tuple[float, float]:
        """Mean prompt and output of this interval so far, else as known before."""
        if self._completed.count:
            self._lengths = (self._completed.n / self._completed.count, self._completed.o / self._completed.count)
        return self._lengths

    def _begin_interval(self) -> None:
        self._seconds = 0.0
        self._arrivals = self._prompt_tokens = 0
        self._completed = LengthSums()

    def _warm_up(self, history: Traffic) -> None:
        """The last intervals of the history, which ends where the trace begins."""
        end = history.seconds
        for back in range(min(WINDOW_INTERVALS, int(end // ADJUSTMENT_SECONDS)), 0, -1):
            since = end - back * ADJUSTMENT_SECONDS
            low, high = np.searchsorted(history.arrival_seconds, (since, since + ADJUSTMENT_SECONDS))
            prompts, outputs = history.prompt_tokens[low:high], history.output_tokens[low:high]
            self._arrivals, self._prompt_tokens = len(prompts), int(prompts.sum())
            self._completed = LengthSums(len(outputs), o=float(outputs.sum()))
            self._learn(float(len(prompts)))
        self._begin_interval()


class DynamoLoad(Dynamo):
    """Both loops: every 5 s one replica more or fewer by load, never below what the throughput loop found."""

    period_seconds = LOAD_SECONDS
    follows_load = True
