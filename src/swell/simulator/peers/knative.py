"""Knative's pod autoscaler on concurrency, every 2 s.

Rules: knative/serving pkg/autoscaler/scaling/autoscaler.go; defaults: config/core/configmaps/autoscaler.yaml.
Concurrency is the mean of requests in the system, those that wait in the gateway (Knative's activator) included.

Knob: the target concurrency per replica; published as 70 % of the container's concurrency, here of what a replica may
have at a time. Smaller means more replicas.
"""

from math import floor

from swell.simulator.peers.base import Peer, Want, concurrency, whole
from swell.simulator.peers.windows import Recent
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window

TARGET_UTILISATION = 0.7
STABLE_SECONDS = 60.0
PANIC_SECONDS = 6.0
PANIC_THRESHOLD = 2.0
MAX_UP_RATE = 1000.0
MAX_DOWN_RATE = 2.0
ZERO_GRACE_SECONDS = 30.0


class Knative(Peer):
    """Stable mode follows a minute; panic mode follows six seconds and never shrinks."""

    period_seconds = 2.0
    lowest = 0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._recent = Recent(STABLE_SECONDS)
        self._panic = Panic(STABLE_SECONDS)
        self._has_begun = False
        self._zero_since: float | None = None

    def default_knob(self, scenario: Scenario) -> float:
        return max(1.0, TARGET_UTILISATION * concurrency(scenario))

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        self._recent.add(seen.now, window.seconds, window.mean_in_flight)
        stable, panic = self._recent.mean() or 0.0, self._recent.mean(PANIC_SECONDS) or 0.0
        ready = len(self.ready(seen))
        if not self._has_begun:
            self._has_begun = True
            if ready > 1:  # without a past, an autoscaler that was just started must not shrink what it finds
                self._panic.enter(seen.now, ready)
        base = max(1, ready)
        low, high = floor(ready / MAX_DOWN_RATE), whole(MAX_UP_RATE * base)
        by_stable = min(max(whole(stable / self.knob), low), high)
        by_panic = min(max(whole(panic / self.knob), low), high)
        is_over = whole(panic / self.knob) / base >= PANIC_THRESHOLD
        replicas, binding = self._panic.applied(seen.now, is_over, by_stable, by_panic)
        if replicas == 0:
            self._zero_since = seen.now if self._zero_since is None else self._zero_since
            if current > 0 and seen.now - self._zero_since < ZERO_GRACE_SECONDS:
                replicas, binding = 1, "grace"
        else:
            self._zero_since = None
        return Want(
            replicas,
            binding,
            f"{stable:.1f} requests in 60 s and {panic:.1f} in 6 s, {self.knob:.1f} a replica, {ready} ready",
            (("stable", stable), ("panic", panic), ("ready", float(ready))),
        )


class Panic:
    """Panic mode: on while its threshold was crossed within the stable window, and as high as it ever was."""

    def __init__(self, stable_seconds: float) -> None:
        self._stable_seconds = stable_seconds
        self._since: float | None = None  # the last time that the threshold was crossed
        self._most = 0

    def enter(self, now: float, replicas: int) -> None:
        """Begin, with so many replicas at least."""
        self._since = now
        self._most = max(self._most, replicas)

    def applied(self, now: float, is_over: bool, by_stable: int, by_panic: int) -> tuple[int, str]:
        """(the number, the mode that set it)."""
        if is_over:
            self._since = now
        elif self._since is not None and now > self._since + self._stable_seconds:
            self._since, self._most = None, 0
        if self._since is None:
            return by_stable, "stable"
        self._most = max(self._most, by_stable, by_panic)
        return self._most, "panic"
