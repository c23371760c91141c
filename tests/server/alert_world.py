"""Budgets, a store in memory, sinks and a clock that stands still, around a real alert desk."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from swell.clock import ManualClock
from swell.metering.budgets import BudgetGrant
from swell.server.alerts import AlertDesk
from swell.server.budgets import BudgetDesk
from swell.server.writer import Writer
from swell.spec import parse_spec
from swell.state.budgets import BudgetLimit
from swell.state.records import KeyRecord, SpoolPosition
from swell.testing.fake_alert_sink import FakeAlertSink
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change
from swell.units import NANOS_PER_USD

START_UNIX = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 10 * 3600  # ten o'clock
HOUR = 3600.0
CENT = NANOS_PER_USD // 100
WORKER = "worker"
FILE = """
models: [{{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}}]
prices: {{chat: {{usd_per_million_prompt_tokens: 1}}}}
tenants:
  - {{name: search, budget: {budget}}}
"""


@dataclass
class AlertWorld:
    """`begin` starts the desk, and again as a restarted server does."""

    budget: str = "{usd: 10, period: day}"
    sinks: Sequence[FakeAlertSink] = ()
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_UNIX))
    said: list[str] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._requests = 0

    async def __aenter__(self) -> "AlertWorld":
        self.writer = Writer()
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.desk.close()
        self.writer.close()

    async def begin(self) -> None:
        self.spec = spec = parse_spec(FILE.format(budget=self.budget), origin="swell.yaml")
        self.budgets = BudgetDesk(spec, self.store, self.writer, self.clock, lambda: self.keys)
        self.desk = AlertDesk(
            spec,
            self.store,
            self.writer,
            self.clock,
            self.sinks,
            standings=self.budgets.standings,
            steps=self.budgets.stages.holding,
            say=self.said.append,
        )
        await self.budgets.refresh()
        self.budgets.book.join(WORKER, ())
        await self.desk.begin()

    def limit_of(self, owner: str) -> BudgetLimit:
        """The current period's of that owner."""
        return next(limit for limit in self.budgets.limits if limit.owner == owner)

    @property
    def limit(self) -> BudgetLimit:
        """The current period's."""
        return self.budgets.limits[0]

    def spend(self, cents: int, limit: BudgetLimit | None = None) -> bool:
        """Have a worker ask for so much and use it; False where it is refused."""
        book, name, amount = self.budgets.book, (limit or self.limit).name, cents * CENT
        answer = book.request(WORKER, name, amount, amount, self.clock.unix())
        if isinstance(answer, BudgetGrant):
            book.report(WORKER, name, amount, answer.amount - amount)
        return isinstance(answer, BudgetGrant)

    def charge(self, cents: int, hours_ago: float, **fields: object) -> None:
        """Enter a request in the ledger."""
        self._requests += 1
        at = int((self.clock.unix() - hours_ago * HOUR) * 1000)
        change = usage_change(
            f"r{self._requests}",
            "pair",
            reserved_at_unix_ms=at,
            settled_at_unix_ms=at,
            charge_usd_nanos=cents * CENT,
            **fields,
        )
        self.store.apply_usage([change], SpoolPosition("spool1", 1, self._requests))

    async def turn(self, seconds: float = 2.0) -> None:
        """Let time pass, and every loop have its turn and what it began come to rest, as far as it does."""
        self.clock.advance(seconds)
        self.budgets.look()
        await self.desk.watch(self.clock.monotonic())
        for _ in range(2):  # what came of the tries is stored by the step after them
            await self.desk.deliveries.step(self.clock.monotonic())
            for _ in range(5):
                await asyncio.sleep(0)

    async def fired(self) -> list[str]:
        """Thresholds with their periods' dates, oldest first."""
        return [f"{row['values']['period']} {row['threshold']}" for row in (await self.desk.rows(100))[::-1]]

    async def states(self) -> list[str]:
        """Of every delivery, oldest alert first."""
        rows = (await self.desk.rows(100))[::-1]
        return [f"{each['sink']} {each['state']}" for row in rows for each in row["deliveries"]]
