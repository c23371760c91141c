"""The budgets of the store in memory."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from msgspec.structs import replace

from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.records import UsageFilter, requests_of

HOUR_MS = 3_600_000


class MemoryBudgets:
    """`swell.ports.store.BudgetStore` in dictionaries. `guarded` wraps each call, `charge` sums the ledger."""

    def __init__(
        self, guarded: Callable[[], AbstractContextManager[None]], charge: Callable[[UsageFilter], int]
    ) -> None:
        self._guarded = guarded
        self._charged = charge
        self._limits: dict[str, BudgetLimit] = {}
        self._spent: dict[str, int] = {}
        self._leases: dict[tuple[str, str], int] = {}

    def open_budgets(self, limits: Sequence[BudgetLimit]) -> list[BudgetSpend]:
        with self._guarded():
            for limit in limits:
                self._limits[limit.name] = limit
                covered = sum(
                    min(granted, self._charged(requests_of(limit, incarnation)))
                    for (name, incarnation), granted in self._leases.items()
                    if name == limit.name
                )
                beyond = self._charged(requests_of(limit)) - covered
                self._spent[limit.name] = max(self._spent.get(limit.name, 0), beyond)
            return [BudgetSpend(limit.name, self._spent[limit.name]) for limit in limits]

    def put_leases(self, leases: Sequence[BudgetLease]) -> None:
        with self._guarded():
            for lease in leases:
                place = (lease.limit, lease.incarnation)
                if lease.granted_usd_nanos > 0:
                    self._leases[place] = lease.granted_usd_nanos
                else:
                    self._leases.pop(place, None)

    def list_leases(self) -> list[BudgetLease]:
        with self._guarded():
            return [BudgetLease(*place, granted) for place, granted in sorted(self._leases.items())]

    def hourly_spend(self, limit: BudgetLimit, first_unix_ms: int, hours: int) -> list[int]:
        with self._guarded():
            starts = [first_unix_ms + hour * HOUR_MS for hour in range(hours)]
            whose = [replace(limit, start_unix_ms=start, end_unix_ms=start + HOUR_MS) for start in starts]
            return [self._charged(requests_of(hour)) for hour in whose]

    def settle_leases(self, incarnation: str) -> list[BudgetSpend]:
        with self._guarded():
            held = [place for place in self._leases if place[1] == incarnation]
            for place in held:
                granted = self._leases.pop(place)
                used = self._charged(requests_of(self._limits[place[0]], incarnation))
                self._spent[place[0]] += min(granted, used)
            return [BudgetSpend(limit, self._spent[limit]) for limit, _ in held]

    def forget_budgets(self, ended_before_unix_ms: int, sooner: Mapping[str, int] | None = None) -> None:
        with self._guarded():
            leased = {limit for limit, _ in self._leases}
            for name, limit in list(self._limits.items()):
                before = max(ended_before_unix_ms, (sooner or {}).get(limit.budget_id, 0))
                if limit.end_unix_ms is not None and limit.end_unix_ms < before and name not in leased:
                    del self._limits[name], self._spent[name]
