"""What holds for requests while a budget that they count against is nearly used up. No safety depends on it."""

import msgspec

from swell.state.budgets import BudgetLimit

THROTTLE_PREFIX = "throttle:"  # of the names of the rate limits of throttled budgets


class Curb(msgspec.Struct, frozen=True, omit_defaults=True):
    """The steps that hold for the requests that count against `limit`; of a rolling budget, its present slot."""

    limit: BudgetLimit
    steps: tuple[str, ...]
    requests_per_minute: int = 0  # with the step `throttle`, over all requests that count
    resets_unix_ms: int | None = None  # when a period ends, or a rolling window begins to give back; None: never

    @property
    def throttle_limit(self) -> str:
        """The name of its rate limit, as leases know it."""
        return f"{THROTTLE_PREFIX}{self.limit.budget_id}:requests_per_minute"
