"""A fleet in a world of make-believe, watched for alerts about its models."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fleet_world import World

from swell.clock import ManualClock
from swell.control.workload import Workload
from swell.server.alert_book import AlertBook
from swell.server.alert_deliveries import AlertDeliveries
from swell.server.alert_episodes import Episodes
from swell.server.model_watch import WATCH_SECONDS, ModelWatch
from swell.server.writer import Writer
from swell.spec import ModelSpec
from swell.spec.alerts import SinkSpec
from swell.state.alerts import AlertRecord
from swell.state.funding import Fund
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import Decision
from swell.testing.fake_alert_sink import FakeAlertSink
from swell.testing.memory_store import MemoryStore

MINUTE, HOUR = 60.0, 3600.0


def model(name: str = "chat", **fields: object) -> ModelSpec:
    given = {"name": name, "source": "a.gguf", "replicas": "1..4", "objectives": {"attainment": 0.99}, **fields}
    return ModelSpec.model_validate({key: value for key, value in given.items() if value is not None})


class Watched:
    """A fleet in a world of make-believe, and what is told of it. `restart` is a new server over the same store."""

    def __init__(self, folder: Path, writer: Writer, models: Sequence[ModelSpec], sinks: Sequence[SinkSpec]) -> None:
        self.world, self.store, self.writer = World(folder), MemoryStore(), writer
        self.clock: ManualClock = self.world.clock
        self.models, self.folder, self.sinks = models, folder, sinks
        self.sums: dict[str, tuple[int, int]] = {}
        self.said: list[str] = []
        self.arrived = self.answered = self.waited = 0  # requests, and the seconds that they were open

    async def begin(self, *workloads: Workload) -> None:
        await self.world.restart(*workloads)
        self.stopping = asyncio.Event()
        sinks = [FakeAlertSink(sink.name) for sink in self.sinks]
        dice = random.Random(1)
        deliveries = AlertDeliveries(
            sinks, self.store, self.writer, self.clock, dice=dice, wake=lambda: None, say=self.said.append
        )
        book = AlertBook(self.store, self.writer, deliveries, self.said.append, self.sinks)
        episodes = Episodes(book, self.clock)
        self.watch = ModelWatch(
            self.models,
            self.world.fleet,
            self.clock,
            episodes,
            self.folder,
            living=lambda: {"w"},
            stopping=self.stopping,
            fixed=self.models,
        )
        self.report()

    def report(self, worker: str = "w", **served: tuple[int, int]) -> None:
        """So many more requests were judged of a model, and so many of them attained."""
        for name, (judged, attained) in served.items():
            before = self.sums.get(name, (0, 0))
            self.sums[name] = (before[0] + judged, before[1] + attained)
        loads = tuple(ModelLoad(name, judged=judged, attained=good) for name, (judged, good) in self.sums.items())
        self.watch.report(worker, Load(0, 0, (), (), loads))

    async def turn(self, seconds: float = WATCH_SECONDS) -> None:
        self.clock.advance(seconds)
        await self.watch.step(self.clock.monotonic())

    async def serve(self, minutes: int, judged: int, attained: int, name: str = "chat") -> None:
        for _ in range(minutes):
            self.report(**{name: (judged, attained)})
            await self.turn(MINUTE)

    async def decide(self, turns: int, binding: str, seconds: float = 10.0, fund: Fund | None = None) -> None:
        for _ in range(turns):
            inputs = (("demand", 6.25), ("forecast", 7.5), ("queued", 3.0), ("without_budget", 8.0))
            decision = Decision(0.0, (("p", 4),), "…", binding, is_hold=True, inputs=inputs, fund=fund)
            self.watch.decided("chat", decision)
            await self.turn(seconds)

    def records(self) -> list[AlertRecord]:
        return self.store.list_alerts(1000)[::-1]

    def told(self) -> list[str]:
        return [f"{record.alert.subject} {record.alert.kind} {record.threshold}" for record in self.records()]


@asynccontextmanager
async def watched(folder: Path, *models: ModelSpec, sinks: Sequence[SinkSpec] = ()) -> AsyncIterator[Watched]:
    writer = Writer()
    world = Watched(folder, writer, models, sinks)
    try:
        await world.begin()
        yield world
    finally:
        writer.close()
