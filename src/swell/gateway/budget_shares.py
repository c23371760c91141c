"""This worker's shares of budgets: escrow for requests, in nano-dollars.

A request takes its bound before it goes out and is settled to its charge, which is never more; the rest is there for
the next one. What is spent for good is reported, what lies idle goes back. A request that only others' reservations
stand in the way of waits up to `BUSY_SECONDS` from its arrival; one that no room can be made for is refused at once.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from swell.gateway.responses import Refusal
from swell.state.budgets import BudgetLimit, Scope
from swell.state.messages import LeaseDeny, LeaseGrant, LeaseReport, LimitBalance
from swell.units import usd_text

if TYPE_CHECKING:
    from swell.gateway.shares import Waiter

BUSY_SECONDS = 2.0
BUSY_RETRY_SECONDS = 1.0  # what a client is told that waited so long in vain
IDLE_TURNS_TO_RETURN = 4  # turns without use after which a share goes back


class BudgetShare:
    """What this worker holds of one budget in one period."""

    __slots__ = (
        "_idle_turns",
        "_kept",
        "_waiters",
        "ask",
        "asked_amount",
        "asked_at",
        "asked_need",
        "balance",
        "denied_until",
        "in_use",
        "last_grant",
        "limit",
        "limit_value",
        "spec",
        "used",
        "used_total",
    )

    def __init__(self, spec: BudgetLimit, ask: "Callable[[BudgetShare, int, int], None]") -> None:
        self.spec = spec
        self.limit = spec.name
        self.limit_value = spec.most_usd_nanos
        self.ask = ask  # for so much, for a request that needs so much
        self.balance = 0
        self.in_use = 0  # bounds of running requests
        self.used = 0  # since the last report
        self.used_total = 0  # before that
        self.last_grant = 0
        self.asked_at = -1.0  # monotonic time of the unanswered ask; negative: none
        self.asked_amount = self.asked_need = 0
        self.denied_until = 0.0
        self._idle_turns = 0
        self._kept: dict[object, int] = {}  # by claim that waits for a share further on
        self._waiters: deque[tuple[Waiter, int]] = deque()

    @property
    def busy_seconds(self) -> float:
        """A request waits so much longer for it than the server takes to answer."""
        return BUSY_SECONDS

    @property
    def is_empty(self) -> bool:
        """Nothing held, nothing under way."""
        return not (self.balance or self.in_use or self.used or self._waiters) and self.asked_at < 0

    def take(self, amount: int) -> bool:
        """Reserve `amount` if it is held. Asks for more in good time."""
        left = self.balance - amount
        if left < 0:
            return False
        self.balance = left
        self.in_use += amount
        if left * 4 < self.last_grant and self.asked_at < 0:
            self.ask(self, 1, 1)
        return True

    def put_back(self, amount: int) -> None:
        """A request that had reserved so much never went out."""
        self.in_use -= amount
        self.balance += amount
        if self._waiters:
            self._wake()

    def settle(self, reserved: int, charge: int) -> None:
        """A request is charged, at most what it had reserved."""
        self.in_use -= reserved
        self.used += charge
        self.balance += reserved - charge
        if self._waiters and charge < reserved:
            self._wake()

    def wait(self, waiter: "Waiter", amount: int) -> None:
        """Call `waiter` when more has arrived, or was denied."""
        self._waiters.append((waiter, amount))
        if self.asked_at < 0:
            self._ask_for(amount)

    def forget(self, waiter: "Waiter") -> None:
        """The request has left."""
        self._waiters = deque(entry for entry in self._waiters if entry[0] is not waiter)

    def keep(self, keeper: object, amount: int) -> None:
        """Hand back no more than leaves `amount`: whoever needs it waits for a share further on."""
        self._kept[keeper] = amount

    def keep_no_more(self, keeper: object) -> None:
        """It has what it waited for, or has given up."""
        self._kept.pop(keeper, None)

    def granted(self, grant: LeaseGrant) -> None:
        """The server gave more."""
        self.asked_at = -1.0
        self.denied_until = 0.0
        self.balance += grant.amount
        self.last_grant = grant.amount
        self._wake()

    def denied(self, deny: LeaseDeny, now: float) -> None:
        """There is no room: for good, or while others' reservations stand."""
        self.asked_at = -1.0
        self.last_grant = 0  # nothing is asked for ahead any more, only what a request needs
        if not deny.is_final:
            self.denied_until = now + deny.retry_after_seconds
            return  # `turn` asks again
        waiting, self._waiters = self._waiters, deque()
        for waiter, amount in waiting:
            if amount >= self.asked_need:
                waiter.share_denied(exceeded(self.spec, deny, amount))
            else:  # who needs less may still get it
                self._waiters.append((waiter, amount))
        if self._waiters:
            self._ask_for(min(amount for _, amount in self._waiters))

    def turn(self, now: float, *, give_all: bool = False) -> LeaseReport | None:
        """Once per report time: what to report and return. Afterwards `ask_again`."""
        if self.denied_until:  # without an answer it is the server that is late, not a reservation
            self._refuse_who_waited(now)
        used, self.used = self.used, 0
        self.used_total += used
        self._idle_turns = 0 if used or self.in_use else self._idle_turns + 1
        # Where it is called back, what those who wait here cannot use goes too: scattered rests would serve nobody.
        gives = give_all or (self._idle_turns >= IDLE_TURNS_TO_RETURN and not self._waiters)
        idle = max(0, self.balance - max(self._kept.values(), default=0)) if gives else 0
        self.balance -= idle
        return LeaseReport(self.limit, used, idle) if used or idle else None

    def ask_again(self, now: float) -> None:
        """For whoever still waits: with what is left after a turn, or the answer would be less than anybody needs."""
        if self._waiters and self.asked_at < 0 and now >= self.denied_until:
            self._ask_for(min(amount for _, amount in self._waiters))

    def state(self, now: float) -> LimitBalance:
        """For a server that has just (re)started or was lost: what is held, and all that was used."""
        self.used_total += self.used
        self.used = 0
        return LimitBalance(self.limit, self.balance + self.in_use, self.used_total)

    def _refuse_who_waited(self, now: float) -> None:
        late = [waiter for waiter, _ in self._waiters if now - waiter.started > BUSY_SECONDS]
        for waiter in late:
            self.forget(waiter)
            waiter.share_denied(busy(self.spec))

    def _ask_for(self, need: int) -> None:
        self.ask(self, max(1, need - self.balance), need)

    def _wake(self) -> None:
        waiting, self._waiters = self._waiters, deque()
        for waiter, _ in waiting:
            waiter.share_arrived()


