"""Infrastructure budgets: what replicas cost in each period, by what is known of their lives. Pure.

The book is told of every life as it begins, goes on and ends. What ended is added to the sum of its periods once, with
all of the minimum that is billed of it, also where that is not over yet; what runs is counted up to the moment that is
asked about. A new period begins with what still ran, or ended lately.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from swell.metering.infrastructure import MS_PER_HOUR, cost
from swell.metering.periods import period_at, zone_of
from swell.state.budgets import BudgetLimit, Scope
from swell.state.replica_runs import ReplicaRun

PREFIX = "infrastructure:"  # of the names of limits, to tell them from those of requests
LATELY_MS = 2 * MS_PER_HOUR  # that a run which ended is kept, for a period that begins meanwhile
ACCOUNTS_KEPT = 3  # periods of a budget, lest a clock that is set back begins one anew


@dataclass(frozen=True, slots=True)
class InfrastructureBudget:
    """What the replicas of a model, or of all where it is empty, may cost in each period of a time zone's calendar."""

    model: str
    usd_nanos: int
    period: str
    time_zone: str

    @property
    def budget_id(self) -> str:
        """The same over all its periods."""
        return f"{PREFIX}{self.model or '*'}:{self.period}:{self.time_zone}"

    def limit_at(self, now_unix: float) -> BudgetLimit:
        """It in the period of `now_unix`."""
        period = period_at(self.period, zone_of(self.time_zone), now_unix)
        start = round(period.start_unix * 1000)
        return BudgetLimit(
            name=f"{self.budget_id}:{start}",
            budget_id=self.budget_id,
            scope=Scope.INFRASTRUCTURE.value,
            owner=self.model,
            cap_usd_nanos=self.usd_nanos,
            label=period.label,
            start_unix_ms=start,
            end_unix_ms=None if period.end_unix is None else round(period.end_unix * 1000),
        )


@dataclass(slots=True)
class _Account:
    limit: BudgetLimit
    ended: int = 0  # nano-dollars in the period, of runs that ended


@dataclass(slots=True)
class _Kept:
    budget: InfrastructureBudget
    accounts: dict[str, _Account] = field(default_factory=dict)  # by the limit's name, the newest last


class InfrastructureBook:
    """What is spent of each budget. The server is its only user."""

    def __init__(self, budgets: Sequence[InfrastructureBudget], minimum_ms: Mapping[str, int] | None = None) -> None:
        """`minimum_ms` is what a replica is billed for at least, by model; less than LATELY_MS. Without it, nothing."""
        self.budgets = tuple(budgets)
        self._minimum_ms = dict(minimum_ms or {})
        self._kept = {budget.budget_id: _Kept(budget) for budget in budgets}
        self._open: dict[str, ReplicaRun] = {}
        self._lately: dict[str, ReplicaRun] = {}  # ended, in the order in which that was told

    def begin(self, runs: Iterable[ReplicaRun], now_unix: float) -> None:
        """With all lives that reach into the periods of now, each as often as it likes."""
        known = {run.replica_id: run for run in runs}
        accounts = [self._account(budget, now_unix) for budget in self.budgets]
        for run in known.values():
            if run.ended_unix_ms is None:
                self._open[run.replica_id] = run
                continue
            self._lately[run.replica_id] = run
            for budget, account in zip(self.budgets, accounts, strict=True):
                account.ended += self._billed(budget, account.limit, run)
        self._forget(now_unix)

    def note(self, run: ReplicaRun, now_unix: float) -> None:
        """A life as it is known now."""
        if run.replica_id in self._lately:
            return
        accounts = [self._account(budget, now_unix) for budget in self.budgets]  # before it: a new one counts the open
        if run.ended_unix_ms is None:
            self._open[run.replica_id] = run
            return
        self._open.pop(run.replica_id, None)
        self._lately[run.replica_id] = run
        for budget, account in zip(self.budgets, accounts, strict=True):
            account.ended += self._billed(budget, account.limit, run)
        self._forget(now_unix)

    def spent(self, budget: InfrastructureBudget, now_unix: float) -> tuple[BudgetLimit, int]:
        """The budget in its present period, and nano-dollars that its replicas cost in it up to now."""
        account = self._account(budget, now_unix)
        now_ms = int(now_unix * 1000)
        running = (replace(run, seen_unix_ms=max(now_ms, run.seen_unix_ms)) for run in self._open.values())
        return account.limit, account.ended + sum(_spent(budget, account.limit, run) for run in running)

    def running(self, model: str = "") -> list[ReplicaRun]:
        """Lives that go on, of a model or of all."""
        return [run for run in self._open.values() if model in ("", run.model)]

    def _account(self, budget: InfrastructureBudget, now_unix: float) -> _Account:
        kept, limit = self._kept[budget.budget_id], budget.limit_at(now_unix)
        account = kept.accounts.get(limit.name)
        if account is None:
            account = _Account(limit, sum(self._billed(budget, limit, run) for run in self._lately.values()))
            kept.accounts[limit.name] = account
            while len(kept.accounts) > ACCOUNTS_KEPT:
                del kept.accounts[next(iter(kept.accounts))]
        return account

    def _billed(self, budget: InfrastructureBudget, limit: BudgetLimit, run: ReplicaRun) -> int:
        """Of a life that has ended."""
        return _spent(budget, limit, run, self._minimum_ms.get(run.model, 0))

    def _forget(self, now_unix: float) -> None:
        oldest = int(now_unix * 1000) - LATELY_MS
        gone = [name for name, run in self._lately.items() if run.until_unix_ms < oldest]
        for name in gone:
            del self._lately[name]


def hourly(
    budget_model: str, runs: Iterable[ReplicaRun], first_unix_ms: int, hours: int,
    minimum_ms: Mapping[str, int] | None = None,
) -> list[int]:  # fmt: skip
    """Nano-dollars in each of so many hours from `first_unix_ms` on, of a model's replicas or of all."""
    found = [0] * hours
    for run in runs:
        if budget_model not in ("", run.model):
            continue
        least = (minimum_ms or {}).get(run.model, 0) if run.ended_unix_ms is not None else 0
        begin = max(0, (run.started_unix_ms - first_unix_ms) // MS_PER_HOUR)
        until = max(run.until_unix_ms, run.started_unix_ms + least)
        end = min(hours - 1, (until - first_unix_ms) // MS_PER_HOUR)
        for hour in range(begin, end + 1):
            start = first_unix_ms + hour * MS_PER_HOUR
            found[hour] += cost(run, start, start + MS_PER_HOUR, least)
    return found


def _spent(budget: InfrastructureBudget, limit: BudgetLimit, run: ReplicaRun, minimum_ms: int = 0) -> int:
    if budget.model not in ("", run.model) or limit.end_unix_ms is None:
        return 0
    return cost(run, limit.start_unix_ms, limit.end_unix_ms, minimum_ms)
