"""Budgets as they are enforced: one limit per budget and period.

A rolling budget has no periods. Its window is cut into `SLOTS` slots, aligned at 1970, each of which is a limit of its
own; together they share the cap. Whatever window of that length one looks at lies inside a slot and the SLOTS before
it, so where those never hold more than the cap, no window does. What is spent counts for up to a slot longer.
"""

from collections.abc import Iterator
from enum import StrEnum

import msgspec
from msgspec.structs import replace

SLOTS = 60  # of a rolling window: of 24 hours, each is 24 minutes
LATE_SLOTS = 2  # before the present one that a request may still be of that waited since; a slot is a minute at least


class Scope(StrEnum):
    """Whose requests count."""

    ORGANISATION = "organisation"
    TENANT = "tenant"
    KEY = "key"
    INFRASTRUCTURE = "infrastructure"  # nobody's requests: what replicas cost, of the model that owns it or of all


class BudgetLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a scope may spend in one period, `start_unix_ms` included and `end_unix_ms` not; None never ends.

    A request belongs to the period in which it was admitted. Limits of the same `budget_id` follow one another, or,
    with a `window_ms`, are slots of one rolling window and share the cap.
    """

    name: str  # unique: budget_id and start
    budget_id: str
    scope: str
    owner: str  # the tenant's name or the key's id; empty for the organisation
    cap_usd_nanos: int
    label: str  # the period, for people
    start_unix_ms: int = 0
    end_unix_ms: int | None = None
    model: str = ""  # empty: all models
    grace_usd_nanos: int = 0  # requests are admitted until cap and grace are spent; everything else goes by the cap
    raised_usd_nanos: int = 0  # what of the cap is a raise for a while
    window_ms: int = 0  # length of the rolling window that this is a slot of; 0: it is none

    @property
    def most_usd_nanos(self) -> int:
        """What may be spent at most."""
        return self.cap_usd_nanos + self.grace_usd_nanos

    @property
    def slot_ms(self) -> int:
        """Length of a slot of its rolling window."""
        return self.window_ms // SLOTS

    @property
    def window_start_unix_ms(self) -> int:
        """Where the first slot begins that counts with this one."""
        return self.start_unix_ms - self.window_ms

    @property
    def leaves_unix_ms(self) -> int | None:
        """When what was spent in it counts no more."""
        return None if self.end_unix_ms is None else self.end_unix_ms + self.window_ms

    def contains(self, unix_ms: float) -> bool:
        """Whether a moment is in its period."""
        return self.start_unix_ms <= unix_ms and (self.end_unix_ms is None or unix_ms < self.end_unix_ms)

    def slot_at(self, unix_ms: int) -> "BudgetLimit":
        """The slot of the same rolling window that a moment is in."""
        start = unix_ms // self.slot_ms * self.slot_ms
        return replace(self, name=f"{self.budget_id}:{start}", start_unix_ms=start, end_unix_ms=start + self.slot_ms)

    @property
    def earlier_starts(self) -> range:
        """Where the slots before it begin that count with it, or with a late one, oldest first; none of a period."""
        first = self.window_start_unix_ms - LATE_SLOTS * self.slot_ms
        return range(first, self.start_unix_ms, self.slot_ms or 1)

    def earlier_slots(self) -> Iterator["BudgetLimit"]:
        """Those slots, oldest first."""
        return map(self.slot_at, self.earlier_starts)


class KeyBudget(msgspec.Struct, frozen=True, omit_defaults=True):
    """A budget of one key, as it was given when the key was made: what a spec says of a tenant's."""

    usd_nanos: int
    period: str
    time_zone: str = "UTC"
    model: str = ""
    grace_usd_nanos: int = 0
    at_limit: tuple[str, ...] = ()  # steps as a spec has them, such as `throttle 98%`
    throttle_requests_per_minute: int | None = None

    @property
    def has_stages(self) -> bool:
        """Whether anything begins before requests are refused, or goes on after the amount is spent."""
        return bool(self.at_limit or self.grace_usd_nanos)


class BudgetLease(msgspec.Struct, frozen=True):
    """What a worker may spend of a limit, or has: grants less returns since it began."""

    limit: str
    incarnation: str
    granted_usd_nanos: int


class BudgetSpend(msgspec.Struct, frozen=True):
    """What workers that have ended spent of a limit."""

    limit: str
    spent_usd_nanos: int
