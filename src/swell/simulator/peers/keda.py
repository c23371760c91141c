"""KEDA on requests that wait, as the vLLM production stack configures it, every 15 s.

Rules: keda.sh ScaledObject; values: vllm-project/production-stack tutorials/assets/keda-scaled-object.yaml
(`vllm:num_requests_waiting`, threshold 5, polling 15 s, cooldown 360 s, at least 1 replica). From 1 on it is the HPA on
the total's average per replica. The fleet follows the queue, whatever is running: an empty queue means one replica,
after the HPA's 300 s. KEDA itself goes between 0 and 1, here with `scale_to_zero`, which the production stack leaves
out.

Knob: the threshold, waiting requests per replica. Smaller means more replicas.
"""

from swell.simulator.peers.base import Peer, Want, waiting_requests
from swell.simulator.peers.hpa import Behaviour, external_metric_replicas
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window

THRESHOLD = 5.0
COOLDOWN_SECONDS = 360.0


class Keda(Peer):
    """One replica per `knob` waiting requests."""

    period_seconds = 15.0

    def __init__(self, scenario: Scenario, knob: float | None = None, *, scale_to_zero: bool = False) -> None:
        self.lowest = 0 if scale_to_zero else 1
        super().__init__(scenario, knob)
        self._scales_to_zero = scale_to_zero and scenario.min_replicas == 0
        self._active_at: float | None = None
        self._behaviour = Behaviour()

    def default_knob(self, scenario: Scenario) -> float:
        return THRESHOLD

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        waiting = waiting_requests(window, self.ready(seen))
        inputs = (("waiting", float(waiting)),)
        if waiting > 0 or self._active_at is None:
            self._active_at = seen.now
        if current == 0:
            if waiting > 0:
                return Want(1, "activation", f"{waiting} requests wait and there is no replica", inputs)
            return Want(0, "hold", "nothing waits", inputs)
        if self._scales_to_zero and seen.now - self._active_at >= COOLDOWN_SECONDS:
            return Want(0, "cooldown", f"nothing waited for {COOLDOWN_SECONDS:.0f} s", inputs)
        raw = external_metric_replicas(waiting, self.knob, current)
        replicas, rule = self._behaviour.applied(seen.now, current, self.clipped(max(1, raw)))
        return Want(
            replicas,
            rule or ("tolerance" if raw == current else "target"),
            f"{waiting} requests wait, {self.knob:g} a replica: {raw} replicas",
            inputs,
        )
