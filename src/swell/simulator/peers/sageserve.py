"""SageServe: one replica at a time by the use of memory, alone or inside an hourly plan.

Rules: shashwatj07/SageServe arbiter.py and arXiv 2502.14617. Memory use is the mean of the replicas' KV caches. The
plan foretells prompt tokens a second for each minute of the next hour and orders, for the largest, what the cheapest
mix carries (with one accelerator: a division); its difference to what is there is the number of replicas that may be
added or let go, which happens as memory fills or empties. Above an urgent use a replica is added whatever the plan
says (LT-U). Its ARIMA is `AutoRegression` here, on the last four hours; the plan's 10 % for development load has
nothing to be taken of. How often the use is checked is not published; 15 s, as other loops have it.

Knob: the memory use above which a replica is added, published as 0.5; half of it lets one go (0.25) and 1.8 times it is
urgent (0.9). Smaller means more replicas.
"""

from collections import deque

import numpy as np

from swell.policy.scaling.capacity import requests_per_second
from swell.simulator.peers.base import Peer, Want, known_lengths, whole
from swell.simulator.peers.predictors import AutoRegression
from swell.simulator.result import Scenario
from swell.state.scaling import LengthSums, Observation, Window
from swell.state.traffic import Traffic

UP_USE = 0.5
DOWN_OF_UP = 0.5  # 0.25
URGENT_OF_UP = 1.8  # 0.9
CHECK_SECONDS = 15.0
MINUTE = 60.0
HOUR_MINUTES = 60
MEMORY_MINUTES = 240


class SageServe(Peer):
    """The reactive rule."""

    period_seconds = CHECK_SECONDS

    def default_knob(self, scenario: Scenario) -> float:
        return UP_USE

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        ready = self.ready(seen)
        if not ready:
            return Want(current, "hold", "no replica gives its memory use")
        use = sum(r.kv_used for r in ready) / len(ready)
        step, binding = self._step(use, current)
        return Want(current + step, binding, f"{use:.1%} of memory in use, {self.knob:.1%} wanted", (("kv_use", use),))

    def _step(self, use: float, current: int) -> tuple[int, str]:
        if use > self.knob:
            return 1, "memory"
        return (-1, "memory") if use < DOWN_OF_UP * self.knob else (0, "target")


class SageServeForecast(SageServe):
    """The same, inside what an hourly forecast allows."""

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._objective = scenario.objective
        self._known = known_lengths(scenario)
        self._tokens_per_second = AutoRegression(MEMORY_MINUTES)
        self._minute_tokens = self._minute_seconds = 0.0
        self._minutes_to_plan = 0 if scenario.history is not None else HOUR_MINUTES
        self._hour: deque[LengthSums] = deque(maxlen=HOUR_MINUTES)
        self._completed = LengthSums()
        self._allowed: int | None = None  # more or fewer replicas until the next plan; None before the first
        if scenario.history is not None:
            self._warm_up(scenario.history)

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        self._minute_tokens += window.arrived_prompt_tokens
        self._minute_seconds += window.seconds
        self._completed += window.completed
        if self._minute_seconds >= MINUTE - 1e-9:
            self._end_minute()
        if self._minutes_to_plan <= 0:
            self._minutes_to_plan = HOUR_MINUTES
            self._allowed = self.clipped(self._planned()) - current
        return super().want(seen, window, current)

    def _step(self, use: float, current: int) -> tuple[int, str]:
        step, binding = super()._step(use, current)
        if self._allowed is None:
            return step, binding
        if step * self._allowed > 0:
            self._allowed -= step
            return step, "forecast"
        if use > URGENT_OF_UP * self.knob:
            return 1, "urgent"
        return 0, "plan" if step else binding

    def _end_minute(self) -> None:
        self._tokens_per_second.add(self._minute_tokens / self._minute_seconds)
        self._hour.append(self._completed)
        self._minute_tokens = self._minute_seconds = 0.0
        self._completed = LengthSums()
        self._minutes_to_plan -= 1

    def _planned(self) -> int:
        """Replicas that carry the largest minute of the next hour."""
        peak = max(self._tokens_per_second.forecast(HOUR_MINUTES))
        lengths = sum(self._hour, LengthSums())
        lengths = lengths if lengths.count else self._known
        prompt, output = max(1.0, lengths.n / max(1, lengths.count)), max(1.0, lengths.o / max(1, lengths.count))
        rate = requests_per_second(self.pool.profile, self._objective, prompt, output)
        return whole(peak / (rate * prompt))

    def _warm_up(self, history: Traffic) -> None:
        """The last minutes of the history, which ends where the trace begins."""
        minutes = min(MEMORY_MINUTES, int(history.seconds // MINUTE))
        edges = history.seconds - MINUTE * np.arange(minutes, -1, -1)
        tokens, _ = np.histogram(history.arrival_seconds, edges, weights=history.prompt_tokens.astype(np.float64))
        for total in tokens.tolist():
            self._tokens_per_second.add(total / MINUTE)
