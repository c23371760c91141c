"""AIBrix's variant of Knative's autoscaler (KPA) on the KV caches' use, every 10 s.

Rules: vllm-project/aibrix pkg/controller/podautoscaler/algorithm/kpa.go; metric and target:
samples/autoscaling/kpa.yaml. As Knative's, with windows of 180 and 60 s, at most twice or half as many at a time, a
dead band around the target, and panic where the short window's mean is over twice the long one's. The metric is summed
over the replicas: the number follows the total, not its mean. The cooldown is that of the APA.

Knob: the target share of a replica's KV cache, published as 0.5. Smaller means more replicas.
"""

from math import floor

from swell.simulator.peers.aibrix_apa import (
    DOWN_COOLDOWN_SECONDS,
    DOWN_TOLERANCE,
    MAX_DOWN_RATE,
    MAX_UP_RATE,
    STABLE_SECONDS,
    TARGET_KV_USE,
    UP_TOLERANCE,
)
from swell.simulator.peers.base import Peer, Want, whole
from swell.simulator.peers.hpa import Stabilisation
from swell.simulator.peers.knative import Panic
from swell.simulator.peers.windows import Recent
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window

PANIC_SECONDS = 60.0
PANIC_RATIO = 2.0


class AibrixKpa(Peer):
    """As many replicas as the KV caches' total use fills to the knob."""

    period_seconds = 10.0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._recent = Recent(STABLE_SECONDS)
        self._panic = Panic(STABLE_SECONDS)
        self._cooldown = Stabilisation(DOWN_COOLDOWN_SECONDS)

    def default_knob(self, scenario: Scenario) -> float:
        return TARGET_KV_USE

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        ready = self.ready(seen)
        if not ready:
            return Want(current, "hold", "no pod gives the metric")
        self._recent.add(seen.now, window.seconds, sum(r.kv_used for r in ready))
        stable, panic = self._recent.mean() or 0.0, self._recent.mean(PANIC_SECONDS) or 0.0
        is_over = stable > 0 and panic / stable > PANIC_RATIO
        desired, mode = self._panic.applied(
            seen.now, is_over, kpa_replicas(stable, self.knob, current), kpa_replicas(panic, self.knob, current)
        )
        replicas = self._cooldown.applied(seen.now, current, self.clipped(desired))
        return Want(
            replicas,
            mode if replicas == self.clipped(desired) else "cooldown",
            f"KV caches in use: {stable:.2f} in {STABLE_SECONDS:.0f} s and {panic:.2f} in {PANIC_SECONDS:.0f} s, "
            f"{self.knob:g} a replica: {desired} replicas",
            (("stable", stable), ("panic", panic), ("ready", float(len(ready)))),
        )


def kpa_replicas(total: float, target: float, current: int) -> int:
    """What a total asks for; `current` where the mean is inside the dead band."""
    if current > 0 and 1 - DOWN_TOLERANCE <= total / (current * target) <= 1 + UP_TOLERANCE:
        return current
    most = max(1, whole(MAX_UP_RATE * current))
    return min(max(whole(total / target), floor(current / MAX_DOWN_RATE)), most)
