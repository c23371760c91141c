"""Kubernetes' HorizontalPodAutoscaler (autoscaling/v2) on in-flight requests per pod, every 15 s.

Rules: kubernetes/kubernetes pkg/controller/podautoscaler/replica_calculator.go and horizontal.go; defaults: the
HPAScalingRules of autoscaling/v2. The metric is what a pod has, plus an equal share of what waits in the gateway: pods
that queue for themselves would report both.

Knob: the target in-flight requests per pod. Kubernetes publishes no target for a metric of one's own; 80 % of what a
replica may have at a time, its default share of CPU, stands in. Smaller means more replicas.
"""

from collections import deque
from collections.abc import Sequence

from swell.simulator.peers.base import Peer, Want, concurrency, whole
from swell.simulator.result import Scenario
from swell.state.scaling import Observation, ReplicaState, Window

TOLERANCE = 0.1
DOWN_STABILISATION_SECONDS = 300.0
RATE_PERIOD_SECONDS = 15.0
MOST_ADDED_SHARE = 1.0  # of the pods, per period
MOST_ADDED_PODS = 4  # per period
TARGET_SHARE = 0.8


class Hpa(Peer):
    """Keeps the mean of in-flight requests per pod at the knob."""

    period_seconds = 15.0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        self._behaviour = Behaviour()

    def default_knob(self, scenario: Scenario) -> float:
        return max(1.0, TARGET_SHARE * concurrency(scenario))

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        ready = self.ready(seen)
        share = window.queued / len(ready) if ready else 0.0
        starting = sum(r.state is ReplicaState.STARTING for r in self.mine(seen))
        raw = pods_metric_replicas([r.in_flight + share for r in ready], self.knob, current, unready=starting)
        if not ready:
            return Want(current, "hold", "no pod gives the metric")
        per_pod = sum(r.in_flight for r in ready) / len(ready) + share
        replicas, rule = self._behaviour.applied(seen.now, current, self.clipped(raw))
        return Want(
            replicas,
            rule or ("tolerance" if raw == current else "target"),
            f"{per_pod:.1f} requests in flight per pod, {self.knob:.1f} wanted: {raw} pods",
            (("in_flight_per_pod", per_pod), ("ready", float(len(ready)))),
        )


def pods_metric_replicas(
    values: Sequence[float], target: float, current: int, *, unready: int = 0, missing: int = 0
) -> int:
    """What the HPA asks for where each ready pod reports a value (`calcPlainMetricReplicas`).

    `unready` pods are pending, `missing` ones run and report nothing. Without any value the number stays.
    """
    if not values:
        return current
    ratio = sum(values) / len(values) / target
    grows_with_unready = unready > 0 and ratio > 1
    if not grows_with_unready and not missing:
        return current if _is_close(ratio) else whole(ratio * len(values))
    filled = [*values, *[target if ratio < 1 else 0.0] * missing, *[0.0] * (unready if grows_with_unready else 0)]
    filled_ratio = sum(filled) / len(filled) / target
    if _is_close(filled_ratio) or (ratio < 1 < filled_ratio) or (filled_ratio < 1 < ratio):
        return current
    replicas = whole(filled_ratio * len(filled))
    goes_back = (filled_ratio < 1 and replicas > current) or (filled_ratio > 1 and replicas < current)
    return current if goes_back else replicas


def external_metric_replicas(total: float, target: float, current: int) -> int:
    """What the HPA asks for on the average per pod of one total (`GetExternalPerPodMetricReplicas`)."""
    if current > 0 and _is_close(total / (target * current)):
        return current
    return whole(total / target)


class Stabilisation:
    """No shrinking below, nor growing over, what was recommended in a window of time before."""

    def __init__(self, down_seconds: float = DOWN_STABILISATION_SECONDS, up_seconds: float = 0.0) -> None:
        """The number that there was at first counts as a recommendation."""
        self._down_seconds = down_seconds
        self._up_seconds = up_seconds
        self._recommended: deque[tuple[float, int]] = deque()
        self._has_begun = False

    def applied(self, now: float, current: int, desired: int) -> int:
        """The number after the window's rule."""
        if not self._has_begun:
            self._has_begun = True
            self._recommended.append((now, current))
        low = high = desired
        while self._recommended and self._recommended[0][0] <= now - max(self._down_seconds, self._up_seconds):
            self._recommended.popleft()
        for at, replicas in self._recommended:
            if at > now - self._up_seconds:
                low = min(low, replicas)
            if at > now - self._down_seconds:
                high = max(high, replicas)
        self._recommended.append((now, desired))
        return min(max(current, low), high)


class Behaviour:
    """The defaults of HPAScalingRules: up at once, by 100 % or 4 pods in 15 s; down after 300 s, by any number."""

    def __init__(self) -> None:
        self._stabilisation = Stabilisation()
        self._added: deque[tuple[float, int]] = deque()

    def applied(self, now: float, current: int, desired: int) -> tuple[int, str]:
        """(the number, the rule that changed it or "")."""
        stable = self._stabilisation.applied(now, current, desired)
        while self._added and self._added[0][0] <= now - RATE_PERIOD_SECONDS:
            self._added.popleft()
        before = current - sum(count for _, count in self._added)
        limit = max(current, whole(before * (1 + MOST_ADDED_SHARE)), before + MOST_ADDED_PODS)
        replicas = min(stable, limit)
        if replicas > current:
            self._added.append((now, replicas - current))
        if replicas != stable:
            return replicas, "rate"
        return replicas, "" if stable == desired else "stabilisation"


def _is_close(ratio: float) -> bool:
    return abs(1 - ratio) <= TOLERANCE
