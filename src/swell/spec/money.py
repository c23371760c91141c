"""What tokens cost. Amounts are decimal dollars as they are written, never binary fractions."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.spec.aliases import AliasTable
from swell.spec.base import SpecModel
from swell.spec.yaml_text import WrittenFloat
from swell.units import TOKENS_PER_RATE, usd_nanos

MAX_USD_PER_MILLION_TOKENS = 10_000
MAX_PRICES = 10_000


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
