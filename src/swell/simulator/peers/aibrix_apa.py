"""AIBrix's application-specific pod autoscaler (APA) on the KV cache's use, every 10 s.

Rules: vllm-project/aibrix pkg/controller/podautoscaler/algorithm/apa.go and autoscaler.go; metric and target:
samples/autoscaling/apa.yaml. The cooldown is a stabilisation window as the documentation has it (shrink to the most
that was recommended within it); the released controller takes the least instead, which makes it no window at all.

Knob: the target share of a replica's KV cache, published as 0.5. Smaller means more replicas.
"""

from math import floor

from swell.simulator.peers.base import Peer, Want, whole
from swell.simulator.peers.hpa import Stabilisation
from swell.simulator.peers.windows import Recent
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window

TARGET_KV_USE = 0.5
STABLE_SECONDS = 180.0
MAX_UP_RATE = 2.0
MAX_DOWN_RATE = 2.0
UP_TOLERANCE = 0.1
DOWN_TOLERANCE = 0.1
DOWN_COOLDOWN_SECONDS = 300.0


class AibrixApa(Peer):
    """Keeps the mean use of the KV caches, over three minutes, near the knob."""

    period_seconds = 10.0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._recent = Recent(STABLE_SECONDS)
        self._cooldown = Stabilisation(DOWN_COOLDOWN_SECONDS)

    def default_knob(self, scenario: Scenario) -> float:
        return TARGET_KV_USE

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        ready = self.ready(seen)
        if not ready:
            return Want(current, "hold", "no pod gives the metric")
        self._recent.add(seen.now, window.seconds, sum(r.kv_used for r in ready) / len(ready))
        use = self._recent.mean() or 0.0
        raw = apa_replicas(use, self.knob, current)
        guarded = with_pending(raw, use, self.knob, current, len(ready))
        replicas = self._cooldown.applied(seen.now, current, self.clipped(guarded))
        rule = "cooldown" if replicas != self.clipped(guarded) else "pending" if guarded != raw else "target"
        return Want(
            replicas,
            "tolerance" if raw == current == replicas else rule,
            f"{use:.1%} of the KV caches in use in {STABLE_SECONDS:.0f} s, {self.knob:.1%} wanted: {guarded} replicas",
            (("kv_use", use), ("ready", float(len(ready)))),
        )


def apa_replicas(use: float, target: float, current: int) -> int:
    """In proportion to use over target, outside the tolerance, at most twice or half as many."""
    ratio = use / target
    if ratio > 1 + UP_TOLERANCE:
        return min(whole(current * ratio), whole(MAX_UP_RATE * current))
    if ratio < 1 - DOWN_TOLERANCE:
        return max(whole(current * ratio), floor(current / MAX_DOWN_RATE))
    return current


def with_pending(desired: int, use: float, target: float, current: int, ready: int) -> int:
    """What is left of a change where some of the replicas have not started: those count as unused for growing, and as
    being at the target for shrinking."""
    pending = current - ready
    if pending <= 0 or desired == current:
        return desired
    if desired > current:
        return min(max(whole(use * ready / target), current), desired)
    return max(min(whole((use * ready + target * pending) / target), current), desired)
