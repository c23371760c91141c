"""The steps of budgets that are nearly used up: which hold now, what workers are told, and what is logged."""

import logging
from collections.abc import Iterable, Sequence

from swell.metering.accounts import Standing
from swell.metering.ladder import steps_now
from swell.server.budget_limits import budgets_of
from swell.spec import Spec
from swell.spec.steps import BLOCK, THROTTLE, Step
from swell.state.curbs import Curb
from swell.state.records import KeyRecord

_log = logging.getLogger(__name__)


class Stages:
    """Made once per server. Only budgets with steps, or with a grace that can be used up, are looked at."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._steps: dict[str, tuple[Step, ...]] = {}  # by budget_id
        self._throttles: dict[str, int] = {}
        self.know((), 0.0)
        self._holding: dict[str, tuple[str, ...]] = {}  # names of steps, by limit; of a rolling budget by its id
        self.curbs: tuple[Curb, ...] = ()

    def know(self, keys: Iterable[KeyRecord], now_unix: float) -> None:
        """From now on these keys' budgets go by their steps as well, as those of the spec do; others' no more."""
        staged = [key for key in keys if any(budget.has_stages for budget in key.limits.budgets)]
        self._steps, self._throttles = {}, {}
        for budget in budgets_of(self._spec, staged, now_unix):
            if budget.spec.steps or budget.spec.grace_usd_nanos:
                self._steps[budget.budget_id] = budget.spec.steps
                self._throttles[budget.budget_id] = budget.spec.throttled_requests_per_minute

    @property
    def budget_ids(self) -> frozenset[str]:
        """The budgets that are looked at."""
        return frozenset(self._steps)

    def look(self, standings: Sequence[Standing], now_unix: float) -> bool:
        """Decide anew, of the limits that hold now; whether there is something to tell the workers."""
        holding: dict[str, tuple[str, ...]] = {}
        curbs = []
        for standing in standings:
            limit = standing.limit
            if limit.budget_id not in self._steps or not limit.contains(now_unix * 1000):
                continue
            name = limit.budget_id if limit.window_ms else limit.name
            before = self._holding.get(name, ())
            steps = steps_now(standing, self._steps[limit.budget_id], before)
            if steps != before:
                reason = f"{', '.join(steps) or 'nothing'} holds, after {', '.join(before) or 'nothing'}"
                _log.info("the steps of a budget changed", extra={"limit": limit.name, "reason": reason})
            if steps:
                holding[name] = steps
            told = tuple(step for step in steps if step != BLOCK)
            if told:
                rate = self._throttles[limit.budget_id] if THROTTLE in told else 0
                resets = standing.frees_unix_ms if limit.window_ms else limit.end_unix_ms
                curbs.append(Curb(limit, told, rate, resets))
        self._holding = holding
        changed, self.curbs = self.curbs != tuple(curbs), tuple(curbs)
        return changed

    def holding(self, standing: Standing) -> tuple[str, ...]:
        """The names of the steps that hold for a limit, the furthest last."""
        limit = standing.limit
        return self._holding.get(limit.budget_id if limit.window_ms else limit.name, ())
