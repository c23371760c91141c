"""What tokens cost. Amounts are decimal dollars as they are written, never binary fractions."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from swell.spec.yaml_text import WrittenFloat
from swell.units import usd_nanos

MAX_USD_PER_MILLION_TOKENS = 10_000


def amount_of(value: object) -> Decimal:
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
    BeforeValidator(amount_of),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}, mode="validation"),
]
"""An amount in US dollars, to the nano-dollar."""


def _rate(value: Decimal) -> Decimal:
    if value > MAX_USD_PER_MILLION_TOKENS:
        problem = f"is more than {MAX_USD_PER_MILLION_TOKENS} dollars per million tokens; is it per thousand tokens?"
        raise PydanticCustomError("rate", "{problem}", {"problem": problem})
    return value


Rate = Annotated[Usd, AfterValidator(_rate)]
