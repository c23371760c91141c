"""The lease book: shares of limits that gateway workers may spend without asking.

Pure: `now` is passed in, monotonic seconds. A limit is named `<scope>:<id>:<measure>`. Rates are held over a sliding
window of 60 s in buckets of one second; a bucket counts until all of it is 60 s old, so no window of 60 s, wherever it
begins, ever holds more than the limit. Concurrency is a plain count.

What a worker was granted counts as spent (`held`) until it reports it as used or returned. A report arrives after the
use, so booking it at its arrival keeps it in the window at least as long as it must be. A dead worker's rate shares
are booked as used, its concurrency is free again. A worker that used more than it held owes the difference: its
`held` is negative, and its next grant pays that back first.

Worked example, limit 100, two workers: the first ask (for 1) is granted 100 // 4 = 25, the second 75 // 4 = 18, and
so on down to what is needed, so that a lone worker can have all of it and no worker's first ask takes all.
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swell.state.messages import LimitBalance

WINDOW_SECONDS = 60
RECALL_SECONDS = 1.0  # after this long, what other workers held idle has come back
EXPECT_SECONDS = 10.0  # how long a restarted server waits for workers that it knows to be alive
EXPECT_RETRY_SECONDS = 0.5
UNLIMITED = 2**31 - 1  # `limit_value` and `remaining` of a limit that was lifted

_CONCURRENT = "concurrent_requests"


@dataclass(frozen=True, slots=True)
class Grant:
    """The worker may spend `amount` more. `remaining` is what is left for everyone after it."""

    amount: int
    limit_value: int
    remaining: int


@dataclass(frozen=True, slots=True)
class Deny:
    """No room. `retry_after_seconds` is infinite for an amount above the limit itself.

    `recall` names the workers that hold some of it and may have it idle.
    """

    limit_value: int
    retry_after_seconds: float
    recall: tuple[str, ...]


class _Limit:
    """One limit's value, window and holders."""

    __slots__ = ("buckets", "held", "is_rate", "spent", "spent_by", "value")

    def __init__(self, name: str) -> None:
        self.value: int | None = None
        self.is_rate = not name.endswith(f":{_CONCURRENT}")
        self.held: dict[str, int] = {}
        self.buckets: deque[tuple[int, dict[str, int]]] = deque()  # whole second, use by incarnation
        self.spent = 0
        self.spent_by: dict[str, int] = {}

    def book(self, incarnation: str, amount: int, now: float) -> None:
        """Count `amount` as used by `incarnation` now."""
        if amount <= 0 or not self.is_rate:
            return
        second = math.floor(now)
        if not self.buckets or self.buckets[-1][0] < second:
            self.buckets.append((second, {}))
        uses = self.buckets[-1][1]
        uses[incarnation] = uses.get(incarnation, 0) + amount
        self.spent += amount
        self.spent_by[incarnation] = self.spent_by.get(incarnation, 0) + amount

    def age(self, now: float) -> None:
        """Forget buckets whose last moment is 60 s old."""
        while self.buckets and self.buckets[0][0] + 1 + WINDOW_SECONDS <= now:
            for incarnation, amount in self.buckets.popleft()[1].items():
                self.spent -= amount
                left = self.spent_by[incarnation] - amount
                if left:
                    self.spent_by[incarnation] = left
                else:
                    del self.spent_by[incarnation]

    def hold(self, incarnation: str, amount: int) -> None:
        """Set what `incarnation` holds; negative where it owes."""
        if amount:
            self.held[incarnation] = amount
        else:
            self.held.pop(incarnation, None)

    def outstanding(self) -> int:
        """Granted to all workers and not yet reported."""
        return sum(amount for amount in self.held.values() if amount > 0)

    def seconds_until(self, shortage: int, now: float) -> float:
        """How long until the window alone has freed `shortage`; infinite if it never will."""
        for second, uses in self.buckets:
            shortage -= sum(uses.values())
            if shortage <= 0:
                return second + 1 + WINDOW_SECONDS - now
        return math.inf


