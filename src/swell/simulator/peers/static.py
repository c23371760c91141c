"""A fleet that nobody scales.

Knob: how many replicas, rounded up; by default those that it begins with. Larger means more replicas.
"""

from swell.simulator.peers.base import Peer, Want, whole
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window


class Static(Peer):
    """So many replicas, always."""

    period_seconds = 60.0
    lowest = 0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._replicas = None if knob is None else whole(knob)

    def default_knob(self, scenario: Scenario) -> float:
        return float(max(1, scenario.min_replicas))

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        if self._replicas is None:
            return Want(current, "static", "as many as there were at first")
        return Want(self._replicas, "static", f"{self._replicas} replicas, whatever happens")
