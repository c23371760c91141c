"""A weekly review's desk around a store in memory, a sink and a clock that stands still; reviews are made at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from swell.clock import ManualClock
from swell.server.alerts import AlertDesk
from swell.server.review_desk import FILE, FIRST_LOOK_SECONDS, ReviewDesk
from swell.server.review_report import Effect, ReportedChange, ReviewReport, ReviewRequest
from swell.server.writer import Writer
from swell.spec import parse_spec
from swell.testing.fake_alert_sink import FakeAlertSink
from swell.testing.memory_store import MemoryStore

USD = 10**9
BERLIN = ZoneInfo("Europe/Berlin")
SPEC = """
models: [{{name: chat, source: hf://us/house-8b, accelerators: [H100], usd_per_replica_hour: 4}}]
alerts:
  sinks:
    - {{kind: command, name: pager, argv: [page]}}
    - {{kind: command, name: budgets, argv: [page], kinds: [budget]}}
    - {{kind: command, name: loud, argv: [page], min_severity: warning}}
  review: {review}
"""
DEFAULT = "{day: monday, hour: 8, time_zone: Europe/Berlin, top: 2}"


def unix(text: str) -> float:
    """Of a local time in Berlin."""
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def change(model: str = "chat", saving: int = 100 * USD, *, recommended: bool = True) -> ReportedChange:
    return ReportedChange(
        model=model,
        lever="replicas",
        change="replicas min 1, max 20",
        recommended=recommended,
        saving_usd_nanos_per_month=saving,
        confidence="high",
        attainment_asked=0.99,
        before=Effect(0.9997, 210.2, 12.4),
        after=Effect(0.9951, 1340.0, None),
    )


def report(*changes: ReportedChange) -> ReviewReport:
    best = [each for each in changes if each.recommended]
    return ReviewReport(
        days=7,
        requests=12_345,
        replayed_seconds=6.5 * 86_400,
        models=tuple(dict.fromkeys(each.model for each in changes)) or ("chat",),
        model_count=1,
        not_reviewed=(),
        not_reviewed_count=0,
        recommended_count=len(best),
        cost_usd_nanos_per_month=1_000 * USD,
        saving_usd_nanos_per_month=sum(each.saving_usd_nanos_per_month for each in best),
        changes=changes,
        command="swell review",
    )


@dataclass
class ReviewWorld:
    """`begin` starts the desk, and again as a restarted server does. Each review that is asked for takes the next of
    `outcomes`; without any, it is one that saves $100."""

    folder: Path
    at: str = "2026-11-18T12:00"  # a Wednesday
    review: str = DEFAULT
    store: MemoryStore = field(default_factory=MemoryStore)
    outcomes: list[ReviewReport | Exception] = field(default_factory=list)
    asked: list[ReviewRequest] = field(default_factory=list)
    sinks: Sequence[FakeAlertSink] = field(
        default_factory=lambda: [FakeAlertSink(name) for name in ("pager", "budgets", "loud")]
    )

    async def __aenter__(self) -> "ReviewWorld":
        self.clock = ManualClock(unix(self.at))
        self.writer = Writer()
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def begin(self) -> None:
        spec = parse_spec(SPEC.format(review=self.review), origin="swell.yaml")
        self.alerts = AlertDesk(
            spec, self.store, self.writer, self.clock, self.sinks, standings=list, say=lambda sentence: None
        )  # fmt: skip
        self.desk = ReviewDesk(
            spec, self.alerts.book, self.clock, self.folder / FILE, self._make, options=[("--state", "here")]
        )  # fmt: skip
        await self.desk.begin()
        self.clock.advance(FIRST_LOOK_SECONDS)

    async def _make(self, request: ReviewRequest) -> ReviewReport:
        self.asked.append(request)
        outcome = self.outcomes.pop(0) if self.outcomes else report(change())
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def look(self, at: str | None = None) -> list[str]:
        """Set the wall clock, have a turn, and list the weeks that were told, oldest first."""
        if at is not None:
            self.clock.jump_unix(unix(at) - self.clock.unix())
        await self.desk.step(self.clock.monotonic())
        return [record.threshold for record in self.store.list_alerts(100, "review")][::-1]
