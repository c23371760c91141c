"""What may be spent: amounts, periods, and what is told before they are used up."""

import difflib
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.clock import LONGEST_ZONE, zone_of
from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, Count, OneOrSeveral, SpecModel, Text
from swell.spec.money import Usd
from swell.spec.steps import BLOCK, STEPS, THROTTLE, Step, parse_step
from swell.spec.thresholds import parse_percent, parse_threshold
from swell.spec.windows import is_rolling, window_hours, window_name
from swell.units import usd_nanos

MAX_BUDGETS = 16  # of one owner
MAX_THRESHOLDS = 20  # of one budget
DEFAULT_THRESHOLDS = ("50%", "80%", "100%", "forecast 100%")
DEFAULT_THROTTLE = 10  # requests per minute of a budget that is throttled
MAX_THROTTLE = 10**6
MAX_GRACE_PERCENT = 100  # of the amount


class BudgetPeriod(StrEnum):
    """When a budget begins anew, by the calendar of its time zone; `once` never does."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"
    ONCE = "once"


_DURATIONS = {"1h": "hour", "60m": "hour", "24h": "day", "1d": "day", "7d": "week", "1w": "week", "1mo": "month"}
_WORDS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "quarterly": "quarter"}
_PERIODS = {**_DURATIONS, **_WORDS, "yearly": "year", "annual": "year", "total": "once"}
_NAMES = tuple(each.value for each in BudgetPeriod)
_LONGEST_NAME = 50  # characters of a mistyped period that are compared


def canonical_period(text: str) -> str:
    """The one name of a period, however it is written. ValueError with a sentence, without the name of the field."""
    if is_rolling(text):
        return window_name(window_hours(text))
    given = text.strip().lower()
    name = _PERIODS.get(given, given)
    if name in _NAMES:
        return name
    near = difflib.get_close_matches(name[:_LONGEST_NAME], _NAMES, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"is not one of {', '.join(_NAMES)}, nor a window such as rolling 24h{hint}")


def _period(value: object) -> str:
    if not isinstance(value, str):
        raise PydanticCustomError("period", "must be a period, such as month or rolling 24h")
    try:
        return canonical_period(value)
    except ValueError as error:
        raise PydanticCustomError("period", "{problem}", {"problem": str(error)}) from None


def _has_no_end(period: object) -> bool:
    """Whether nothing can be forecast for it."""
    return isinstance(period, str) and (is_rolling(period) or _PERIODS.get(period.lower(), period) == BudgetPeriod.ONCE)


Period = Annotated[
    str,
    BeforeValidator(_period),
    WithJsonSchema(
        {"anyOf": [{"enum": list(BudgetPeriod)}, {"type": "string", "pattern": "^rolling [0-9]+ ?[hd]$"}]},
        mode="validation",
    ),
]
"""A calendar's period, `once`, or a rolling window, by its one name."""


def _known_zone(value: str) -> str:
    try:
        return zone_of(value).key
    except ValueError as error:
        raise PydanticCustomError("zone", "{problem}", {"problem": _without_name(error, value)}) from None


def _without_name(error: ValueError, name: str) -> str:
    """Its sentence as it goes on after the value, which stands before it already."""
    return str(error).removeprefix(f"{name[:LONGEST_ZONE]!r} ")


def _calendar_period(value: object) -> object:
    return _PERIODS.get(value.strip().lower(), value) if isinstance(value, str) else value


PeriodName = Annotated[BudgetPeriod, BeforeValidator(_calendar_period)]
"""A calendar's period or `once`, however it is written."""
ZoneName = Annotated[Text, AfterValidator(_known_zone)]
"""A time zone of the IANA database."""


def _threshold(value: str) -> str:
    """The canonical text of a threshold."""
    try:
        return parse_threshold(value).text
    except ValueError as error:
        raise PydanticCustomError("threshold", "{problem}", {"problem": str(error)}) from None


def _grace(value: str) -> str:
    """The canonical text of a share of grace."""
    try:
        return f"{parse_percent(value, MAX_GRACE_PERCENT)}%"
    except ValueError as error:
        raise PydanticCustomError("grace", "{problem}", {"problem": f"{error}; or an amount in grace_usd"}) from None


def _step(value: str) -> str:
    """The canonical text of a step."""
    try:
        return parse_step(value).text
    except ValueError as error:
        raise PydanticCustomError("step", "{problem}", {"problem": str(error)}) from None


