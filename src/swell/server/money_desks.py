"""The desks that deal in money: budgets, raises of them, spending on replicas, posted rates, alerts, reviews."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from swell.control.replica import Replica
from swell.server.alerts import AlertDesk
from swell.server.budget_rows import budget_rows
from swell.server.budgets import BudgetDesk
from swell.server.loops import Loop
from swell.server.overrides import Overrides
from swell.server.parts import Parts
from swell.server.posted_rates import RateDesk
from swell.server.replica_runs import RunDesk
from swell.server.review_desk import review_desk
from swell.server.spending import SpendingDesk
from swell.server.writer import Writer
from swell.state.records import KeyRecord


class MoneyDesks:
    """One of each. `publish` tells the gateway workers of what changed; `ingest` books what they wrote so far."""

    def __init__(
        self,
        parts: Parts,
        writer: Writer,
        *,
        keys: Callable[[], Sequence[KeyRecord]],
        say: Callable[[str], None],
        ingest: Callable[[], Awaitable[None]],
        publish: Callable[[], None],
    ) -> None:
        spec, store, clock = parts.spec, parts.store, parts.clock
        self._clock = clock
        self.budgets = BudgetDesk(spec, store, writer, clock, keys, is_shared=parts.is_shared)
        self.spending = SpendingDesk(spec, store, writer, clock)
        self.overrides = Overrides(lambda: spec, store, clock)
        self.alerts = AlertDesk(
            spec,
            store,
            writer,
            clock,
            parts.sinks,
            standings=lambda: [*self.budgets.standings(), *self.spending.standings()],
            steps=self.budgets.stages.holding,
            say=say,
            infrastructure_hours=self.spending.hours,
        )
        self.reviews = review_desk(parts, self.alerts.book)
        models = [model.spec for model in parts.models]
        self.runs = RunDesk(models, store, writer, clock, self.spending.note, parts.pools)
        self.rates = RateDesk(spec, store, writer, clock, runs=self.runs.list, ingest=ingest, publish=publish)

    async def begin(self, replicas: Sequence[Replica]) -> None:
        """Take up the lives of replicas that an earlier server started, and what they have cost."""
        await self.spending.begin()
        await self.runs.begin(replicas)

    async def open(self) -> None:
        """Take up alerts, reviews and rates, once budgets know where they stand."""
        await self.alerts.begin()
        await self.reviews.begin()
        await self.rates.begin()

    @property
    def loops(self) -> list[Loop]:
        """What goes on beside the budgets' own turns, which publish."""
        return [*self.alerts.loops, *self.reviews.loops, self.runs.loop, self.rates.loop]

    def budget_rows(self) -> list[dict[str, Any]]:
        """What has become of every budget by now."""
        rows = budget_rows(self.budgets.standings(), self._clock.unix(), self.budgets.stages.holding)
        return [*rows, *self.spending.rows()]
