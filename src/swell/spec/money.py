"""What tokens cost, and what may be spent. Amounts are decimal dollars as they are written, never binary fractions."""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, ClassVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, SpecModel, Text
from swell.spec.thresholds import parse_threshold
from swell.spec.yaml_text import WrittenFloat
from swell.units import TOKENS_PER_RATE, usd_nanos

MAX_BUDGETS = 16  # of one owner
MAX_THRESHOLDS = 20  # of one budget
DEFAULT_THRESHOLDS = ("50%", "80%", "100%", "forecast 100%")
MAX_USD_PER_MILLION_TOKENS = 10_000
MAX_PRICES = 10_000


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


def _amount(value: object) -> Decimal:
    """Dollars out of a number or a text. What is no plain number of dollars is refused with what it looks like."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal | WrittenFloat):
        if isinstance(value, float):
            raise PydanticCustomError("usd_float", "must be written as a decimal number, such as 12.50")
        raise PydanticCustomError("usd_type", "must be an amount in US dollars, such as 12.50")
    text = value.text if isinstance(value, WrittenFloat) else str(value)
    text = text.strip().replace("_", "")
    if isinstance(value, str):
        stripped = re.sub(r"^(\$|USD|usd)\s*|\s*(USD|usd)$", "", text)
        if re.search(r"[^\d.eE+\-]", stripped):
            raise PydanticCustomError(
                "usd_currency", "must be in US dollars, such as 12.50; no other currency is known"
            )
        text = stripped
    try:
        nanos = usd_nanos(text)
    except ValueError as error:
        raise PydanticCustomError("usd", "{problem}", {"problem": str(error)}) from None
    if nanos < 0:
        raise PydanticCustomError("usd_negative", "is negative; an amount is 0 or more")
    return Decimal(text)


Usd = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}, mode="validation"),
]
"""An amount in US dollars, to the nano-dollar."""


def _rate(value: Decimal) -> Decimal:
    if value > MAX_USD_PER_MILLION_TOKENS:
        problem = f"is more than {MAX_USD_PER_MILLION_TOKENS} dollars per million tokens; is it per thousand tokens?"
        raise PydanticCustomError("rate", "{problem}", {"problem": problem})
    return value


Rate = Annotated[Usd, AfterValidator(_rate)]


class ModelPrice(SpecModel):
    """What the tokens of a model are charged at."""

    aliases: ClassVar[AliasTable] = {
        "prompt": ("usd_per_million_prompt_tokens",),
        "completion": ("usd_per_million_completion_tokens",),
        "input": ("usd_per_million_prompt_tokens",),
        "output": ("usd_per_million_completion_tokens",),
    }

    usd_per_million_prompt_tokens: Rate = Decimal(0)
    usd_per_million_completion_tokens: Rate = Decimal(0)

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        for kind in ("input", "output"):  # LiteLLM's names, in dollars per token
            name = f"{kind}_cost_per_token"
            target = f"usd_per_million_{'prompt' if kind == 'input' else 'completion'}_tokens"
            if name in given and target not in given:
                given[target] = str(_amount(given.pop(name)) * TOKENS_PER_RATE)
        return given

    @property
    def rates(self) -> tuple[int, int]:
        """Nano-dollars per million prompt tokens, and per million completion tokens."""
        return usd_nanos(self.usd_per_million_prompt_tokens), usd_nanos(self.usd_per_million_completion_tokens)

    @property
    def is_free(self) -> bool:
        """Whether its requests cost nothing."""
        return self.rates == (0, 0)


class _Table(dict[str, ModelPrice]):
    """Prices by model, hashable as every part of a spec is. Nobody changes it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


Prices = Annotated[Mapping[str, ModelPrice], Field(max_length=MAX_PRICES), AfterValidator(_Table)]


def _period(value: object) -> object:
    return _PERIODS.get(value.strip().lower(), value) if isinstance(value, str) else value


