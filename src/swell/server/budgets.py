"""The budgets of a running server: which limits hold now, the book of them, and what of it is stored.

Order makes it safe. A lease is stored before its grant is sent. A worker's leases are ended on the thread that stores,
after its spool is in the ledger, and what is stored for it later is dropped: so an ended worker leaves no lease.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from swell.clock import Clock
from swell.errors import SwellError
from swell.metering.budgets import PREFIX, BudgetBook, Standing
from swell.metering.ingest import Ingested
from swell.metering.periods import Period, following, period_at, zone_of
from swell.ports.store import Store
from swell.server.administration import key_budgets, limits_problem
from swell.server.writer import Writer
from swell.spec import Spec
from swell.spec.money import BudgetSpec
from swell.spec.thresholds import Threshold, parse_threshold
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend, Scope
from swell.state.records import KeyRecord, requests_of
from swell.units import usd

KEPT_SECONDS = 400 * 86_400.0  # what is known of limits whose period has ended

_log = logging.getLogger(__name__)


def limits_at(spec: Spec, now_unix: float, keys: Sequence[KeyRecord] = ()) -> tuple[BudgetLimit, ...]:
    """Every budget of spec and live keys in the period of `now_unix`, and in the next: workers are told ahead."""
    of_keys = (
        (Scope.KEY, key.key_id, budget)
        for key in keys
        if _has_budgets(key, now_unix)
        for budget in key_budgets(key.limits.budgets)
    )
    return tuple(
        _limit(scope, owner, budget, period)
        for scope, owner, budget in chain(_budgets(spec), of_keys)
        for period in _periods(budget, now_unix)
    )


def thresholds_by_budget(spec: Spec) -> dict[str, tuple[Threshold, ...]]:
    """What to alert at, by `BudgetLimit.budget_id`."""
    return {
        _budget_id(scope, owner, budget): tuple(map(parse_threshold, budget.alerts))
        for scope, owner, budget in _budgets(spec)
    }


def _budgets(spec: Spec) -> Iterator[tuple[Scope, str, BudgetSpec]]:
    owners = [(Scope.ORGANISATION, "", spec.organisation.budget)]
    owners += [(Scope.TENANT, tenant.name, tenant.budget) for tenant in spec.tenants]
    for scope, owner, budgets in owners:
        for budget in budgets:
            yield scope, owner, budget


def _budget_id(scope: Scope, owner: str, budget: BudgetSpec) -> str:
    return f"{PREFIX}{scope}:{owner}:{budget.model or '*'}:{budget.period}:{budget.time_zone}"


def _has_budgets(key: KeyRecord, now_unix: float) -> bool:
    return bool(key.limits.budgets) and key.is_live(now_unix) and not limits_problem(key.limits)


def _periods(budget: BudgetSpec, now_unix: float) -> list[Period]:
    zone = zone_of(budget.time_zone)
    current = period_at(budget.period.value, zone, now_unix)
    after = following(budget.period.value, zone, current)
    return [current] if after is None else [current, after]


def _limit(scope: Scope, owner: str, budget: BudgetSpec, period: Period) -> BudgetLimit:
    budget_id = _budget_id(scope, owner, budget)
    start = round(period.start_unix * 1000)
    return BudgetLimit(
        name=f"{budget_id}:{start}",
        budget_id=budget_id,
        scope=scope.value,
        owner=owner,
        cap_usd_nanos=budget.usd_nanos,
        label=period.label,
        start_unix_ms=start,
        end_unix_ms=None if period.end_unix is None else round(period.end_unix * 1000),
        model=budget.model or "",
        grace_usd_nanos=budget.grace_usd_nanos,
    )


def budget_rows(standings: Sequence[Standing], now_unix: float) -> list[dict[str, Any]]:
    """The limits that hold now, for people and scripts: amounts in nano-dollars, and as decimal dollars."""
    return [
        {
            "scope": standing.limit.scope,
            "owner": standing.limit.owner,
            "model": standing.limit.model,
            "period": standing.limit.label,
            "ends_unix": None if standing.limit.end_unix_ms is None else standing.limit.end_unix_ms / 1000,
            **{
                f"{name}_{unit}": value
                for name, nanos in (
                    ("cap", standing.limit.cap_usd_nanos),
                    ("grace", standing.limit.grace_usd_nanos),
                    ("grace_used", standing.grace_used_usd_nanos),
                    ("spent", standing.spent_usd_nanos),
                    ("reserved", standing.reserved_usd_nanos),
                    ("left", standing.left_usd_nanos),
                )
                for unit, value in (("usd_nanos", nanos), ("usd", f"{usd(nanos):f}"))
            },
        }
        for standing in standings
        if standing.limit.start_unix_ms <= now_unix * 1000
        and (standing.limit.end_unix_ms is None or now_unix * 1000 < standing.limit.end_unix_ms)
    ]


def ledger_rows(spec: Spec, store: Store, now_unix: float) -> list[dict[str, Any]]:
    """The same where no server runs, by what the ledger has."""
    present = [limit for limit in limits_at(spec, now_unix) if limit.start_unix_ms <= now_unix * 1000]
    standings = [
        Standing(limit, sum(total.charge_usd_nanos for total in store.total_usage(requests_of(limit))), 0)
        for limit in present
    ]
    return budget_rows(standings, now_unix)


class BudgetDesk:
    """Made once per server. Everything is called on the event loop but what says that it is not."""

    def __init__(
        self, spec: Spec, store: Store, writer: Writer, clock: Clock, keys: Callable[[], Sequence[KeyRecord]] = tuple
    ) -> None:
        self._spec = spec
        self._store = store
        self._writer = writer
        self._clock = clock
        self._keys = keys
        self._saving = asyncio.Lock()
        self._settled: set[str] = set()  # on the writer's thread: workers whose leases were ended
        self._finished: list[str] = []  # there too: whose spools are finished and whose leases are not ended yet
        self.book = BudgetBook()
        self.limits: tuple[BudgetLimit, ...] = ()

    async def begin(self, spools: Path, living: Collection[str]) -> None:
        """Read what is leased. Ended workers whose spools are gone have all that they did in the ledger."""
        leases = await self._writer.call(self._store.list_leases)
        self.book = BudgetBook(leases)
        gone = {lease.incarnation for lease in leases} - set(living)
        ended = [incarnation for incarnation in sorted(gone) if not (spools / incarnation).is_dir()]
        self.book_ends(await self._writer.call(lambda: self.end(ended)))

    def wanted(self) -> tuple[BudgetLimit, ...]:
        """The limits that shall hold now."""
        return limits_at(self._spec, self._clock.unix(), self._keys())

    async def refresh(self) -> bool:
        """Bring the limits up to now; whether they changed. New ones begin with what the ledger has of their period."""
        limits = self.wanted()
        new = self.book.unknown(limits)
        spends = await self._writer.call(lambda: self._store.open_budgets(new)) if new else []
        self.book.set_limits(limits, {spend.limit: spend.spent_usd_nanos for spend in spends})
        if new:
            before = int((self._clock.unix() - KEPT_SECONDS) * 1000)
            await self._writer.call(lambda: self._store.forget_budgets(before))
        changed, self.limits = limits != self.limits, limits
        return changed

    def standings(self) -> list[Standing]:
        """What has become of every limit by now."""
        return self.book.standings()

    async def save(self) -> None:
        """Store every lease that differs from what is stored. Raises SwellError where that failed.

        One at a time: who comes second finds marked again what the first could not store, and tries it too.
        """
        async with self._saving:
            leases = self.book.unsaved()
            if not leases:
                return
            try:
                await self._writer.call(lambda: self._put(leases))
            except BaseException:
                self.book.mark_unsaved(leases)
                raise

    def end(self, finished: Sequence[str]) -> list[tuple[str, list[BudgetSpend]]]:
        """On the writer's thread: end the leases of workers whose spools are finished. What fails is tried again."""
        self._finished += finished
        ended = []
        while self._finished:
            incarnation = self._finished[0]
            try:
                spends = self._store.settle_leases(incarnation)
            except SwellError:
                _log.exception("a worker's leases could not be ended yet", extra={"incarnation": incarnation})
                break
            self._settled.add(incarnation)
            del self._finished[0]
            ended.append((incarnation, spends))
        return ended

    def book_ends(self, ended: Sequence[tuple[str, list[BudgetSpend]]]) -> None:
        """Tell the book."""
        for incarnation, spends in ended:
            self.book.settled(incarnation, spends)

    async def ingested(self, done: Ingested) -> None:
        """After the spools were read: end the leases of those that are finished."""
        if done.finished:
            self.book_ends(await self._writer.call(lambda: self.end(done.finished)))

    def _put(self, leases: Sequence[BudgetLease]) -> None:
        self._store.put_leases([lease for lease in leases if lease.incarnation not in self._settled])