class Budgets:
    """The limits of one budget that a worker knows of, by period: the current one, and the next in time.

    Slots of a rolling window are known by arithmetic; one that the server has not told of is made, and asked about as
    any other: what is spent must never count for an earlier slot, which would leave the window too soon.
    """

    __slots__ = ("_make", "_shares")

    def __init__(self, shares: Sequence[BudgetShare], make: Callable[[BudgetLimit], BudgetShare]) -> None:
        self._shares = sorted(shares, key=lambda share: share.spec.start_unix_ms)
        self._make = make

    def at(self, unix_ms: int) -> BudgetShare:
        """The share of the period that a moment belongs to, as far as is known."""
        for share in self._shares:
            end = share.spec.end_unix_ms
            if (end is None or unix_ms < end) and (not share.spec.window_ms or share.spec.start_unix_ms <= unix_ms):
                return share
        last = self._shares[-1]
        if last.spec.window_ms:
            last = self._make(last.spec.slot_at(unix_ms))
            self._shares.append(last)
        return last


def exceeded(limit: BudgetLimit, deny: LeaseDeny, amount: int) -> Refusal:
    """429 for a budget that has no room for a request of `amount` however much comes back."""
    retry_after = None if limit.end_unix_ms is None else deny.retry_after_seconds
    if retry_after is not None and not math.isfinite(retry_after):
        retry_after = None  # it needs more than a cap that has fallen
    resets = ""
    if retry_after is not None:
        again = "Enough of it comes back" if limit.window_ms else "It begins anew"
        resets = f" {again} in {duration(retry_after)}."
    return Refusal(
        429,
        f"Of the budget of {amount_of(limit)} for {whose(limit)}{when(limit)} {usd_text(deny.remaining)} is left, and "
        f"this request may cost {usd_text(amount)}.{resets}",
        code="budget_exceeded",
        retry_after_seconds=retry_after,
    )


def never_affordable(limit: BudgetLimit, amount: int) -> Refusal:
    """429 for a request that may cost more than the whole budget."""
    return Refusal(
        429,
        f"This request may cost {usd_text(amount)}, more than the whole budget of {amount_of(limit)} for "
        f"{whose(limit)}; lower max_tokens or shorten the prompt.",
        code="budget_exceeded",
    )


def busy(limit: BudgetLimit) -> Refusal:
    """429 for a budget whose rest other running requests have reserved."""
    return Refusal(
        429,
        f"What is left of the budget of {amount_of(limit)} for {whose(limit)}{when(limit)} is "
        "reserved by running requests; try again shortly, or lower max_tokens.",
        code="budget_reserved",
        retry_after_seconds=BUSY_RETRY_SECONDS,
    )


def amount_of(limit: BudgetLimit) -> str:
    """The amount and its grace, for people."""
    grace = f" and its grace of {usd_text(limit.grace_usd_nanos)}" if limit.grace_usd_nanos else ""
    return f"{usd_text(limit.cap_usd_nanos)}{grace}"


def when(limit: BudgetLimit) -> str:
    """Its period, for people, after a space; nothing where it is given once."""
    if limit.end_unix_ms is None:
        return ""
    return f" ({limit.label})" if limit.window_ms else f" in {limit.label}"


def whose(limit: BudgetLimit) -> str:
    """Whose requests count, and for which model, for people."""
    owner = {Scope.ORGANISATION: "the organisation", Scope.TENANT: f"tenant '{limit.owner}'"}.get(
        Scope(limit.scope), f"key '{limit.owner}'"
    )
    return f"{owner} on model '{limit.model}'" if limit.model else owner


def duration(seconds: float) -> str:
    """A length of time in whole units, for people."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(1, round(seconds))} s"