def _rising(texts: tuple[str, ...]) -> tuple[str, ...]:
    """In the order of their shares; each may stand once."""
    steps = sorted(map(parse_step, texts))
    names = [step.name for step in steps]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise PydanticCustomError("steps", "{problem}", {"problem": f"has {twice} twice; keep the one that is meant"})
    return tuple(step.text for step in steps)


Ladder = Annotated[
    tuple[Annotated[Text, AfterValidator(_step)], ...],
    Field(max_length=len(STEPS)),
    OneOrSeveral(),
    AfterValidator(_rising),
]
"""One step, or a list of them."""
Thresholds = Annotated[
    tuple[Annotated[Text, AfterValidator(_threshold)], ...],
    Field(max_length=MAX_THRESHOLDS),
    OneOrSeveral(),
    AfterValidator(lambda texts: tuple(dict.fromkeys(texts))),
]
"""One threshold, or a list of them; one that is written twice counts once."""


_AMOUNT_AND_PERIOD = ({"type": "number", "minimum": 0}, {"type": "string"})


class BudgetSpec(SpecModel):
    """What requests may cost in a period. No request is admitted that could carry the sum over the amount."""

    aliases: ClassVar[AliasTable] = {"max_budget": ("usd",), "budget_duration": ("period",), "timezone": ("time_zone",)}
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = _AMOUNT_AND_PERIOD

    usd: Usd = Field(description="The amount, in US dollars.")
    period: Period = Field(
        default=BudgetPeriod.MONTH.value, description="When it begins anew, or a window such as rolling 24h."
    )
    time_zone: Annotated[Text, AfterValidator(_known_zone)] = Field(
        default="UTC", description="Whose calendar the period follows, such as Europe/Berlin."
    )
    model: Text | None = Field(default=None, description="Only requests for this model.")
    alerts: Thresholds = Field(
        default=DEFAULT_THRESHOLDS, description="Shares to alert at, such as 80%, or forecast 100%; [] for none."
    )
    grace_usd: Usd | None = Field(default=None, description="Requests are admitted until so much more is spent.")
    grace: Annotated[Text, AfterValidator(_grace)] | None = Field(
        default=None, description="The same as a share of the amount, such as 5%."
    )

    at_limit: Ladder = Field(
        default=(), description="Steps before requests are refused, such as shed_batch 90%, cheaper_variant, throttle."
    )
    throttle_requests_per_minute: Annotated[Count, Field(ge=1, le=MAX_THROTTLE)] | None = Field(
        default=None, description=f"What the step throttle lets through; {DEFAULT_THROTTLE} without it."
    )

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        if "alerts" not in given and _has_no_end(given.get("period")):
            given["alerts"] = [text for text in DEFAULT_THRESHOLDS if not parse_threshold(text).is_forecast]
        return given

    def conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        if self.grace is not None and self.grace_usd is not None:
            found.append(("grace", "contradicts grace_usd; keep one of them"))
        elif self.grace_usd_nanos > self.usd_nanos:
            found.append(("grace_usd", f"{self.grace_usd} is more than the budget itself; raise usd instead"))
        found += self._useless_steps()
        if self.is_rolling and self.time_zone != "UTC":
            found.append(("time_zone", "is of no use: a rolling window follows no calendar; leave it out"))
        if not _has_no_end(self.period):
            return found
        what = "rolls" if self.is_rolling else "is given once"
        problem = f"needs an end to forecast for, and a budget that {what} has none; take it out"
        return found + [
            (f"alerts[{i}]", f"{text!r} {problem}")
            for i, text in enumerate(self.alerts)
            if parse_threshold(text).is_forecast
        ]

    def _useless_steps(self) -> Iterator[Conflict]:
        most = self.usd_nanos + self.grace_usd_nanos
        for step in self.steps:
            if step.share_percent * self.usd_nanos > most * 100:
                yield "at_limit", f"{step.text!r} is never reached: requests are refused before that; lower it"
        if self.throttle_requests_per_minute is not None and all(step.name != THROTTLE for step in self.steps):
            yield (
                "throttle_requests_per_minute",
                "has no effect without throttle in at_limit; add it, or leave this out",
            )

    @property
    def steps(self) -> tuple[Step, ...]:
        """What begins before requests are refused, in the order of the shares."""
        return tuple(step for step in map(parse_step, self.at_limit) if step.name != BLOCK)

    @property
    def throttled_requests_per_minute(self) -> int:
        """What the step throttle lets through."""
        return self.throttle_requests_per_minute or DEFAULT_THROTTLE

    @classmethod
    def expand(cls, given: object) -> object:
        """`budget: 20` and `budget: $20 / day`."""
        if isinstance(given, str) and "/" in given:
            amount, _, period = given.partition("/")
            return {"usd": amount.strip(), "period": period.strip()}
        return {"usd": given} if isinstance(given, int | float | str) and not isinstance(given, bool) else given

    @property
    def is_rolling(self) -> bool:
        """Whether it counts what was spent in the last hours or days, whenever one looks."""
        return is_rolling(self.period)

    @property
    def usd_nanos(self) -> int:
        """The amount in nano-dollars."""
        return usd_nanos(self.usd)

    @property
    def grace_usd_nanos(self) -> int:
        """What may be spent beyond the amount; a share of it is rounded down."""
        if self.grace is not None:
            return self.usd_nanos * parse_percent(self.grace, MAX_GRACE_PERCENT) // 100
        return 0 if self.grace_usd is None else usd_nanos(self.grace_usd)


