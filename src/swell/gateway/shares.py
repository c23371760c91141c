"""This worker's shares of limits that are held across workers.

The server leases; a worker spends what it holds with a subtraction, asks for more before it runs dry,
reports what it used, and hands back what lies idle. Only a request that finds its share empty waits for
the server, and no longer than `lease_seconds`.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from swell.gateway.budget_shares import BudgetShare, amount_of, when, whose
from swell.gateway.responses import Refusal
from swell.state.budgets import BudgetLimit
from swell.state.curbs import THROTTLE_PREFIX
from swell.state.messages import FromWorker, LeaseDeny, LeaseGrant, LeaseReport, LeaseRequest, LimitBalance

REPORT_SECONDS = 0.25  # how often use is reported; also the spacing of asks after a denial
IDLE_TURNS_TO_RETURN = 4  # report turns without use after which a rate share goes back
RECALL_SECONDS = 1.0  # a denial for no longer than this: another worker may be handing its idle share back
RECALL_RETRIES = 2  # asks after such a denial
WINDOW_SECONDS = 60.0
STATED_MS = 86_400_000  # for so long after its period, what was used of a budget is stated to a server

_MEASURES = {
    "requests_per_minute": "requests per minute",
    "tokens_per_minute": "tokens per minute",
    "concurrent_requests": "concurrent requests",
}


_RATE_LINES = b"x-ratelimit-limit-*: %d\r\nx-ratelimit-remaining-*: %d\r\nx-ratelimit-reset-*: 60s\r\n"


class Waiter(Protocol):
    """A request that waits for a share."""

    @property
    def started(self) -> float:
        """When it arrived, monotonic."""

    def share_arrived(self) -> None:
        """Try again to take all shares."""

    def share_denied(self, refusal: Refusal) -> None:
        """Give up."""


class Share:
    """What this worker holds of one limit. Amounts are requests or tokens."""

    __slots__ = (
        "_idle_turns",
        "_kept",
        "_least_balance",
        "_rate_lines",
        "_recent",
        "_waiters",
        "ask",
        "asked_amount",
        "asked_at",
        "balance",
        "budget",
        "denials",
        "denied_at",
        "denied_until",
        "in_use",
        "is_concurrency",
        "is_tokens",
        "last_grant",
        "limit",
        "limit_value",
        "remaining",
        "retry_after_seconds",
        "used",
    )  # fmt: skip

    def __init__(self, limit: str, limit_value: int, ask: Callable[["Share", int], None]) -> None:
        self.limit = limit
        self.limit_value = limit_value
        self.is_concurrency = limit.endswith("concurrent_requests")
        self.is_tokens = limit.endswith("tokens_per_minute")
        self._rate_lines = _RATE_LINES.replace(b"*", b"tokens" if self.is_tokens else b"requests")
        self.ask = ask
        self.budget: BudgetLimit | None = None  # that is throttled by it
        self.balance = 0
        self.used = 0  # since the last report
        self.in_use = 0  # places of running requests; of tokens, the estimates of running requests
        self.remaining = limit_value  # over all workers, when the server last said
        self.last_grant = 0
        self.asked_at = -1.0  # monotonic time of the unanswered ask; negative: none
        self.asked_amount = 0
        self.denied_at = -math.inf  # monotonic, the last time
        self.retry_after_seconds = 0.0  # as was said then
        self.denied_until = 0.0
        self.denials = 0  # in a row
        self._idle_turns = 0
        self._least_balance = 0
        self._kept: dict[object, int] = {}  # by claim that waits for a share further on
        self._recent: deque[tuple[float, int]] = deque()
        self._waiters: deque[tuple[Waiter, int]] = deque()

    @property
    def busy_seconds(self) -> float:
        """A request waits so much longer for it than the server takes to answer."""
        return 0.0

    @property
    def waiting(self) -> int:
        """Requests that wait for it."""
        return len(self._waiters)

    @property
    def rate_headers(self) -> bytes:
        """The x-ratelimit lines of this share."""
        left = self.remaining + self.balance
        value = self.limit_value
        return self._rate_lines % (value, left if 0 <= left <= value else value if left > 0 else 0)

    def take(self, amount: int) -> bool:
        """Spend `amount` if it is held. Asks for more in good time."""
        left = self.balance - amount
        if left < 0:
            return False
        self.balance = left
        if self.is_concurrency:
            self.in_use += amount
            self._least_balance = min(self._least_balance, left)
        else:
            if self.is_tokens:
                self.in_use += amount  # what it really used is reported when it is known: reported use is final
            else:
                self.used += amount
            if left * 4 < self.last_grant and self.asked_at < 0:
                self.ask(self, 1)
        return True

    def put_back(self, amount: int) -> None:
        """A request that was not sent after all; or, for concurrency, one that has ended."""
        if self.is_concurrency or self.is_tokens:
            self.in_use -= amount
        else:
            amount = min(amount, self.used)  # what is reported already stays spent
            self.used -= amount
        self.balance += amount
        if self._waiters:
            self._wake()

    def settle(self, estimate: int, used: int) -> None:
        """A request that had taken `estimate` tokens used `used`, more or less."""
        self.in_use -= estimate
        self.used += used
        self.balance += estimate - used
        if self._waiters and used < estimate:
            self._wake()

    def wait(self, waiter: Waiter, amount: int) -> None:
        """Call `waiter` when more has arrived, or was denied."""
        self._waiters.append((waiter, amount))
        if self.asked_at < 0:
            self.ask(self, max(1, amount - self.balance))

    def keep(self, keeper: object, amount: int) -> None:
        """Hand back no more than leaves `amount`: whoever needs it waits for a share further on."""
        self._kept[keeper] = amount

    def keep_no_more(self, keeper: object) -> None:
        """It has what it waited for, or has given up."""
        self._kept.pop(keeper, None)

    def granted(self, grant: LeaseGrant) -> None:
        """The server gave more."""
        self.asked_at = -1.0
        self.denials = 0
        self.denied_until = 0.0
        self.balance += grant.amount
        self.last_grant = grant.amount
        self.limit_value = grant.limit_value
        self.remaining = grant.remaining
        self._wake()

    def denied(self, deny: LeaseDeny, now: float) -> None:
        """The server has nothing to give."""
        self.asked_at = -1.0
        self.denials += 1
        self.limit_value = deny.limit_value
        self.remaining = 0
        self.denied_at, self.retry_after_seconds = now, deny.retry_after_seconds
        self.denied_until = now + REPORT_SECONDS
        if self._waiters and deny.retry_after_seconds <= RECALL_SECONDS and self.denials <= RECALL_RETRIES:
            return  # `turn` asks again
        self.denials = 0
        refusal = limit_refusal(self, deny.retry_after_seconds)
        denied = self.balance + self.asked_amount  # who needs less may still get it
        waiting, self._waiters = self._waiters, deque()
        for waiter, amount in waiting:
            if amount >= denied:
                waiter.share_denied(refusal)
            else:
                self._waiters.append((waiter, amount))

    def forget(self, waiter: Waiter) -> None:
        """The request has left."""
        self._waiters = deque(entry for entry in self._waiters if entry[0] is not waiter)

    def turn(self, now: float, *, give_all: bool = False) -> LeaseReport | None:
        """Once per `REPORT_SECONDS`: what to report and return. Afterwards `ask_again`."""
        used, self.used = self.used, 0
        spare = max(0, self.balance - max(self._kept.values(), default=0))
        if self.is_concurrency:
            idle = spare if give_all else max(0, min(spare, self._least_balance))
            self._least_balance = self.balance - idle
        else:
            self._idle_turns = 0 if used else self._idle_turns + 1
            gives = give_all or (self._idle_turns >= IDLE_TURNS_TO_RETURN and not self._waiters)
            idle = spare if gives else 0
            if used:
                self._recent.append((now, used))
            while self._recent and self._recent[0][0] < now - WINDOW_SECONDS:
                self._recent.popleft()
        self.balance -= idle
        return LeaseReport(self.limit, used, idle) if used or idle else None

    def ask_again(self, now: float) -> None:
        """For whoever still waits: with what is left after a turn, or the answer would be less than anybody needs."""
        if self._waiters and self.asked_at < 0 and now >= self.denied_until:
            self.ask(self, max(1, min(amount for _, amount in self._waiters) - self.balance))

    def statement(self, now: float) -> LimitBalance:
        """For a server that has just (re)started. `held` is negative where more was used than granted."""
        recent = sum(amount for at, amount in self._recent if at >= now - WINDOW_SECONDS)
        return LimitBalance(self.limit, self.balance + self.in_use, recent + self.used)

    def state(self, now: float) -> LimitBalance:
        """The statement, after which what was used so far counts as reported."""
        statement = self.statement(now)
        if self.used:
            self._recent.append((now, self.used))
            self.used = 0
        return statement

    def _wake(self) -> None:
        waiting, self._waiters = self._waiters, deque()
        for waiter, _ in waiting:
            waiter.share_arrived()


class Shares:
    """All shares of a worker. `send` is None while no server is connected."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._shares: dict[str, Share] = {}
        self._budgets: dict[str, BudgetShare] = {}
        self._over: dict[str, BudgetShare] = {}  # of periods that are over: used, and nothing else
        self.send: Callable[[FromWorker], None] | None = None

    def get(self, limit: str, limit_value: int) -> Share:
        """The share of `limit`, made on first use."""
        share = self._shares.get(limit)
        if share is None:
            share = self._shares[limit] = Share(limit, limit_value, self._ask)
        share.limit_value = limit_value
        return share

    def budget(self, limit: BudgetLimit) -> BudgetShare:
        """The share of a budget in a period, made on first use."""
        share = self._budgets.get(limit.name)
        if share is None:
            share = self._over.pop(limit.name, None) or BudgetShare(limit, self._ask_for_budget)
            self._budgets[limit.name] = share
        share.spec, share.limit_value = limit, limit.most_usd_nanos
        return share

    def _all(self) -> list[Share | BudgetShare]:
        return [*self._shares.values(), *self._budgets.values()]

    def keep_budgets(self, limits: Sequence[BudgetLimit]) -> None:
        """Forget the shares of other budgets and periods that nothing is left of, nor will be asked about again.

        What was used of a budget that is taken out of the file, or whose period a clock that jumped has ended, is
        stated to the server for a day after the period, by the starts of the periods that hold now; what was used of a
        slot of a rolling window while it counts, and up to a day longer.
        """
        kept = {limit.name for limit in limits}
        present: dict[str, int] = {}  # a budget's next period, of which workers are told ahead, may be months away
        for limit in limits:
            present[limit.budget_id] = min(limit.start_unix_ms, present.get(limit.budget_id, limit.start_unix_ms))
        newest = max(present.values(), default=0)
        for name, share in list(self._budgets.items()):
            if name not in kept and share.is_empty:
                del self._budgets[name]
                if share.used_total:
                    self._over[name] = share
        for name, share in list(self._over.items()):
            leaves = share.spec.leaves_unix_ms
            longer = min(share.spec.window_ms, STATED_MS) or STATED_MS
            if leaves is not None and leaves + longer < newest:
                del self._over[name]

    def find(self, limit: str) -> Share | BudgetShare | None:
        """The share of `limit` if there is one."""
        return self._shares.get(limit) or self._budgets.get(limit)

    def turn(self) -> None:
        """Report and return, once per `REPORT_SECONDS`. Without a server, balances just run down."""
        now = self._clock()
        for share in self._all():
            self._turn(share, now)

    def recall(self, limit: str) -> None:
        """Another worker needs `limit`: hand back what is idle at once."""
        share = self.find(limit)
        if share is not None:
            self._turn(share, self._clock(), give_all=True)

    def _turn(self, share: Share | BudgetShare, now: float, *, give_all: bool = False) -> None:
        if self.send is None:
            return
        report = share.turn(now, give_all=give_all)
        if report is not None:
            self.send(report)
        share.ask_again(now)

    def connected(self, send: Callable[[FromWorker], None]) -> tuple[LimitBalance, ...]:
        """A server is there (again): nothing is on the way from it, and this is what is held."""
        self.send = send
        now = self._clock()
        statements: list[LimitBalance] = []
        for share in self._all():
            share.asked_at = -1.0
            statements.append(share.state(now))
        statements += [share.state(now) for share in self._over.values()]
        return tuple(statements)

    def disconnected(self) -> None:
        """The server is gone; asks go nowhere until it is back."""
        self.send = None
        for share in self._all():
            share.asked_at = -1.0

    def _ask(self, share: Share, amount: int) -> None:
        now = self._clock()
        if self.send is not None and now >= share.denied_until:
            share.asked_at = now
            share.asked_amount = amount
            self.send(LeaseRequest(share.limit, amount))

    def _ask_for_budget(self, share: BudgetShare, amount: int, need: int) -> None:
        now = self._clock()
        if self.send is not None and now >= share.denied_until:
            share.asked_at = now
            share.asked_amount, share.asked_need = amount, need
            self.send(LeaseRequest(share.limit, amount, need))


def limit_refusal(share: Share, retry_after_seconds: float) -> Refusal:
    """429 for a limit that is used up."""
    if share.limit.startswith(THROTTLE_PREFIX):
        return Refusal(
            429,
            f"{_throttling(share.budget)} lets {share.limit_value} requests per minute through, since so much of it is "
            f"spent; try again in {max(1, round(retry_after_seconds))} s.",
            code="budget_throttled",
            retry_after_seconds=retry_after_seconds,
        )
    scope, _, rest = share.limit.partition(":")
    name, _, measure = rest.rpartition(":")
    return Refusal(
        429,
        f"The limit of {share.limit_value} {_MEASURES.get(measure, measure)} for {scope} '{name}' is reached; "
        f"try again in {max(1, round(retry_after_seconds))} s.",
        code="rate_limit_exceeded",
        retry_after_seconds=retry_after_seconds,
    )


def _throttling(limit: BudgetLimit | None) -> str:
    if limit is None:
        return "A budget that this request counts against"
    return f"The budget of {amount_of(limit)} for {whose(limit)}{when(limit)}"
