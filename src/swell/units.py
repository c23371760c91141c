"""Money: integers of nano-dollars (`_usd_nanos`), so that sums are exact. No amount ever passes through a float.

A rate is nano-dollars per million tokens: $0.15 per million is 150,000,000. A charge is rounded up to a whole
nano-dollar once per request.
"""

from decimal import Decimal, InvalidOperation

NANOS_PER_USD = 10**9
TOKENS_PER_RATE = 10**6
_MOST_DIGITS = 100
MAX_USD_NANOS = 2**62  # 4.6 billion dollars: what the ledger's 64-bit sums can hold, with room to add


def usd_nanos(amount: Decimal | str | int) -> int:
    """An amount of dollars in nano-dollars. ValueError where it is no number, too large, or finer than that."""
    try:
        value = Decimal(amount)
    except (InvalidOperation, ValueError):
        raise ValueError("is not an amount in dollars, such as 12.50") from None
    if not value.is_finite():
        raise ValueError("is not an amount in dollars, such as 12.50")
    if abs(value) > MAX_USD_NANOS // NANOS_PER_USD:
        raise ValueError(f"is more than {MAX_USD_NANOS // NANOS_PER_USD} dollars, the most there can be")
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - a finite number's is
    if exponent < -_MOST_DIGITS or len(digits) > _MOST_DIGITS:  # shifting by millions of digits would take for ever
        raise ValueError(f"has more than {_MOST_DIGITS} digits")
    shift = exponent + 9
    whole = int("".join(map(str, digits)) or "0")
    if shift < 0 and whole % 10**-shift:
        raise ValueError("is finer than a nano-dollar (nine digits after the point)")
    nanos = int(whole * 10**shift if shift >= 0 else whole // 10**-shift)
    return -nanos if value.is_signed() else nanos


def usd(nanos: int) -> Decimal:
    """Nano-dollars as dollars, exactly (of sums up to a thousand times MAX_USD_NANOS)."""
    return Decimal(nanos).scaleb(-9)


def usd_text(nanos: int) -> str:
    """Dollars as people read them: two digits after the point at least, and as many as the amount has."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    fraction = f"{nanos % NANOS_PER_USD:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${nanos // NANOS_PER_USD:,}.{fraction}"


def usd_text_at_least(nanos: int) -> str:
    """The same rounded up to a cent, for what is a bound anyway; exact below one."""
    cent = NANOS_PER_USD // 100
    return usd_text(-(-nanos // cent) * cent if nanos > cent else nanos)


def charge_usd_nanos(prompt_tokens: int, completion_tokens: int, prompt_rate: int, completion_rate: int) -> int:
    """What tokens cost at rates in nano-dollars per million, rounded up to a nano-dollar.

    >>> charge_usd_nanos(1000, 200, 150_000_000, 600_000_000)  # $0.15 and $0.60 per million: $0.00027
    270000
    """
    return -(-(prompt_tokens * prompt_rate + completion_tokens * completion_rate) // TOKENS_PER_RATE)