def _apart(budgets: tuple[BudgetSpec, ...]) -> tuple[BudgetSpec, ...]:
    seen: set[tuple[str | None, str, str]] = set()
    for budget in budgets:
        what = (budget.model, budget.period, budget.time_zone)
        if what in seen:
            problem = f"has two budgets per {budget.period} for the same requests; keep the one that is meant"
            raise PydanticCustomError("budgets", "{problem}", {"problem": problem})
        seen.add(what)
    return budgets


Budgets = Annotated[
    tuple[BudgetSpec, ...],
    Field(max_length=MAX_BUDGETS),
    OneOrSeveral(),
    AfterValidator(_apart),
]
"""One budget, or a list of them."""


class InfrastructureBudgetSpec(SpecModel):
    """What replicas may cost in a period, whatever requests are charged. No more runs than it pays for."""

    aliases: ClassVar[AliasTable] = {"max_budget": ("usd",), "budget_duration": ("period",), "timezone": ("time_zone",)}
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = _AMOUNT_AND_PERIOD

    usd: Usd = Field(description="The amount, in US dollars.")
    period: Period = Field(default=BudgetPeriod.MONTH.value, description="When it begins anew, by the calendar.")
    time_zone: Annotated[Text, AfterValidator(_known_zone)] = Field(
        default="UTC", description="Whose calendar the period follows, such as Europe/Berlin."
    )
    alerts: Thresholds = Field(
        default=DEFAULT_THRESHOLDS, description="Shares to alert at, such as 80%, or forecast 100%; [] for none."
    )

    @classmethod
    def expand(cls, given: object) -> object:
        """The short forms of `budget`."""
        return BudgetSpec.expand(given)

    def conflicts(self) -> list[Conflict]:
        if not _has_no_end(self.period):
            return []
        periods = ", ".join(name for name in _NAMES if name != BudgetPeriod.ONCE)
        return [("period", f"{self.period} has no end that the money could be made to last to; give one of {periods}")]

    @property
    def usd_nanos(self) -> int:
        """The amount in nano-dollars."""
        return usd_nanos(self.usd)


def _unlike(budgets: tuple[InfrastructureBudgetSpec, ...]) -> tuple[InfrastructureBudgetSpec, ...]:
    seen: set[tuple[str, str]] = set()
    for budget in budgets:
        if (budget.period, budget.time_zone) in seen:
            problem = f"has two budgets per {budget.period} for the same replicas; keep the one that is meant"
            raise PydanticCustomError("budgets", "{problem}", {"problem": problem})
        seen.add((budget.period, budget.time_zone))
    return budgets


InfrastructureBudgets = Annotated[
    tuple[InfrastructureBudgetSpec, ...],
    Field(max_length=MAX_BUDGETS),
    OneOrSeveral(),
    AfterValidator(_unlike),
]
"""One budget of what replicas cost, or a list of them."""


class OrganisationSpec(SpecModel):
    """Everybody who uses this installation."""

    name: Text = "organisation"
    budget: Budgets = Field(default=(), description="What all requests together may cost; one budget, or several.")
    infrastructure_budget: InfrastructureBudgets = Field(
        default=(), description="What the replicas of all models together may cost; one budget, or several."
    )
