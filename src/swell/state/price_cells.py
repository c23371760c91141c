"""What may stand in a cell of a table of prices. A ValueError goes on from the value, as in "-1 must be 0 or more"."""

import re
from datetime import date
from decimal import ROUND_CEILING, Decimal, InvalidOperation

from swell.units import NANOS_PER_USD, usd_nanos, usd_text

MAX_USD_PER_HOUR = 100_000  # of one instance; a rack of 72 accelerators is below 1,000
MAX_SPOT_OVER_ON_DEMAND = 100  # published tables have prices in them that nobody pays, such as 700 beside 2.70
_TEXT_CHARACTERS = 500
_MAX_DIGITS = 40
_SHOWN_CHARACTERS = 60
_NANO = Decimal("1e-9")


def checked_text(text: str) -> str:
    """A name or a source: something, on one line, that a terminal can be trusted with."""
    if not text.strip() or len(text) > _TEXT_CHARACTERS:
        raise ValueError(f"must have 1 to {_TEXT_CHARACTERS} characters")
    if not text.isprintable():
        raise ValueError("has control characters in it")
    return text.strip()


def checked_date(text: str) -> str:
    """`2026-09-06`, or what is known of it: `2026-09` or `2026`."""
    try:
        if re.fullmatch(r"[12]\d{3}(-\d\d){0,2}", text, re.ASCII):
            date.fromisoformat(text + "-01-01"[len(text) - 4 :])
            return text
    except ValueError:
        pass
    raise ValueError("is not a date such as 2026-09-06, 2026-09 or 2026")


def checked_amount(text: str) -> Decimal:
    """A number of anything, 0 or more, exactly. Exponents are bounded: working one out could take for ever."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError("is not a number, such as 12.50") from None
    if not value.is_finite():
        raise ValueError("is not a number, such as 12.50")
    if value < 0:
        raise ValueError("must be 0 or more")
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _MAX_DIGITS or len(value.as_tuple().digits) > _MAX_DIGITS:
        raise ValueError(f"has more than {_MAX_DIGITS} digits")
    return value


def dollars_nanos(text: str, *, round_up: bool = False) -> int:
    """Dollars, 0 or more, in nano-dollars. What is finer is refused, or rounded up to the next."""
    try:
        value = checked_amount(text)
    except ValueError as error:
        raise ValueError(str(error).replace("is not a number", "is not an amount in dollars")) from None
    if round_up and value < MAX_USD_PER_HOUR:
        value = value.quantize(_NANO, ROUND_CEILING)
    return usd_nanos(value)


def price_nanos(text: str, *, round_up: bool = False) -> int:
    """Dollars for an hour of an instance, in nano-dollars."""
    nanos = dollars_nanos(text, round_up=round_up)
    if nanos > MAX_USD_PER_HOUR * NANOS_PER_USD:
        raise ValueError(f"is more than {MAX_USD_PER_HOUR} dollars an hour; is it a price of something else?")
    return nanos


def dollars(nanos: int) -> str:
    """The text of an amount of 0 or more, to be read again: all its digits, at least two after the point."""
    return usd_text(nanos).removeprefix("$").replace(",", "")


def spot_problem(on_demand_nanos: int | None, spot_nanos: int | None) -> str | None:
    """What is wrong with a spot price beside an on-demand price; None where nothing is."""
    if on_demand_nanos is None or spot_nanos is None or spot_nanos <= MAX_SPOT_OVER_ON_DEMAND * on_demand_nanos:
        return None
    return f"{dollars(spot_nanos)} is over {MAX_SPOT_OVER_ON_DEMAND} times on-demand, {dollars(on_demand_nanos)}"


def refusal(text: str, error: ValueError) -> str:
    """The sentence about a value that was refused."""
    shown = text[:_SHOWN_CHARACTERS]
    return f"{shown if str(error).startswith('must') and text.isprintable() else repr(shown)} {error}"
