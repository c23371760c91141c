"""Budgets as they are enforced: one limit per budget and period."""

from enum import StrEnum

import msgspec


class Scope(StrEnum):
    """Whose requests count."""

    ORGANISATION = "organisation"
    TENANT = "tenant"
    KEY = "key"
    INFRASTRUCTURE = "infrastructure"  # nobody's requests: what replicas cost, of the model that owns it or of all


class BudgetLimit(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a scope may spend in one period, `start_unix_ms` included and `end_unix_ms` not; None never ends.

    A request belongs to the period in which it was admitted. Limits of the same `budget_id` follow one another.
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


class KeyBudget(msgspec.Struct, frozen=True, omit_defaults=True):
    """A budget of one key, as it was given when the key was made: what a spec says of a tenant's."""

    usd_nanos: int
    period: str
    time_zone: str = "UTC"
    model: str = ""


class BudgetLease(msgspec.Struct, frozen=True):
    """What a worker may spend of a limit, or has: grants less returns since it began."""

    limit: str
    incarnation: str
    granted_usd_nanos: int


class BudgetSpend(msgspec.Struct, frozen=True):
    """What workers that have ended spent of a limit."""

    limit: str
    spent_usd_nanos: int