class LeaseBook:
    """Grants shares of limits so that their sum never exceeds a limit. The server is its only user."""

    def __init__(self, expected: Iterable[str] = (), expected_until: float = 0.0) -> None:
        """A new book, of a server that (re)started. Until `expected_until` nothing is granted while one of the workers
        that ran before has neither joined nor been accounted for: it spends shares that the book does not know yet."""
        self._limits: dict[str, _Limit] = {}
        self._workers: set[str] = set()
        self._expected = set(expected)
        self._expected_until = expected_until

    def set_limit(self, limit: str, value: int | None) -> None:
        """Set a limit; None lifts it. A lowered one takes effect as shares come back."""
        if value is None and limit not in self._limits:
            return
        self._limit(limit).value = value

    def join(self, incarnation: str, balances: Iterable[LimitBalance], now: float) -> None:
        """A worker connected (again): what it states replaces what the book thought it holds.

        Of what it used in the last minute only the part that the book has not seen is booked.
        """
        self._expected.discard(incarnation)
        self._workers.add(incarnation)
        for entry in self._limits.values():
            entry.held.pop(incarnation, None)
        for balance in balances:
            entry = self._limit(balance.limit)
            entry.age(now)
            entry.hold(incarnation, balance.held)
            entry.book(incarnation, balance.used_last_minute - entry.spent_by.get(incarnation, 0), now)

    def leave(self, incarnation: str, now: float) -> None:
        """The worker's process is gone. Not for a lost connection: a worker without a server goes on spending.

        One that was expected and has not joined stays expected until `account_for` tells what it used.
        """
        self._workers.discard(incarnation)
        for entry in self._limits.values():
            entry.book(incarnation, entry.held.pop(incarnation, 0), now)

    def request(self, incarnation: str, limit: str, amount: int, now: float) -> Grant | Deny:
        """Lease at least `amount` (1 or more) to a worker that has joined."""
        entry = self._limits.get(limit)
        if entry is None or entry.value is None:
            return self._grant_unlimited(entry, incarnation, amount)
        entry.age(now)
        value, held = entry.value, entry.held.get(incarnation, 0)
        debt = max(0, -held)
        room = max(0, value - entry.spent - entry.outstanding())
        recall = tuple(other for other, idle in entry.held.items() if idle > 0 and other != incarnation)
        if amount - debt > value:
            return Deny(value, math.inf, ())
        if self._expected and now < self._expected_until:
            return Deny(value, EXPECT_RETRY_SECONDS, ())
        if amount > room + debt:
            return Deny(value, _retry_after(entry, incarnation, amount - debt - room, now), recall)
        share = room // ((2 if entry.is_rate else 4) * max(1, len(self._workers)))
        granted = min(room + debt, max(amount, share + debt))
        entry.hold(incarnation, held + granted)
        return Grant(granted, value, room + debt - granted)

    def report(self, incarnation: str, limit: str, used: int, returned: int, now: float) -> None:
        """Of what the worker holds, `used` is spent (rates only) and `returned` goes back."""
        entry = self._limits.get(limit)
        if entry is None or incarnation not in self._workers:
            return
        entry.age(now)
        held = entry.held.get(incarnation, 0)
        if entry.is_rate:
            entry.book(incarnation, used, now)
            held -= max(0, used)
        entry.hold(incarnation, held - min(max(0, returned), max(0, held)))

    def account_for(self, incarnation: str, used: Mapping[str, int], now: float) -> None:
        """Book the last minute's use by limit, read from the ledger, of a worker that died without joining this book.

        That is a worker that was expected and left, or one that had died before the server restarted.
        """
        self._expected.discard(incarnation)
        for limit, amount in used.items():
            entry = self._limit(limit)
            entry.age(now)
            entry.book(incarnation, amount - entry.spent_by.get(incarnation, 0), now)

    def remaining(self, limit: str, now: float) -> int | None:
        """What could be granted now; None for no limit."""
        entry = self._limits.get(limit)
        if entry is None or entry.value is None:
            return None
        entry.age(now)
        return max(0, entry.value - entry.spent - entry.outstanding())

    def prune(self, now: float) -> None:
        """Drop limits that were lifted and have nothing outstanding. Call it now and then, to bound memory."""
        for name, entry in list(self._limits.items()):
            entry.age(now)
            if entry.value is None and not entry.held and not entry.buckets:
                del self._limits[name]

    def _limit(self, limit: str) -> _Limit:
        entry = self._limits.get(limit)
        if entry is None:
            entry = self._limits[limit] = _Limit(limit)
        return entry

    @staticmethod
    def _grant_unlimited(entry: _Limit | None, incarnation: str, amount: int) -> Grant:
        if entry is not None:  # keep count: the limit may be set again
            entry.hold(incarnation, entry.held.get(incarnation, 0) + amount)
        return Grant(amount, UNLIMITED, UNLIMITED)


def _retry_after(entry: _Limit, incarnation: str, shortage: int, now: float) -> float:
    """Seconds after which `shortage` more may be free: soon if others may hold it idle, else when the window moves."""
    others = sum(idle for other, idle in entry.held.items() if idle > 0 and other != incarnation)
    if others >= shortage or not entry.is_rate:
        return RECALL_SECONDS
    ages = entry.seconds_until(shortage - others, now)
    return RECALL_SECONDS if math.isinf(ages) else max(RECALL_SECONDS, ages)
