"""Scaling decisions on their way into the store, and what the store has of them."""

from collections.abc import Callable, Iterable

from swell.clock import Clock
from swell.errors import SwellError
from swell.ports.store import Store
from swell.server.loops import Loop
from swell.server.trail import KEPT_DECISIONS, Trail
from swell.server.writer import Writer
from swell.state.records import DecisionRecord

TRAIL_SECONDS = 15.0  # until the store knows of a hold; of other decisions it knows at once


class DecisionDesk:
    """Made once per server. `loop` is to be run, and woken after a decision to change something."""

    def __init__(self, store: Store, writer: Writer, clock: Clock, trail: Callable[[], Trail]) -> None:
        self._store = store
        self._writer = writer
        self._trail = trail
        self.loop = Loop("decisions", self.step, TRAIL_SECONDS, clock)

    async def step(self, now: float = 0.0) -> None:
        """Store what it does not have yet. Raises SwellError; then the next step does it."""
        trail = self._trail()
        lines = trail.take()
        try:
            await self._writer.call(lambda: self._store.put_decisions(lines, KEPT_DECISIONS))
        except SwellError:
            trail.put_back(lines)
            raise

    async def list(self, model: str | None, limit: int) -> list[DecisionRecord]:
        """The trail up to now, newest first."""
        await self.step()
        return await self._writer.call(lambda: self._store.list_decisions(model, limit))

    async def last_counts(self, models: Iterable[str]) -> dict[str, int]:
        """How many replicas were decided on last, whoever decided; of models without a decision nothing."""
        found = {}
        for model in models:
            for line in await self._writer.call(lambda name=model: self._store.list_decisions(name, 1)):  # type: ignore[misc]
                found[model] = line.replicas
        return found
