"""The budget book: slices of budgets that gateway workers may spend without asking.

Pure; amounts are nano-dollars. Per limit (a budget in one period) the book knows what is `spent` by workers that have
ended, and per living worker what it was `granted`, less what it returned, and how much of that it has `used` for good.
What was granted counts as spent, whatever becomes of it, so at any moment and over any crash

    spent + sum(granted) <= cap

and no request can be admitted beyond the cap, which is the limit's amount with its grace. Grants are stored before they
are sent. A worker that ends leaves its grants standing until its spool is in the ledger; then what the ledger says
takes their place.

A worker is granted a share of what is left, so that it need not ask for every request. Near the cap the share is less
than a request needs, and leases become the reservations of single requests.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.messages import LimitBalance

PREFIX = "budget:"  # of the names of limits, to tell them from rate limits
SHARES = 4  # a worker is granted at most a quarter of its even share of what is left
SOON_SECONDS = 0.25  # only reservations stand in the way: they end, or come back unused
NEARLY_PERCENT = 90  # of the cap and its grace, from which on a refusal says that a budget is used up
ENDED_KEPT = 10_000  # workers that have ended, whose late messages are recognised


@dataclass(frozen=True, slots=True)
class BudgetGrant:
    """The worker may spend `amount` more. `remaining` is what is left for everyone after it."""

    amount: int
    cap: int
    remaining: int


@dataclass(frozen=True, slots=True)
class BudgetDeny:
    """No room. Where only reservations stand in the way, `is_final` is False and `recall` names who holds some.

    `retry_after_seconds` of a final denial is the time until the period ends, infinite if it never does.
    """

    cap: int
    remaining: int  # not spent for good
    is_final: bool
    retry_after_seconds: float
    recall: tuple[str, ...] = ()


@dataclass(slots=True)
class _Account:
    limit: BudgetLimit
    spent: int = 0
    granted: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    has_refused: bool = False

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
    """What has become of a limit: spent for good, and in reservations and idle leases on top."""

    limit: BudgetLimit
    spent_usd_nanos: int
    reserved_usd_nanos: int
    has_refused: bool = False  # a request, for good, since this server began

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


class BudgetBook:
    """Grants slices of limits so that their sum never exceeds a cap. The server is its only user."""

    def __init__(self, leases: Iterable[BudgetLease] = ()) -> None:
        """A new book, of a server that (re)started, with the leases that were stored."""
        self._accounts: dict[str, _Account] = {}
        self._stored: dict[str, dict[str, int]] = {}  # of limits that are not known yet
        self._workers: set[str] = set()
        self._ended: dict[str, None] = {}  # in the order of their ends
        self._dirty: set[tuple[str, str]] = set()
        for lease in leases:
            self._stored.setdefault(lease.limit, {})[lease.incarnation] = lease.granted_usd_nanos

    def set_limits(self, limits: Iterable[BudgetLimit], spent: Mapping[str, int]) -> None:
        """The limits that hold, and what is spent of new ones. Others stay while workers hold some of them."""
        names = set()
        for limit in limits:
            names.add(limit.name)
            account = self._accounts.get(limit.name)
            if account is None:
                stored = self._stored.pop(limit.name, {})
                account = _Account(limit, spent.get(limit.name, 0), stored)
                self._accounts[limit.name] = account
            account.limit = limit
        for name, account in list(self._accounts.items()):
            if name not in names and not account.granted:
                del self._accounts[name]

    def unknown(self, limits: Iterable[BudgetLimit]) -> list[BudgetLimit]:
        """Those of which the book must be told what is spent."""
        return [limit for limit in limits if limit.name not in self._accounts]

    def join(self, incarnation: str, balances: Iterable[LimitBalance]) -> None:
        """A worker connected (again): what it states that it holds and has used replaces what the book thinks.

        A grant that was under way to it is thereby taken back: it will not arrive any more.
        """
        if incarnation in self._ended:
            return
        self._workers.add(incarnation)
        stated = {balance.limit: balance for balance in balances if balance.limit.startswith(PREFIX)}
        for name, account in self._accounts.items():
            balance = stated.get(name)
            held, used = (balance.held, balance.used_last_minute) if balance else (0, 0)
            self._set(account, incarnation, max(0, held + used), max(0, used))

    def leave(self, incarnation: str) -> None:
        """The worker's process is gone; what it was granted stands until `settled`."""
        self._workers.discard(incarnation)

    def settled(self, incarnation: str, spends: Iterable[BudgetSpend]) -> None:
        """All that an ended worker did is in the ledger, and its leases are no longer stored."""
        self._workers.discard(incarnation)
        self._ended[incarnation] = None
        if len(self._ended) > ENDED_KEPT:
            del self._ended[next(iter(self._ended))]
        for spend in spends:
            if spend.limit in self._accounts:
                self._accounts[spend.limit].spent = spend.spent_usd_nanos
        for account in self._accounts.values():
            account.granted.pop(incarnation, None)
            account.used.pop(incarnation, None)
        for leases in self._stored.values():
            leases.pop(incarnation, None)
        self._dirty = {place for place in self._dirty if place[1] != incarnation}

    def request(self, incarnation: str, name: str, amount: int, need: int, now_unix: float) -> BudgetGrant | BudgetDeny:
        """Lease at least `amount` to a worker that has joined, whose request needs `need` of the limit in all.

        A grant must be stored (`unsaved`) before it is sent, or be withdrawn.
        """
        account = self._accounts.get(name)
        if account is None or incarnation not in self._workers:  # told of in a moment, or never again
            return BudgetDeny(0, 0, is_final=False, retry_after_seconds=SOON_SECONDS)
        cap = account.limit.most_usd_nanos
        amount = max(1, amount)
        unspent, room = cap - account.final, cap - account.committed
        if max(amount, need) > unspent:
            account.has_refused = True
            return BudgetDeny(cap, max(0, unspent), is_final=True, retry_after_seconds=_resets_in(account, now_unix))
        if amount > room:
            recall = tuple(
                worker
                for worker, granted in account.granted.items()
                if worker != incarnation and granted > account.used.get(worker, 0)
            )
            return BudgetDeny(cap, unspent, is_final=False, retry_after_seconds=SOON_SECONDS, recall=recall)
        granted = max(amount, room // (SHARES * max(1, len(self._workers))))
        self._set(account, incarnation, account.granted.get(incarnation, 0) + granted)
        return BudgetGrant(granted, cap, room - granted)

    def withdraw(self, incarnation: str, name: str, amount: int) -> None:
        """A grant that could not be stored was not sent either."""
        account = self._accounts.get(name)
        if account is not None:
            self._set(account, incarnation, max(0, account.granted.get(incarnation, 0) - amount))

    def report(self, incarnation: str, name: str, used: int, returned: int) -> None:
        """Of what the worker was granted, `used` is spent for good and `returned` goes back."""
        account = self._accounts.get(name)
        if account is None or incarnation not in self._workers:
            return
        granted = account.granted.get(incarnation, 0)
        total = min(granted, account.used.get(incarnation, 0) + max(0, used))
        back = min(max(0, returned), granted - total)
        if back:
            self._set(account, incarnation, granted - back, total)
        elif total:
            account.used[incarnation] = total

    def unsaved(self) -> list[BudgetLease]:
        """Leases that differ from what is stored, once; `mark_unsaved` those that could not be stored."""
        changed = [
            BudgetLease(name, incarnation, self._accounts[name].granted.get(incarnation, 0))
            for name, incarnation in sorted(self._dirty)
            if name in self._accounts
        ]
        self._dirty.clear()
        return changed

    def mark_unsaved(self, leases: Iterable[BudgetLease]) -> None:
        """These were not stored after all."""
        self._dirty |= {(lease.limit, lease.incarnation) for lease in leases}

    def holders(self, name: str) -> tuple[str, ...]:
        """Workers that hold something of a limit."""
        account = self._accounts.get(name)
        return tuple(account.granted) if account else ()

    def overdrawn(self) -> list[str]:
        """Limits whose cap was lowered below what is spent and held: what lies idle shall come back."""
        return [name for name, each in self._accounts.items() if each.committed > each.limit.most_usd_nanos]

    def standings(self) -> list[Standing]:
        """Of every limit, by name."""
        return [
            Standing(account.limit, account.final, account.committed - account.final, account.has_refused)
            for _, account in sorted(self._accounts.items())
        ]

    def _set(self, account: _Account, incarnation: str, granted: int, used: int | None = None) -> None:
        name = account.limit.name
        if granted != account.granted.get(incarnation, 0):
            self._dirty.add((name, incarnation))
        if granted:
            account.granted[incarnation] = granted
        else:
            account.granted.pop(incarnation, None)
        if used:
            account.used[incarnation] = used
        elif used == 0 or not granted:
            account.used.pop(incarnation, None)


def _resets_in(account: _Account, now_unix: float) -> float:
    end = account.limit.end_unix_ms
    return math.inf if end is None else max(1.0, end / 1000 - now_unix)
