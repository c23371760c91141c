"""Alerts about models: objectives missed, demand beyond what there may be, nothing ready, spot that is lost."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from swell.clock import Clock
from swell.control.fleet import Fleet
from swell.control.workload import GATEWAY_WORKER, by_model
from swell.server.alert_book import AlertBook
from swell.server.alert_episodes import Episodes
from swell.server.capacity_watch import CapacityWatch, ReadyWatch
from swell.server.fixed_demand import FixedDemand
from swell.server.loops import Loop
from swell.server.objective_watch import ObjectiveWatch
from swell.server.parts import Parts
from swell.server.scaling import MakeScaler, served_names, swell_scaler
from swell.server.spending import infrastructure_budgets
from swell.server.spot_watch import SpotWatch
from swell.spec import ModelSpec
from swell.state.messages import Load
from swell.state.scaling import Decision

WATCH_SECONDS = 10.0


def model_watch(
    parts: Parts, fleet: Fleet, book: AlertBook, living: Callable[[], Collection[str]], stopping: asyncio.Event
) -> "ModelWatch":
    """The watch of a running server, with its file in the state directory."""
    models = [model.spec for model in parts.models]
    bounded = {budget.model for budget in infrastructure_budgets(parts.spec)}
    return ModelWatch(
        models,
        fleet,
        parts.clock,
        Episodes(book, parts.clock),
        parts.state.root,
        living=living,
        stopping=stopping,
        make_scaler=parts.make_scaler,
        # Those that a budget bounds, or that have pools, are decided about by `Scaling`, fixed or not.
        fixed=[model for model in models if not bounded & {"", model.name} and model.name not in parts.pools],
    )


class ModelWatch:
    """Made once per server. `living` are the workers that run. Nothing is told while `stopping` is set: what ends then
    shall end."""

    def __init__(
        self,
        models: Sequence[ModelSpec],
        fleet: Fleet,
        clock: Clock,
        episodes: Episodes,
        folder: Path,
        *,
        living: Callable[[], Collection[str]],
        stopping: asyncio.Event,
        make_scaler: MakeScaler = swell_scaler,
        fixed: Sequence[ModelSpec] = (),
    ) -> None:
        """`folder` keeps what was counted over a restart.

        Of `fixed`, those with a fixed number of replicas that nobody else decides about are watched for what they would
        need.
        """
        names = {name: model.name for model in models for name in served_names(model)}
        self._fleet = fleet
        self._episodes = episodes
        self._living = living
        self._stopping = stopping
        self._knows_episodes = False  # those that an earlier server left open
        self._objectives = ObjectiveWatch(models, names, folder / "objectives.json", clock)
        self._objectives.restore()
        self._capacity = CapacityWatch(models, clock)
        self._fixed = FixedDemand(
            [model for model in fixed if model.is_launched and not model.scales and model.replicas.max],
            fleet,
            clock,
            living=living,
            make_scaler=make_scaler,
            decided=self.decided,
        )
        self._ready = ReadyWatch(clock)
        self._spot = SpotWatch(models, folder / "spot_losses.json", clock)
        self._spot.restore()
        self.loops = (Loop("model alerts", self.step, WATCH_SECONDS, clock), *self._fixed.loops)

    def report(self, incarnation: str, load: Load) -> None:
        """Take a worker's report."""
        self._objectives.report(incarnation, load)
        self._fixed.report(incarnation, load)

    def decided(self, model: str, decision: Decision) -> None:
        """Take a scaling decision."""
        self._capacity.decided(model, decision)

    def look(self) -> None:
        """The fleet has changed."""
        self._spot.look(self._fleet.replicas)

    async def step(self, now: float) -> None:
        """One turn: tell what has begun and what is over."""
        if self._stopping.is_set():
            return
        if not self._knows_episodes:
            await self._episodes.begin(("objective", "capacity", "replicas", "spot_loss"))
            self._knows_episodes = True
        self._objectives.forget(self._living())
        models = by_model(workload for workload in self._fleet.workloads if workload.kind != GATEWAY_WORKER)
        found = [
            *self._objectives.findings(),
            *self._capacity.findings(),
            *self._ready.look(models.values(), self._fleet.replicas),
            *self._spot.findings(self._fleet.replicas, models),
        ]
        await self._episodes.see(found)
        await self._objectives.save()
        await self._spot.save()
