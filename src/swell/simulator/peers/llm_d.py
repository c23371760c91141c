"""llm-d's Workload Variant Autoscaler, by saturation, every 60 s and one replica at a time.

Rules: llm-d/llm-d-workload-variant-autoscaler docs/saturation-analyzer.md. A replica's KV use and queue are their
maxima over the last minute, scraped every 15 s. A queue is a replica's own waiting requests and its share of the
gateway's. Variants are the on-demand pools (all pools where there is none); a variant with replicas that have not
started keeps its number.

Knob: the KV threshold above which a replica is saturated, published as 0.80; the queue's threshold stays at 5. Smaller
means more replicas.
"""

from collections import deque
from dataclasses import dataclass

from swell.simulator.peers.base import Peer, Want
from swell.simulator.result import Scenario
from swell.state.scaling import Decision, Market, Observation, ReplicaState, ReplicaView, Window

KV_THRESHOLD = 0.80
QUEUE_THRESHOLD = 5.0
KV_SPARE_TRIGGER = 0.10
QUEUE_SPARE_TRIGGER = 3.0
SCRAPE_SECONDS = 15.0
DECISION_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Load:
    """One replica's maxima over the last minute."""

    kv: float
    queue: float


class LlmD(Peer):
    """One more where too little is spare, one fewer where the rest would have enough to spare."""

    period_seconds = SCRAPE_SECONDS

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        on_demand = [pool for pool in scenario.pools if pool.market is Market.ON_DEMAND]
        variants = on_demand or list(scenario.pools)
        self._variants = sorted(variants, key=lambda pool: (pool.usd_per_hour, pool.name))  # cheapest first
        self.high = max(0, min(scenario.max_replicas, sum(pool.max_replicas for pool in variants)))
        self.low = min(max(scenario.min_replicas, self.lowest), self.high)
        self._counts: dict[str, int] = {}
        self._scrapes: deque[tuple[float, dict[str, Load]]] = deque()
        self._decided_at: float | None = None

    def default_knob(self, scenario: Scenario) -> float:
        return KV_THRESHOLD

    def mine(self, seen: Observation) -> list[ReplicaView]:
        """Every variant's replicas that stay."""
        names = {pool.name for pool in self._variants}
        return [r for r in seen.replicas if r.pool in names and r.state is not ReplicaState.DRAINING]

    def decide(self, seen: Observation) -> Decision:
        """One step up or down, in the cheapest or dearest variant."""
        if not self._counts:
            self._counts = {
                pool.name: sum(r.pool == pool.name for r in self.mine(seen)) for pool in self._variants
            }  # fmt: skip
        before = dict(self._counts)
        found = (
            Want(sum(before.values()), "hold", "nothing was observed: the number stays")
            if seen.window is None
            else self.want(seen, seen.window, sum(before.values()))
        )
        replicas = self.clipped(found.replicas)
        self._shift(replicas, self._pending(seen))
        placed = sum(self._counts.values())
        binding = found.binding
        if replicas != found.replicas:
            binding = "floor" if replicas > found.replicas else "ceiling"
        elif placed != replicas:
            binding = "pending"
        is_hold = seen.window is None or self._counts == before
        return Decision(
            seen.now, tuple(self._counts.items()), found.reason, binding, is_hold=is_hold, inputs=found.inputs
        )

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        ready = [r for r in self.mine(seen) if r.state is ReplicaState.READY]
        self._scrape(seen.now, window, ready)
        if self._decided_at is not None and seen.now < self._decided_at + DECISION_SECONDS - 1e-9:
            return Want(current, "hold", "between two decisions")
        self._decided_at = seen.now
        if not ready:
            return Want(current, "hold", "no replica gives its metrics")
        loads = self._largest({r.replica_id for r in ready})
        step, why = saturation_step(loads, self.knob)
        inputs = (("kv", sum(x.kv for x in loads) / len(loads)), ("queue", sum(x.queue for x in loads) / len(loads)))
        if step and self._pending(seen) >= {pool.name for pool in self._variants}:
            return Want(current, "pending", f"{why}, but what was asked for has not started", inputs)
        return Want(current + step, "saturation" if step else "target", why, inputs)

    def _scrape(self, now: float, window: Window, ready: list[ReplicaView]) -> None:
        in_gateway = window.queued / len(ready) if ready else 0.0
        self._scrapes.append((now, {r.replica_id: Load(r.kv_used, r.waiting + in_gateway) for r in ready}))
        while self._scrapes[0][0] <= now - DECISION_SECONDS + 1e-9:
            self._scrapes.popleft()

    def _largest(self, replicas: set[str]) -> list[Load]:
        found: dict[str, Load] = {}
        for _, loads in self._scrapes:
            for name, load in loads.items():
                was = found.get(name, load)
                found[name] = Load(max(was.kv, load.kv), max(was.queue, load.queue))
        return [load for name, load in sorted(found.items()) if name in replicas]

    def _pending(self, seen: Observation) -> set[str]:
        """Variants that do not have what they were asked to have."""
        ready = {pool.name: 0 for pool in self._variants}
        for replica in self.mine(seen):
            ready[replica.pool] += replica.state is ReplicaState.READY
        return {name for name, count in ready.items() if count != self._counts.get(name, count)}

    def _shift(self, replicas: int, pending: set[str]) -> None:
        """Add to the cheapest variants and take from the dearest. Bounds are kept even in variants that are pending."""
        off_bounds = not self.low <= sum(self._counts.values()) <= self.high
        while (gap := replicas - sum(self._counts.values())) != 0:
            order = self._variants if gap > 0 else list(reversed(self._variants))
            for pool in order:
                has_room = self._counts[pool.name] < pool.max_replicas if gap > 0 else self._counts[pool.name] > 0
                if has_room and (off_bounds or pool.name not in pending):
                    self._counts[pool.name] += 1 if gap > 0 else -1
                    break
            else:
                return


def saturation_step(loads: list[Load], kv_threshold: float) -> tuple[int, str]:
    """(+1, 0 or -1; why) from the replicas' maxima."""
    spare = [load for load in loads if load.kv < kv_threshold and load.queue < QUEUE_THRESHOLD]
    if not spare:
        return 1, "every replica is saturated"
    count = len(spare)
    kv = sum(load.kv for load in spare)
    queue = sum(load.queue for load in spare)
    spare_kv, spare_queue = kv_threshold - kv / count, QUEUE_THRESHOLD - queue / count
    if spare_kv < KV_SPARE_TRIGGER or spare_queue < QUEUE_SPARE_TRIGGER:
        return 1, f"{spare_kv:.2f} of KV cache and {spare_queue:.1f} of queue to spare on {count} replicas"
    if count >= 2:
        left_kv, left_queue = kv_threshold - kv / (count - 1), QUEUE_THRESHOLD - queue / (count - 1)
        if left_kv >= KV_SPARE_TRIGGER and left_queue >= QUEUE_SPARE_TRIGGER:
            return (
                -1,
                f"{left_kv:.2f} of KV cache and {left_queue:.1f} of queue to spare even on {count - 1} replicas",
            )
    return 0, f"{spare_kv:.2f} of KV cache and {spare_queue:.1f} of queue to spare: enough, and needed"
