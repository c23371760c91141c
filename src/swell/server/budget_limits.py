"""From the budgets that are declared to the limits that hold: one for each budget and period. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from swell.metering.budgets import PREFIX
from swell.metering.periods import Period, following, period_at, zone_of
from swell.server.administration import key_budgets, limits_problem
from swell.spec import Spec
from swell.spec.budgets import BudgetSpec
from swell.spec.thresholds import Threshold, parse_threshold
from swell.spec.windows import window_hours
from swell.state.budgets import SLOTS, BudgetLimit, Scope
from swell.state.overrides import BudgetOverride
from swell.state.records import KeyRecord

_HOUR_SECONDS = 3600


class Budget(NamedTuple):
    """One budget of somebody."""

    scope: Scope
    owner: str
    spec: BudgetSpec

    @property
    def budget_id(self) -> str:
        """What its limits have in common, whatever their period."""
        spec = self.spec
        return f"{PREFIX}{self.scope}:{self.owner}:{spec.model or '*'}:{spec.period}:{spec.time_zone}"


def budgets_of(spec: Spec, keys: Iterable[KeyRecord] = (), now_unix: float = 0.0) -> Iterator[Budget]:
    """Every budget of the spec, and of the keys that are live."""
    for budget in spec.organisation.budget:
        yield Budget(Scope.ORGANISATION, "", budget)
    for tenant in spec.tenants:
        for budget in tenant.budget:
            yield Budget(Scope.TENANT, tenant.name, budget)
    for key in keys:
        if _has_budgets(key, now_unix):
            for budget in key_budgets(key.limits.budgets):
                yield Budget(Scope.KEY, key.key_id, budget)


def limits_at(
    spec: Spec, now_unix: float, keys: Iterable[KeyRecord] = (), overrides: Iterable[BudgetOverride] = ()
) -> tuple[BudgetLimit, ...]:
    """Every budget of spec and live keys in the period of `now_unix`, and in the next: workers are told ahead."""
    raises: dict[str, list[BudgetOverride]] = {}
    for override in overrides:
        raises.setdefault(override.budget_id, []).append(override)
    limits: list[BudgetLimit] = []
    for budget in budgets_of(spec, keys, now_unix):
        known = raises.get(budget.budget_id, ())
        limits += (_limit(budget, period, now_unix, known) for period in _periods(budget.spec, now_unix))
    return tuple(limits)


def changes_at(limits: Iterable[BudgetLimit], overrides: Iterable[BudgetOverride], now_unix: float) -> float:
    """The next moment at which `limits_at` says something else of the same spec and keys; infinite if never."""
    moments = [each / 1000 for limit in limits for each in (limit.start_unix_ms, limit.end_unix_ms) if each is not None]
    moments += [override.over_at_unix for override in overrides]
    return min((moment for moment in moments if moment > now_unix), default=math.inf)


def thresholds_by_budget(spec: Spec) -> dict[str, tuple[Threshold, ...]]:
    """What to alert at, by `BudgetLimit.budget_id`."""
    return {budget.budget_id: tuple(map(parse_threshold, budget.spec.alerts)) for budget in budgets_of(spec)}


def _has_budgets(key: KeyRecord, now_unix: float) -> bool:
    return bool(key.limits.budgets) and key.is_live(now_unix) and not limits_problem(key.limits)


def _periods(budget: BudgetSpec, now_unix: float) -> list[Period]:
    if budget.is_rolling:
        slot = window_hours(budget.period) * _HOUR_SECONDS // SLOTS
        start = int(now_unix) // slot * slot
        return [Period(float(at), float(at + slot), budget.period) for at in (start, start + slot)]
    zone = zone_of(budget.time_zone)
    current = period_at(budget.period, zone, now_unix)
    after = following(budget.period, zone, current)
    return [current] if after is None else [current, after]


def _limit(budget: Budget, period: Period, now_unix: float, raises: Sequence[BudgetOverride]) -> BudgetLimit:
    spec, start = budget.spec, round(period.start_unix * 1000)
    at = max(now_unix, period.start_unix)  # of a period to come: what will hold when it begins
    raised = sum(override.by_usd_nanos for override in raises if override.is_in_force(at))
    return BudgetLimit(
        name=f"{budget.budget_id}:{start}",
        budget_id=budget.budget_id,
        scope=budget.scope.value,
        owner=budget.owner,
        cap_usd_nanos=spec.usd_nanos + raised,
        label=period.label,
        start_unix_ms=start,
        end_unix_ms=None if period.end_unix is None else round(period.end_unix * 1000),
        model=spec.model or "",
        grace_usd_nanos=spec.grace_usd_nanos,
        raised_usd_nanos=raised,
        window_ms=window_hours(spec.period) * _HOUR_SECONDS * 1000 if spec.is_rolling else 0,
    )
