"""What tokens of a model are charged at: rates that are written down, or rates that follow from what replicas cost."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, Count, LocalPath, SpecModel, Switch
from swell.spec.budgets import BudgetPeriod, PeriodName, ZoneName
from swell.spec.money import Rate, amount_of
from swell.spec.yaml_text import WrittenFloat
from swell.units import TOKENS_PER_RATE, usd_nanos

MAX_PRICES = 10_000
MAX_MARKUP_PERCENT = 1000
POSTED = "posted"
FIXED_FIELDS = ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens")


def _number(value: object) -> Decimal:
    """A decimal as it is written, never through a binary fraction."""
    text = value.text if isinstance(value, WrittenFloat) else value
    try:
        if isinstance(text, bool) or not isinstance(text, int | str | Decimal):
            raise ValueError
        number = Decimal(str(text).strip().removesuffix("%").strip())
    except (InvalidOperation, ValueError):
        raise PydanticCustomError("number", "must be a decimal number, such as 12.5") from None
    if not number.is_finite() or number != round(number, 4):
        raise PydanticCustomError("number", "must be a decimal number with at most four digits after the point")
    return number


def _number_between(low: Decimal, high: int, unit: str) -> AfterValidator:
    def check(value: Decimal) -> Decimal:
        if not low <= value <= high:
            problem = f"must be from {low} to {high}{unit}"
            raise PydanticCustomError("bounds", "{problem}", {"problem": problem})
        return value

    return AfterValidator(check)


_Number = Annotated[
    Decimal,
    BeforeValidator(_number),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%?\s*$"}]}, mode="validation"
    ),
]
_LEAST_UTILISATION = Decimal("0.0001")


def _recurring(value: BudgetPeriod) -> BudgetPeriod:
    if value is BudgetPeriod.ONCE:
        raise PydanticCustomError(
            "once", "never ends, so that no rate would ever follow; name hour, day, week or month"
        )
    return value


class PostedPrice(SpecModel):
    """A rate that is posted for a period before it begins, from what the replicas cost in the time before."""

    aliases: ClassVar[AliasTable] = {"timezone": ("time_zone",), "markup": ("markup_percent",)}
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = ({"const": True},)

    period: Annotated[PeriodName, AfterValidator(_recurring)] = Field(
        default=BudgetPeriod.MONTH, description="How long a rate stands, by the calendar."
    )
    time_zone: ZoneName = Field(default="UTC", description="Whose calendar the period follows, such as Europe/Berlin.")
    markup_percent: Annotated[_Number, _number_between(Decimal(0), MAX_MARKUP_PERCENT, " percent")] = Field(
        default=Decimal(0), description="What is charged on top of the cost."
    )
    include_unused: Switch = Field(
        default=True, description="Whether what replicas cost while they start and idle is charged too."
    )
    recover: Switch = Field(
        default=True, description="Whether what charges missed of the cost, or were beyond it, goes into the next rate."
    )
    utilisation: Annotated[_Number, _number_between(_LEAST_UTILISATION, 1, ", such as 0.5")] = Field(
        default=Decimal("0.5"), description="Share of a replica's capacity that the first rate counts on."
    )
    expected_prompt_tokens: Annotated[Count, Field(ge=1, le=10_000_000)] = Field(
        default=1000, description="Of a request, for the first rate."
    )
    expected_completion_tokens: Annotated[Count, Field(ge=1, le=10_000_000)] = Field(
        default=200, description="Of a request, for the first rate."
    )
    tokens_per_second: Annotated[Count, Field(ge=1, le=10_000_000)] | None = Field(
        default=None,
        description="Completion tokens that one replica makes at capacity, for the first rate without a profile.",
    )
    profiles: LocalPath | None = Field(
        default=None, description="File with your own latency profiles, besides those that ship."
    )
    max_usd_per_million_tokens: Rate = Field(
        default=Decimal(1000), description="No rate is more, whatever the replicas cost."
    )

    @classmethod
    def expand(cls, given: object) -> object:
        """`posted: true`."""
        return {} if given is True else given

    @property
    def markup_ppm(self) -> int:
        """Millionths of the cost."""
        return int(self.markup_percent * 10_000)

    @property
    def utilisation_ppm(self) -> int:
        """Millionths."""
        return int(self.utilisation * 1_000_000)

    @property
    def max_rate(self) -> int:
        """Nano-dollars per million tokens."""
        return usd_nanos(self.max_usd_per_million_tokens)


class ModelPrice(SpecModel):
    """What the tokens of a model are charged at."""

    aliases: ClassVar[AliasTable] = {
        "prompt": ("usd_per_million_prompt_tokens",),
        "completion": ("usd_per_million_completion_tokens",),
        "input": ("usd_per_million_prompt_tokens",),
        "output": ("usd_per_million_completion_tokens",),
    }
    short_forms: ClassVar[tuple[dict[str, Any], ...]] = ({"const": POSTED},)

    usd_per_million_prompt_tokens: Rate = Decimal(0)
    usd_per_million_completion_tokens: Rate = Decimal(0)
    posted: PostedPrice | None = Field(
        default=None, description="Rates for each period that follow from what replicas cost, in place of fixed ones."
    )

    @classmethod
    def expand(cls, given: object) -> object:
        """`chat: posted`."""
        return {POSTED: {}} if given == POSTED else given

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        for kind in ("input", "output"):  # LiteLLM's names, in dollars per token
            name = f"{kind}_cost_per_token"
            target = f"usd_per_million_{'prompt' if kind == 'input' else 'completion'}_tokens"
            if name in given and target not in given:
                given[target] = str(amount_of(given.pop(name)) * TOKENS_PER_RATE)
        return given

    def conflicts(self) -> list[Conflict]:
        fixed = [name for name in FIXED_FIELDS if name in self.model_fields_set]
        if self.posted is None or not fixed:
            return []
        return [(POSTED, f"contradicts {fixed[0]}: a rate is either fixed or follows from the cost; keep one of them")]

    @property
    def rates(self) -> tuple[int, int]:
        """Nano-dollars per million prompt tokens, and per million completion tokens; of a fixed price."""
        return usd_nanos(self.usd_per_million_prompt_tokens), usd_nanos(self.usd_per_million_completion_tokens)

    @property
    def is_free(self) -> bool:
        """Whether its requests cost nothing."""
        return self.posted is None and self.rates == (0, 0)


class _Table(dict[str, ModelPrice]):
    """Prices by model, hashable as every part of a spec is. Nobody changes it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


Prices = Annotated[Mapping[str, ModelPrice], Field(max_length=MAX_PRICES), AfterValidator(_Table)]
