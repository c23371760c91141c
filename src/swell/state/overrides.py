"""Raises of budgets for a while: made by hand, with a reason, and over by themselves."""

import msgspec


class BudgetOverride(msgspec.Struct, frozen=True, kw_only=True):
    """A budget is higher by `by_usd_nanos` from `created_at_unix` until `until_unix`, or until it was ended.

    Scope, owner, model and period are what the budget was called then; `budget_id` says which one it is.
    """

    override_id: str
    budget_id: str
    scope: str
    owner: str
    model: str  # empty: all models
    period: str
    by_usd_nanos: int
    reason: str
    created_by: str
    created_at_unix: float
    until_unix: float
    ended_at_unix: float | None = None

    @property
    def over_at_unix(self) -> float:
        """The first moment at which it does not hold any more."""
        return self.until_unix if self.ended_at_unix is None else min(self.until_unix, self.ended_at_unix)

    def is_in_force(self, at_unix: float) -> bool:
        """Whether it holds at that moment, as far as is known now."""
        return self.created_at_unix <= at_unix < self.over_at_unix