def _known_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PydanticCustomError("zone", "is no time zone; give one such as UTC or Europe/Berlin") from None
    return value


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _threshold(value: str) -> str:
    """The canonical text of a threshold."""
    try:
        return parse_threshold(value).text
    except ValueError as error:
        raise PydanticCustomError("threshold", "{problem}", {"problem": str(error)}) from None


Thresholds = Annotated[
    tuple[Annotated[Text, AfterValidator(_threshold)], ...],
    Field(max_length=MAX_THRESHOLDS),
    BeforeValidator(_several),
    AfterValidator(lambda texts: tuple(dict.fromkeys(texts))),
]
"""One threshold, or a list of them; one that is written twice counts once."""


class PeriodBudget(SpecModel):
    """An amount for a period of the calendar."""

    aliases: ClassVar[AliasTable] = {"max_budget": ("usd",), "budget_duration": ("period",), "timezone": ("time_zone",)}

    usd: Usd = Field(description="The amount, in US dollars.")
    period: Annotated[BudgetPeriod, BeforeValidator(_period)] = BudgetPeriod.MONTH
    time_zone: Annotated[Text, AfterValidator(_known_zone)] = Field(
        default="UTC", description="Whose calendar the period follows, such as Europe/Berlin."
    )
    alerts: Thresholds = Field(
        default=DEFAULT_THRESHOLDS, description="Shares to alert at, such as 80%, or forecast 100%; [] for none."
    )

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        if "alerts" not in given and _period(given.get("period")) == BudgetPeriod.ONCE:
            given["alerts"] = [text for text in DEFAULT_THRESHOLDS if not parse_threshold(text).is_forecast]
        return given

    def conflicts(self) -> list[Conflict]:
        if self.period is not BudgetPeriod.ONCE:
            return []
        problem = "needs an end to forecast for, and a budget that is given once has none; take it out"
        return [
            (f"alerts[{i}]", f"{text!r} {problem}")
            for i, text in enumerate(self.alerts)
            if parse_threshold(text).is_forecast
        ]

    @classmethod
    def expand(cls, given: object) -> object:
        """`budget: 20` and `budget: $20 / day`."""
        if isinstance(given, str) and "/" in given:
            amount, _, period = given.partition("/")
            return {"usd": amount.strip(), "period": period.strip()}
        return {"usd": given} if isinstance(given, int | float | str) and not isinstance(given, bool) else given

    @property
    def usd_nanos(self) -> int:
        """The amount in nano-dollars."""
        return usd_nanos(self.usd)


class BudgetSpec(PeriodBudget):
    """What requests may cost in a period. No request is admitted that could carry the sum over the amount."""

    model: Text | None = Field(default=None, description="Only requests for this model.")


class InfrastructureBudgetSpec(PeriodBudget):
    """What replicas may cost in a period, whatever requests are charged. No more runs than it pays for."""

    def conflicts(self) -> list[Conflict]:
        if self.period is BudgetPeriod.ONCE:
            periods = ", ".join(period for period in BudgetPeriod if period is not BudgetPeriod.ONCE)
            return [("period", f"once has no end that the money could be made to last to; give one of {periods}")]
        return []


def _apart(budgets: tuple[BudgetSpec, ...]) -> tuple[BudgetSpec, ...]:
    seen: set[tuple[str | None, BudgetPeriod, str]] = set()
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
    BeforeValidator(_several),
    AfterValidator(_apart),
]
"""One budget, or a list of them."""


def _unlike(budgets: tuple[InfrastructureBudgetSpec, ...]) -> tuple[InfrastructureBudgetSpec, ...]:
    seen: set[tuple[BudgetPeriod, str]] = set()
    for budget in budgets:
        if (budget.period, budget.time_zone) in seen:
            problem = f"has two budgets per {budget.period} for the same replicas; keep the one that is meant"
            raise PydanticCustomError("budgets", "{problem}", {"problem": problem})
        seen.add((budget.period, budget.time_zone))
    return budgets


InfrastructureBudgets = Annotated[
    tuple[InfrastructureBudgetSpec, ...],
    Field(max_length=MAX_BUDGETS),
    BeforeValidator(_several),
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
