"""A tenant's statement: what its requests of a period came to, by model and rate and by day, and how its budgets stand.

Pure. Everything comes from the same reads of the ledger, one a day, so that the sums by model and by day agree.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from swell.metering.periods import Period, period_at
from swell.metering.reports import NOTHING, Ask, Sums, added, slices, sums_of
from swell.spec.windows import is_rolling, window_hours
from swell.state.overrides import BudgetOverride
from swell.state.records import UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import GroupColumn

Rated = tuple[str, int, int]
"""A model, and its rates for prompt and completion in nano-dollars per million tokens."""
_BY: tuple[GroupColumn, ...] = ("model", "status", "prompt_rate", "completion_rate")


@dataclass(frozen=True, slots=True)
class BudgetTerm:
    """A budget as it is configured. Without a model it is for all of them."""

    kind: str  # of swell.metering.periods, or a rolling window
    zone: ZoneInfo
    cap_usd_nanos: int
    model: str = ""
    grace_usd_nanos: int = 0
    raises: tuple[BudgetOverride, ...] = ()


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """What was spent of a budget in its own period, the one in which the statement's ends. Bounds count."""

    term: BudgetTerm
    label: str
    spent_usd_nanos: int
    raised_usd_nanos: int = 0  # by raises that held then

    @property
    def cap_usd_nanos(self) -> int:
        """The amount as it was raised, without its grace."""
        return self.term.cap_usd_nanos + self.raised_usd_nanos

    @property
    def left_usd_nanos(self) -> int:
        """Of the amount and its grace. Negative where the budget was lowered, or set up, after more was spent."""
        return self.cap_usd_nanos + self.term.grace_usd_nanos - self.spent_usd_nanos


@dataclass(slots=True)
class Statement:
    """The figures. Void requests are apart in every sum; `open_sums` are those that count at their bound."""

    organisation: str
    tenant: str
    period: Period
    zone: ZoneInfo
    made_at_unix: float
    budgets: list[BudgetStanding] = field(default_factory=list)
    models: dict[Rated, Sums] = field(default_factory=dict)
    days: dict[str, Sums] = field(default_factory=dict)
    day_models: dict[tuple[str, str], Sums] = field(default_factory=dict)
    open_sums: Sums = NOTHING

    @property
    def total(self) -> Sums:
        """Of all models and days."""
        whole = NOTHING
        for sums in self.days.values():
            whole = added(whole, sums)
        return whole

    @property
    def is_over(self) -> bool:
        """Whether no request can be added to the period any more."""
        return self.period.end_unix is not None and self.period.end_unix <= self.made_at_unix


def statement(
    ask: Ask,
    *,
    organisation: str,
    tenant: str,
    period: Period,
    zone: ZoneInfo,
    span_ms: tuple[int, int] | None,
    terms: Iterable[BudgetTerm],
    now_unix: float,
) -> Statement:
    """The statement of `tenant`. `ask` is the ledger's `group_usage`."""
    made = Statement(organisation, tenant, period, zone, now_unix)
    for part in slices(period, zone, span_ms):
        where = UsageFilter(tenant=tenant, since_unix_ms=part.start_unix_ms, until_unix_ms=part.end_unix_ms)
        for group in ask(where, _BY, None):
            model, sums = group.model or "", sums_of(group)
            rated = (model, group.prompt_rate or 0, group.completion_rate or 0)
            made.models[rated] = added(made.models.get(rated, NOTHING), sums)
            made.days[part.label] = added(made.days.get(part.label, NOTHING), sums)
            place = (part.label, model)
            made.day_models[place] = added(made.day_models.get(place, NOTHING), sums)
            if group.status == UsageStatus.RESERVED:
                made.open_sums = added(made.open_sums, sums)
    made.models = dict(sorted(made.models.items()))
    made.budgets = [_standing(ask, made, term) for term in terms]
    return made


def _period_of(term: BudgetTerm, made: Statement) -> Period:
    """The budget's period in which the statement's ends, or that of now; of a rolling one the window up to then."""
    end = made.period.end_unix
    if is_rolling(term.kind):
        until = made.made_at_unix if end is None else min(made.made_at_unix, end)
        return Period(until - window_hours(term.kind) * 3600, until, term.kind)
    at = made.made_at_unix if end is None else min(made.made_at_unix, end - 1)
    return period_at(term.kind, term.zone, max(made.period.start_unix, at))


def _standing(ask: Ask, made: Statement, term: BudgetTerm) -> BudgetStanding:
    period = _period_of(term, made)
    where = UsageFilter(
        tenant=made.tenant,
        model=term.model or None,
        since_unix_ms=round(period.start_unix * 1000),
        until_unix_ms=None if period.end_unix is None else round(period.end_unix * 1000),
    )
    spent = sum(group.charge_usd_nanos for group in ask(where, (), None))
    return BudgetStanding(term, period.label, spent, _raised(term, made))


def _raised(term: BudgetTerm, made: Statement) -> int:
    """By how much, at the last moment of the statement's period, or now: a credit ends with its period."""
    end = made.period.end_unix
    at = made.made_at_unix if end is None else min(made.made_at_unix, end - 1)
    return sum(each.by_usd_nanos for each in term.raises if each.is_in_force(at))
