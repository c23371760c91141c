"""Scaling live: per model that scales one loop, which is the very turn that the simulator takes (`control.scaling`).

A turn comes every `interval_seconds`, and at once when a request waits for a model without replicas. One that comes
between two reports of the workers would see nothing new, and is left out.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from swell.clock import Clock
from swell.control.engine_metrics import MetricsReader
from swell.control.fleet import Fleet
from swell.control.scaling import ScalingLoop
from swell.policy.scaling.spending import most_affordable
from swell.ports.scaler import Scaler
from swell.server.live_fleet import LiveFleet
from swell.server.live_pools import NO_POOLS, LivePool, PoolsByModel, pools_of
from swell.server.loops import Loop
from swell.server.scaler_memory import ScalerMemories
from swell.server.signals import Signals
from swell.server.spending import SpendingDesk
from swell.server.trail import Trail
from swell.server.unserved import surely_decided_seconds, surely_gone_seconds
from swell.spec import ModelSpec
from swell.state.funding import Funding
from swell.state.messages import Load
from swell.state.scaling import Decision, Objective, Pool, ReplicaState, ReplicaView
from swell.state.snapshot import ClientIdentity

if TYPE_CHECKING:
    from swell.policy.scaling.placement_problem import PlacementRules

NOTHING_REMEMBERED: Mapping[str, int] = MappingProxyType({})
MEMORY_SECONDS = 300.0  # between two writings of what the policy has learnt
METRICS_SECONDS = 2.0  # between two readings of the engines' own metrics

_log = logging.getLogger(__name__)

MakeScaler = Callable[[ModelSpec, Sequence[Pool]], Scaler]


@dataclass(frozen=True)
class _Scaled:
    spec: ModelSpec
    pools: tuple[LivePool, ...]
    fleet: LiveFleet
    turn: ScalingLoop
    loop: Loop

    @property
    def workloads(self) -> tuple[str, ...]:
        """Its pools' names in the fleet; where nothing else says which, the first has what is wanted."""
        return tuple(pool.workload for pool in self.pools)


