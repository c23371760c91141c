"""Ray Serve's autoscaling of a deployment (2.60), on requests running or queued.

Rules: ray/serve/autoscaling_policy.py; defaults: ray/serve/config.py. The total is its mean over the last 30 s. Ray
looks every 0.1 s at values that change every 10 s; here it is asked when they change.

Knob: `target_ongoing_requests` of a replica, published as 2. Smaller means more replicas.
"""

from swell.simulator.peers.base import Peer, Want, whole
from swell.simulator.peers.windows import Recent
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, Window

TARGET_ONGOING_REQUESTS = 2.0
LOOK_BACK_SECONDS = 30.0
METRICS_SECONDS = 10.0
UPSCALE_DELAY_SECONDS = 30.0
DOWNSCALE_DELAY_SECONDS = 600.0
UPSCALING_FACTOR = 1.0
DOWNSCALING_FACTOR = 1.0


class RayServe(Peer):
    """Follows the total, in a direction that it kept for the delay."""

    period_seconds = METRICS_SECONDS
    lowest = 0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._recent = Recent(LOOK_BACK_SECONDS)
        self._direction = 0
        self._since = 0.0  # of the direction

    def default_knob(self, scenario: Scenario) -> float:
        return TARGET_ONGOING_REQUESTS

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        self._recent.add(seen.now, window.seconds, window.mean_in_flight)
        total = self._recent.mean() or 0.0
        inputs = (("ongoing", total), ("ready", float(len(self.ready(seen)))))
        if not self.ready(seen):
            self._direction = 0
            replicas = max(whole(UPSCALING_FACTOR), current) if total > 0 else current
            return Want(replicas, "activation" if total > 0 else "hold", "no replica runs", inputs)
        desired = self.clipped(desired_replicas(total, current, self.knob))
        reason = f"{total:.1f} ongoing requests, {self.knob:g} a replica: {desired} replicas"
        direction = (desired > current) - (desired < current)
        if direction != self._direction:
            self._direction, self._since = direction, seen.now
        if direction == 0:
            return Want(current, "target", reason, inputs)
        delay = UPSCALE_DELAY_SECONDS if direction > 0 else DOWNSCALE_DELAY_SECONDS
        if seen.now - self._since < delay - 1e-9:
            return Want(current, "delay", f"{reason}, not yet for {delay:.0f} s", inputs)
        self._direction = 0  # a change ends the count
        return Want(desired if current <= 1 else max(1, desired), "target", reason, inputs)


def desired_replicas(
    total: float,
    current: int,
    target: float,
    upscaling_factor: float = UPSCALING_FACTOR,
    downscaling_factor: float = DOWNSCALING_FACTOR,
) -> int:
    """What the total asks for, by a factor of the way there; one less where a factor's rounding would hold on."""
    raw = total / target
    factor = upscaling_factor if raw >= current else downscaling_factor
    scaled = whole(current + factor * (raw - current))
    if whole(raw) < current and scaled == current:
        return current - 1
    return max(0, scaled)
