"""Accounts of limits: what is spent and granted of each, and what counts together. Pure; amounts are nano-dollars.

A limit of a period stands for itself. Slots of a rolling window share a cap: what counts for one of them is the fullest
window that it is in, since a request that was admitted in it may ask when others have spent in later ones.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from swell.state.budgets import LATE_SLOTS, BudgetLimit

NEARLY_PERCENT = 90  # of the cap and its grace, from which on a refusal says that a budget is used up


@dataclass(slots=True)
class Account:
    """One limit: spent by workers that have ended, and by worker what it was granted and has used for good."""

    limit: BudgetLimit
    spent: int = 0
    granted: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    has_refused: bool = False  # a request, for good, with little left

    @property
    def committed(self) -> int:
        """Spent, or in the hands of workers."""
        return self.spent + sum(self.granted.values())

    @property
    def final(self) -> int:
        """Spent for good, as far as is known."""
        return self.spent + sum(min(self.granted.get(w, 0), used) for w, used in self.used.items())


@dataclass(frozen=True, slots=True)
class Standing:
    """What has become of a limit: spent for good, and in reservations and idle leases on top.

    Of a rolling budget it is that of the window that ends with the limit, a slot.
    """

    limit: BudgetLimit
    spent_usd_nanos: int
    reserved_usd_nanos: int
    has_refused: bool = False  # a request, for good, with little left, since this server began or a raise
    names: tuple[str, ...] = ()  # of the limits that count
    frees_unix_ms: int | None = None  # when the oldest slot with spend leaves the window; of rolling budgets alone

    @property
    def left_usd_nanos(self) -> int:
        """Neither spent nor held, grace included; negative where the cap was lowered below what was."""
        return self.limit.most_usd_nanos - self.spent_usd_nanos - self.reserved_usd_nanos

    @property
    def is_used_up(self) -> bool:
        """Whether it refuses requests of ordinary size. What is left is then less than they may cost, so that spend
        hardly ever reaches the cap itself. A single large request that is refused early says nothing."""
        most, spent = self.limit.most_usd_nanos, self.spent_usd_nanos
        return self.has_refused and spent > 0 and spent * 100 >= most * NEARLY_PERCENT

    @property
    def grace_used_usd_nanos(self) -> int:
        """What of the grace is spent."""
        return min(self.limit.grace_usd_nanos, max(0, self.spent_usd_nanos - self.limit.cap_usd_nanos))


class Accounts:
    """All accounts by their limit's name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Account] = {}
        self._slots: dict[str, dict[int, Account]] = {}  # of rolling budgets, by their id and the slot's start
        self._present: dict[str, int] = {}  # start of the present slot of each

    def __iter__(self) -> Iterator[Account]:
        return iter(self._by_name.values())

    def get(self, name: str) -> Account | None:
        """That limit's, if it is known."""
        return self._by_name.get(name)

    def unknown(self, limits: Iterable[BudgetLimit]) -> list[BudgetLimit]:
        """Limits that have none, and slots that count with a given one and have none."""
        found: dict[str, BudgetLimit] = {}
        for limit in limits:
            slots = self._slots.get(limit.budget_id, {})
            if not all(start in slots for start in limit.earlier_starts):
                found |= {each.name: each for each in limit.earlier_slots() if each.start_unix_ms not in slots}
            if limit.name not in self._by_name:
                found[limit.name] = limit
        return list(found.values())

    def set_limits(
        self, limits: Sequence[BudgetLimit], spent: Mapping[str, int], leases: dict[str, dict[str, int]]
    ) -> list[tuple[str, str]]:
        """Those that hold: of rolling budgets the present slot and later ones, which keep what counts with them.

        New ones begin with what is `spent`, and take what `leases` has for them. Others stay while something of them
        is granted, slots a window longer than they count: the leases of those that were dropped are returned, each as
        a limit and a worker.
        """
        present: dict[str, BudgetLimit] = {}  # slot of each rolling budget
        for limit in limits:
            if limit.window_ms:
                known = present.setdefault(limit.budget_id, limit)
                present[limit.budget_id] = min(known, limit, key=_start)
        self._present = {budget_id: limit.start_unix_ms for budget_id, limit in present.items()}
        wanted = {limit.name: limit for limit in limits}
        for limit in present.values():
            slots = self._slots.get(limit.budget_id, {})
            for start in limit.earlier_starts:
                account = slots.get(start)
                if account is None or not _has_same_cap(account.limit, limit):
                    slot = limit.slot_at(start)
                    wanted[slot.name] = slot
        for limit in wanted.values():
            self._open(limit, spent, leases)
        dropped = []
        for account in list(self._by_name.values()):
            limit = account.limit
            counts = limit.budget_id in present and limit.start_unix_ms in present[limit.budget_id].earlier_starts
            if limit.name not in wanted and not counts and (not account.granted or self._is_long_over(account)):
                dropped += [(limit.name, worker) for worker in account.granted]
                self._close(limit)
        return dropped

    def _is_long_over(self, account: Account) -> bool:
        limit = account.limit
        latest = self._present.get(limit.budget_id, 0) - 2 * limit.window_ms - LATE_SLOTS * limit.slot_ms
        is_settled = all(granted <= account.used.get(worker, 0) for worker, granted in account.granted.items())
        return bool(limit.window_ms) and limit.start_unix_ms < latest and is_settled

    def _open(self, limit: BudgetLimit, spent: Mapping[str, int], leases: dict[str, dict[str, int]]) -> None:
        account = self._by_name.get(limit.name)
        if account is None:
            account = Account(limit, spent.get(limit.name, 0), leases.pop(limit.name, {}))
            self._by_name[limit.name] = account
            if limit.window_ms:
                self._slots.setdefault(limit.budget_id, {})[limit.start_unix_ms] = account
        elif limit.most_usd_nanos > account.limit.most_usd_nanos:
            account.has_refused = False  # what was refused might be admitted now
        account.limit = limit

    def _close(self, limit: BudgetLimit) -> None:
        del self._by_name[limit.name]
        if limit.window_ms:
            slots = self._slots[limit.budget_id]
            del slots[limit.start_unix_ms]
            if not slots:
                del self._slots[limit.budget_id]

    def is_too_late(self, account: Account) -> bool:
        """Whether a slot is so long over that not all is known that counts with it."""
        limit = account.limit
        earliest = self._present.get(limit.budget_id, 0) - LATE_SLOTS * limit.slot_ms
        return bool(limit.window_ms) and limit.start_unix_ms < earliest

    def together(self, account: Account, last_unix_ms: int | None = None) -> list[Account]:
        """What counts with an account, oldest first: slots of the window that ends with it, or with the one that
        begins at `last_unix_ms`."""
        limit = account.limit
        if not limit.window_ms:
            return [account]
        slots = self._slots[limit.budget_id]
        last = limit.start_unix_ms if last_unix_ms is None else last_unix_ms
        starts = range(last - limit.window_ms, last + 1, limit.slot_ms)
        return [slots[start] for start in starts if start in slots]

    def fullest(self, account: Account) -> tuple[int, int]:
        """What is spent for good, and spent or held, of what shares the account's cap: the most of any window."""
        limit = account.limit
        if not limit.window_ms:
            return account.final, account.committed
        start = limit.start_unix_ms
        later = [at for at, each in self._slots[limit.budget_id].items() if at > start and (each.spent or each.granted)]
        last = min(start + limit.window_ms, max(later, default=start))
        sums = [_sums(self.together(account, at)) for at in range(start, last + 1, limit.slot_ms)]
        return max(final for final, _ in sums), max(committed for _, committed in sums)

    def resets_in(self, account: Account, need: int, now_unix: float) -> float:
        """Seconds until a request that needs so much may be admitted again; infinite if never, as far as is known."""
        limit = account.limit
        if not limit.window_ms:
            return math.inf if limit.end_unix_ms is None else max(1.0, limit.end_unix_ms / 1000 - now_unix)
        # Whoever tries again does so in a later slot, with which all counts that has not left by then.
        now_ms = now_unix * 1000
        slots = sorted(self._slots[limit.budget_id].values(), key=lambda each: each.limit.start_unix_ms)
        spent = [(leaves, each.final) for each in slots if (leaves := each.limit.leaves_unix_ms or 0) > now_ms]
        short = need - limit.most_usd_nanos + sum(final for _, final in spent)
        for leaves, final in spent:
            short -= final
            if short <= 0:
                return max(1.0, leaves / 1000 - now_unix)
        return math.inf

    def overdrawn(self) -> list[str]:
        """Limits whose cap was lowered below what is spent and held, and of which workers hold something."""
        found = [
            each.limit.name for each in self if not each.limit.window_ms and each.committed > each.limit.most_usd_nanos
        ]
        for slots in self._slots.values():
            newest = slots[max(slots)]
            if self.fullest(newest)[1] > newest.limit.most_usd_nanos:
                found += [each.limit.name for each in slots.values() if each.granted]
        return found

    def standings(self, now_unix: float, of: frozenset[str] | None = None) -> list[Standing]:
        """Of every limit, by name, and then of every rolling budget as one, as it stands at that moment.

        `of` names the budgets that are asked about; None: all.
        """
        if of is not None and not of:
            return []
        found = []
        asked = (each for each in self if not each.limit.window_ms and (of is None or each.limit.budget_id in of))
        for account in sorted(asked, key=lambda each: each.limit.name):
            limit, final = account.limit, account.final
            found.append(Standing(limit, final, account.committed - final, account.has_refused, (limit.name,)))
        for budget_id, slots in sorted(self._slots.items()):
            if of is not None and budget_id not in of:
                continue
            begun = [start for start in slots if start <= now_unix * 1000]
            account = slots[max(begun) if begun else min(slots)]
            inside = self.together(account)
            final, committed = _sums(inside)
            names = tuple(each.limit.name for each in inside)
            frees = next((each.limit.leaves_unix_ms for each in inside if each.final), None) if final else None
            found.append(Standing(account.limit, final, committed - final, account.has_refused, names, frees))
        return found


def _sums(accounts: Iterable[Account]) -> tuple[int, int]:
    """What is spent for good, and spent or held."""
    final = committed = 0
    for account in accounts:
        if account.granted:
            final += account.final
            committed += account.committed
        else:  # as most slots of most budgets: there may be very many
            final += account.spent
            committed += account.spent
    return final, committed


def _start(limit: BudgetLimit) -> int:
    return limit.start_unix_ms


def _has_same_cap(one: BudgetLimit, other: BudgetLimit) -> bool:
    return (one.cap_usd_nanos, one.grace_usd_nanos) == (other.cap_usd_nanos, other.grace_usd_nanos)