class Scaling:
    """All models that scale. `decided` is called after a decision to change something, `saw` gets all.

    `counted` is called when the numbers that are wanted may have changed.
    """

    def __init__(
        self,
        models: Sequence[ModelSpec],
        fleet: Fleet,
        clock: Clock,
        *,
        loads: Callable[[], Mapping[str, Load]],
        living: Callable[[], Collection[str]],
        make_scaler: MakeScaler,
        decided: Callable[[], None] = lambda: None,
        counted: Callable[[], None] = lambda: None,
        saw: Callable[[str, Decision], None] = lambda model, decision: None,
        memories: ScalerMemories | None = None,
        spending: SpendingDesk | None = None,
        pools: PoolsByModel = NO_POOLS,
        identities: Callable[[], Iterable[ClientIdentity]] = tuple,
    ) -> None:
        self._pools = pools
        self._fleet = fleet
        self._clock = clock
        self._loads = loads
        self._living = living
        self._decided = decided
        self._counted = counted
        self._saw = saw
        self._memories = memories
        self._spending = spending
        self._stopped = False
        self.trail = Trail(0)
        # A budget may let go of replicas whose number is fixed otherwise, and of several pools the cheapest are chosen.
        models = [
            m for m in models if m.scales or m.name in pools or (spending is not None and spending.bounds(m.name))
        ]
        self._reader = MetricsReader(identities)
        self._watch = Loop("engine metrics", self._read_engines, METRICS_SECONDS, clock)
        names = {name: model.name for model in models for name in served_names(model)}
        self._signals = Signals(names, clock.monotonic())
        self._scalers: dict[str, Scaler] = {}
        self._models = {model.name: self._scaled(model, make_scaler) for model in models}
        self._keep = Loop("scaling memory", self._keep_memories, MEMORY_SECONDS, clock)

    @property
    def loops(self) -> list[Loop]:
        """To be run, each on its own: one that fails stops no other."""
        loops = [scaled.loop for scaled in self._models.values()]
        return [*loops, self._watch, self._keep] if loops else []

    def adopted(self, epoch: int, remembered: Mapping[str, int] = NOTHING_REMEMBERED) -> None:
        """Want what was found running, inside the bounds: an earlier server had its reasons. Before the first turn.

        Of models whose replicas somebody else runs nothing is found: as many are wanted as are `remembered`.
        """
        self.trail = Trail(epoch)
        found = Counter(replica.workload for replica in self._fleet.replicas)
        found.update(remembered)
        for scaled in self._models.values():
            bounds, first = scaled.spec.replicas, scaled.workloads[0]
            room = bounds.max
            for name in scaled.workloads:
                self._fleet.set_count(name, min(found[name], room))
                room -= min(found[name], room)
            missing = bounds.min - (bounds.max - room)
            if missing > 0:
                self._fleet.set_count(first, self._fleet.workload(first).count + missing)
        self._begin_within_budgets()
        self._counted()

    def _begin_within_budgets(self) -> None:
        """Before the first turn: no more than what is left pays for, with everybody's replicas known."""
        now = self._clock.monotonic()
        views = {name: scaled.fleet.views(now, {}) for name, scaled in self._models.items()}
        for name, scaled in self._models.items():
            self._funding(scaled.spec, scaled.pools, views[name], now)
        for name, scaled in self._models.items():
            funding = self._funding(scaled.spec, scaled.pools, views[name], now)
            if funding is None or self._spending is None:
                continue
            # What is shown as starting may have to be started first: it must be paid for as a new one.
            begun = [view for view in views[name] if view.state is not ReplicaState.STARTING]
            counts = self._affordable(scaled, funding, begun, now)
            for workload, count in zip(scaled.workloads, counts, strict=True):
                if count < self._fleet.workload(workload).count:
                    self._fleet.set_count(workload, count)
            kept = tuple((pool.pool.name, count) for pool, count in zip(scaled.pools, counts, strict=True))
            self._spending.decided(name, Decision(now, kept, "found", "hold", is_hold=True))

    def _affordable(self, scaled: _Scaled, funding: Funding, begun: Sequence[ReplicaView], now: float) -> list[int]:
        """Of several pools those that run already, since only a decision can weigh them against one another."""
        if len(scaled.pools) > 1:
            running = Counter(view.pool for view in begun if view.state is not ReplicaState.DRAINING)
            return [running[pool.pool.name] for pool in scaled.pools]
        pool, count = scaled.pools[0].pool, self._fleet.workload(scaled.workloads[0]).count
        return [most_affordable(funding, pool.name, begun, now, pool.start_seconds, count)]

    def _funding(
        self, model: ModelSpec, pools: Sequence[LivePool], views: Sequence[ReplicaView], now: float
    ) -> Funding | None:
        if self._spending is None:
            return None
        grace = max(self._fleet.workload(pool.workload).stop_grace_seconds for pool in pools)
        drain, turn = surely_gone_seconds(model, grace), surely_decided_seconds(model)
        prices = {pool.pool.name: pool.usd_nanos_per_hour for pool in pools}
        starts = {pool.pool.name: pool.pool.start_seconds for pool in pools}
        return self._spending.funding(model.name, prices, views, now, drain, turn, starts)

    def report(self, incarnation: str, load: Load) -> None:
        """Take a worker's report; whoever waits at zero is seen to at once."""
        self._signals.report(incarnation, load, self._clock.monotonic())
        for name, scaled in self._models.items():
            if self._signals.queued(name) and not self._wanted(scaled):
                scaled.loop.wake.set()

    def forget(self, living: Collection[str]) -> None:
        """Workers that are not among the living are gone."""
        self._signals.forget(living)

    def stop(self) -> None:
        """Decide nothing more: the server drains."""
        self._stopped = True

    async def close(self) -> None:
        """Let go of connections, and keep what was learnt."""
        await self._reader.close()
        await self._keep_memories(0.0)

    async def _keep_memories(self, now: float) -> None:
        memories = self._memories
        if memories is None:
            return
        for name, scaler in self._scalers.items():
            try:
                await asyncio.to_thread(memories.save, name, scaler)
            except OSError as error:
                _log.warning(
                    "what was learnt of a model could not be kept", extra={"model": name, "reason": str(error)}
                )

    def _wanted(self, scaled: _Scaled) -> int:
        return sum(self._fleet.workload(name).count for name in scaled.workloads)

    async def _read_engines(self, now: float) -> None:
        if self._stopped:  # the fleet may want none of them any more
            return
        for name, scaled in self._models.items():
            ready = [replica for replica in self._fleet.replicas if replica.serves == name and replica.routable]
            readings = await self._reader.read(ready, self._fleet.workload(scaled.workloads[0]).metrics)
            for child_id, reading in readings.items():
                waiting, kv_used = reading.waiting_requests or 0.0, reading.kv_usage_ratio or 0.0
                scaled.fleet.engine_says(child_id, int(waiting), min(max(kv_used, 0.0), 1.0))

    def rows(self) -> list[dict[str, object]]:
        """For `status`."""
        return [
            {
                "model": name,
                "wanted": self._wanted(scaled),
                "min": scaled.spec.replicas.min,
                "max": scaled.spec.replicas.max,
            }
            for name, scaled in self._models.items()
        ]

    def _scaled(self, model: ModelSpec, make_scaler: MakeScaler) -> _Scaled:
        pools = pools_of(model, self._pools)
        scaler = self._scalers[model.name] = make_scaler(model, [each.pool for each in pools])
        if self._memories is not None:
            self._memories.restore(model.name, scaler)
        live = LiveFleet(
            {each.pool.name: each.workload for each in pools},
            self._fleet,
            lambda now: self._signals.window(model.name, self._living(), now, scaler.interval_seconds),
            self._loads,
            self._clock.unix,
            model.scaling.drain_seconds,
            lambda views, now: self._funding(model, pools, views, now),
        )

        def record(decision: Decision) -> None:
            self.trail.add(model.name, decision, live.seen.present, self._clock.unix())
            self._saw(model.name, decision)
            if self._spending is not None:
                self._spending.decided(model.name, decision)
            if not decision.is_hold:
                self._decided()

        turn = ScalingLoop(live, scaler, {each.pool.name: each.pool for each in pools}, record)

        async def step(now: float) -> None:
            if not self._stopped and not self._signals.is_awaited(model.name, self._living(), now):
                turn.step(now)
                self._counted()
                await asyncio.sleep(0)

        loop = Loop(f"scaling of {model.name}", step, scaler.interval_seconds, self._clock)
        return _Scaled(model, pools, live, turn, loop)


