"""The budget book: slices of budgets that gateway workers may spend without asking.

Pure; amounts are nano-dollars. Per limit (a budget in one period) the book knows what is `spent` by workers that have
ended, and per living worker what it was `granted`, less what it returned, and how much of that it has `used` for good.
What was granted counts as spent, whatever becomes of it, so at any moment and over any crash

    spent + sum(granted) <= cap

and no request can be admitted beyond the cap, which is the limit's amount with its grace. Grants are stored before they
are sent. A worker that ends leaves its grants standing until its spool is in the ledger; then what the ledger says
takes their place.

Slots of a rolling budget share a cap: in the place of a limit's own sum stands that of the fullest window that the slot
is in (`accounts.py`).

A worker is granted a share of what is left, so that it need not ask for every request. Near the cap the share is less
than a request needs, and leases become the reservations of single requests.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swell.metering.accounts import NEARLY_PERCENT, Account, Accounts, Standing
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.messages import LimitBalance

PREFIX = "budget:"  # of the names of limits, to tell them from rate limits
SHARES = 4  # a worker is granted at most a quarter of its even share of what is left
SOON_SECONDS = 0.25  # only reservations stand in the way: they end, or come back unused
ENDED_KEPT = 10_000  # workers that have ended, whose late messages are recognised


@dataclass(frozen=True, slots=True)
class BudgetGrant:
    """The worker may spend `amount` more. `remaining` is what is left for everyone after it."""

    amount: int
    cap: int
    remaining: int


@dataclass(frozen=True, slots=True)
class BudgetDeny:
    """No room. Where only reservations stand in the way, `is_final` is False and `recall` names who holds what of it.

    `retry_after_seconds` of a final denial is the time until the period ends, infinite if it never does; of a rolling
    budget, until enough of what was spent has left the window.
    """

    cap: int
    remaining: int  # not spent for good
    is_final: bool
    retry_after_seconds: float
    recall: tuple[tuple[str, str], ...] = ()  # worker and limit


class BudgetBook:
    """Grants slices of limits so that their sum never exceeds a cap. The server is its only user."""

    def __init__(self, leases: Iterable[BudgetLease] = ()) -> None:
        """A new book, of a server that (re)started, with the leases that were stored."""
        self._accounts = Accounts()
        self._stored: dict[str, dict[str, int]] = {}  # of limits that are not known yet
        self._workers: set[str] = set()
        self._ended: dict[str, None] = {}  # in the order of their ends
        self._dirty: set[tuple[str, str]] = set()
        for lease in leases:
            self._stored.setdefault(lease.limit, {})[lease.incarnation] = lease.granted_usd_nanos

    def set_limits(self, limits: Sequence[BudgetLimit], spent: Mapping[str, int]) -> None:
        """The limits that hold, and what is spent of new ones. Others stay while workers hold some of them.

        Of rolling budgets these are the present slot and later ones; what counts with them is kept as well.
        """
        self._dirty |= set(self._accounts.set_limits(limits, spent, self._stored))

    def unknown(self, limits: Iterable[BudgetLimit]) -> list[BudgetLimit]:
        """Those of which the book must be told what is spent, slots that count with them included."""
        return self._accounts.unknown(limits)

    def join(self, incarnation: str, balances: Iterable[LimitBalance]) -> None:
        """A worker connected (again): what it states that it holds and has used replaces what the book thinks.

        A grant that was under way to it is thereby taken back: it will not arrive any more.
        """
        if incarnation in self._ended:
            return
        self._workers.add(incarnation)
        stated = {balance.limit: balance for balance in balances if balance.limit.startswith(PREFIX)}
        for account in self._accounts:
            balance = stated.get(account.limit.name)
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
            known = self._accounts.get(spend.limit)
            if known is not None:
                known.spent = spend.spent_usd_nanos
        for account in self._accounts:
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
        if account is None or incarnation not in self._workers or self._accounts.is_too_late(account):
            # It is told of in a moment, or never again.
            return BudgetDeny(0, 0, is_final=False, retry_after_seconds=SOON_SECONDS)
        cap = account.limit.most_usd_nanos
        amount = max(1, amount)
        final, committed = self._accounts.fullest(account)
        unspent, room = cap - final, cap - committed
        if max(amount, need) > unspent:
            account.has_refused |= final * 100 >= cap * NEARLY_PERCENT
            resets = self._accounts.resets_in(account, max(amount, need), now_unix)
            return BudgetDeny(cap, max(0, unspent), is_final=True, retry_after_seconds=resets)
        if amount > room:
            recall = tuple(
                (worker, each.limit.name)
                for each in self._accounts.together(account)
                for worker, granted in each.granted.items()
                if (worker != incarnation or each is not account) and granted > each.used.get(worker, 0)
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
            BudgetLease(name, incarnation, account.granted.get(incarnation, 0) if account else 0)
            for name, incarnation in sorted(self._dirty)
            for account in (self._accounts.get(name),)
        ]
        self._dirty.clear()
        return changed

    def mark_unsaved(self, leases: Iterable[BudgetLease]) -> None:
        """These were not stored after all."""
        self._dirty |= {(lease.limit, lease.incarnation) for lease in leases}

    def overdrawn(self) -> list[str]:
        """Limits whose cap was lowered below what is spent and held: what lies idle shall come back."""
        return self._accounts.overdrawn()

    def standings(self, now_unix: float = math.inf, of: frozenset[str] | None = None) -> list[Standing]:
        """Of every limit, by name, and of every rolling budget as one, as it stands then (at its last slot without).

        `of` names the budgets that are asked about, by their ids; None: all.
        """
        return self._accounts.standings(now_unix, of)

    def _set(self, account: Account, incarnation: str, granted: int, used: int | None = None) -> None:
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
