"""SkyServe on requests a second, with its fallback from spot to on-demand (SpotHedge), every 20 s.

Rules: skypilot sky/serve/autoscalers.py, spot_placer.py and constants.py (0.14). Without spot pools it is the plain
request-rate autoscaler. With them, the whole target is asked for as spot, and on-demand replicas stand in for spot ones
that are not ready (`dynamic_ondemand_fallback`, nothing over-provisioned, no on-demand base): while they do, there may
be up to twice the target. Zones are the spot pools of the first pool's accelerator; on-demand replicas come from the
cheapest on-demand pool of that accelerator.

Knob: `target_qps_per_replica`. It has no default; the documentation's example has 2.5. Smaller means more replicas.
"""

from dataclasses import replace

from swell.simulator.peers.base import Peer, Want, whole
from swell.simulator.peers.spot_placer import SpotPlacer
from swell.simulator.peers.windows import Recent
from swell.simulator.result import Scenario
from swell.state.scaling import Decision, Market, Observation, Pool, ReplicaState, ReplicaView, Window

TARGET_QPS_PER_REPLICA = 2.5
DECISION_SECONDS = 20.0
DECISION_SECONDS_AT_ZERO = 5.0
QPS_SECONDS = 60.0
UPSCALE_TICKS = 15  # 300 s
DOWNSCALE_TICKS = 60  # 1200 s
INITIAL_DELAY_SECONDS = 1200.0  # a spot replica that took longer has failed


class SkyServe(Peer):
    """A target that follows the rate slowly, filled with spot and, until that is ready, with on-demand replicas."""

    lowest = 0

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        super().__init__(scenario, knob)
        alike = [p for p in scenario.pools if p.profile.accelerator == self.pool.profile.accelerator]
        self._spot = [p for p in alike if p.market is Market.SPOT]
        self._on_demand = sorted((p for p in alike if p.market is Market.ON_DEMAND), key=_price)
        if self._spot:  # an on-demand pool's bound is not the service's
            self.high = scenario.max_replicas
            self.low = min(max(scenario.min_replicas, self.lowest), self.high)
        self._placer = SpotPlacer(self._spot)
        self._recent = Recent(QPS_SECONDS)
        self._ticks = 0  # in a row, that the rate asked for more (positive) or fewer
        self._before: dict[str, ReplicaView] = {}
        self._counts: dict[str, int] = {}  # as decided last
        self._is_empty = False

    @property
    def interval_seconds(self) -> float:
        """20 s; 5 s while there is no replica."""
        return DECISION_SECONDS_AT_ZERO if self._is_empty else DECISION_SECONDS

    def default_knob(self, scenario: Scenario) -> float:
        return TARGET_QPS_PER_REPLICA

    def mine(self, seen: Observation) -> list[ReplicaView]:
        """The replicas of every pool that it uses."""
        names = {pool.name for pool in [*self._spot, *self._on_demand]} or {self.pool.name}
        return [replica for replica in seen.replicas if replica.pool in names]

    def want(self, seen: Observation, window: Window, current: int) -> Want:
        self._recent.add(seen.now, window.seconds, float(window.arrivals))
        qps = self._recent.sum() / QPS_SECONDS
        asked = self.clipped(whole(qps / self.knob))
        inputs = (("qps", qps),)
        reason = f"{qps:.2f} requests a second, {self.knob:g} a replica: {asked} replicas"
        if current == 0 or asked == current:
            self._ticks = 0
            return Want(asked, "activation" if asked > current else "target", reason, inputs)
        step = 1 if asked > current else -1
        self._ticks = self._ticks + step if self._ticks * step > 0 else step
        limit = UPSCALE_TICKS if step > 0 else DOWNSCALE_TICKS
        if abs(self._ticks) < limit:
            return Want(current, "delay", f"{reason}, for {abs(self._ticks)} of {limit} decisions", inputs)
        self._ticks = 0
        return Want(asked, "target", reason, inputs)

    def decide(self, seen: Observation) -> Decision:
        """The target by the rate, then by market and zone."""
        decided = super().decide(seen)
        self._is_empty = not self.mine(seen)
        if not self._spot:
            return decided
        self._notice_losses(seen)
        if seen.window is None and self._counts:
            counts = self._counts
        else:
            present = [r for r in self.mine(seen) if r.state is not ReplicaState.DRAINING]
            counts = self._placed(decided.replicas, present, seen.now)
        is_hold = seen.window is None or counts == self._counts
        self._counts = counts
        return replace(decided, counts=tuple(counts.items()), is_hold=is_hold)

    def _notice_losses(self, seen: Observation) -> None:
        """Spot replicas that went, or began to, without having been asked to were preempted."""
        here = {r.replica_id: r for r in self.mine(seen) if r.state is not ReplicaState.DRAINING}
        for pool in self._spot:
            before = [r for r in self._before.values() if r.pool == pool.name]
            gone = sum(r.replica_id not in here for r in before)
            let_go = max(0, len(before) - self._counts.get(pool.name, len(before)))
            if gone > let_go:
                self._placer.preempted(pool.name)
        for replica in here.values():
            was = self._before.get(replica.replica_id)
            is_new = was is None or was.state is not ReplicaState.READY
            if replica.state is ReplicaState.READY and is_new:
                self._placer.ready(replica.pool)
        self._before = here

    def _placed(self, target: int, present: list[ReplicaView], now: float) -> dict[str, int]:
        spot = {pool.name: 0 for pool in self._spot}
        ready = 0
        kept: list[ReplicaView] = []
        for replica in present:
            if replica.pool not in spot:
                continue
            is_late = replica.state is ReplicaState.STARTING and now - replica.ordered_at > INITIAL_DELAY_SECONDS
            if is_late:
                self._placer.preempted(replica.pool)
                continue
            kept.append(replica)
            ready += replica.state is ReplicaState.READY
        kept.sort(key=_last_to_go)
        for replica in kept[:target]:
            spot[replica.pool] += 1
        while sum(spot.values()) < target and (zone := self._placer.next(spot)) is not None:
            spot[zone] += 1
        on_demand = self._filled(min(target, max(0, target - ready)))
        return {**spot, **on_demand}

    def _filled(self, wanted: int) -> dict[str, int]:
        """So many on-demand replicas, the cheapest first."""
        counts: dict[str, int] = {}
        for pool in self._on_demand:
            counts[pool.name] = min(wanted, pool.max_replicas)
            wanted -= counts[pool.name]
        return counts


def _price(pool: Pool) -> tuple[float, str]:
    return pool.usd_per_hour, pool.name


def _last_to_go(replica: ReplicaView) -> tuple[bool, float, str]:
    """SkyServe lets go what is not ready first, then what was ordered last."""
    return replica.state is not ReplicaState.READY, replica.ordered_at, replica.replica_id