def served_names(model: ModelSpec) -> list[str]:
    """The model's own and its adapters': they share its replicas."""
    return [model.name, *(adapter.name for adapter in model.lora)]


def swell_scaler(model: ModelSpec, pools: Sequence[Pool]) -> Scaler:
    """Swell's own policy with what the spec says."""
    from swell.policy.scaling.swell import SwellScaler  # late: a server whose models do not scale needs no forecasts

    wanted = model.objectives
    objective = Objective(wanted.ttft_ms, wanted.itl_ms, wanted.attainment, wanted.ttft_ms_per_1k_prompt_tokens)
    return SwellScaler(
        {pool.name: pool for pool in pools},
        objective,
        model.replicas.min,
        model.replicas.max,
        interval_seconds=model.scaling.interval_seconds,
        idle_seconds=model.scaling.idle_seconds,
        rules=_rules(model, pools),
    )


def _rules(model: ModelSpec, pools: Sequence[Pool]) -> "PlacementRules | None":
    """How several pools may be mixed; None where there is nothing to mix."""
    if len(pools) == 1:
        return None
    from swell.policy.scaling.placement_problem import PlacementRules

    spot = model.bought_on_spot
    return PlacementRules(
        on_demand_base=spot.ondemand_base if spot else 0,
        max_spot_fraction=spot.max_fraction if spot else 0.0,
        min_replicas=model.replicas.min,
    )
