"""Money is exact: nothing is rounded on the way in or out, and a charge is rounded up once."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.units import MAX_USD_NANOS, NANOS_PER_USD, charge_usd_nanos, usd, usd_nanos, usd_text

nanos = st.integers(-MAX_USD_NANOS // 2, MAX_USD_NANOS // 2)


@given(amount=nanos)
def test_dollars_come_back_as_they_went_in(amount: int) -> None:
    assert usd_nanos(usd(amount)) == amount
    assert usd_nanos(usd_text(amount).replace("$", "").replace(",", "")) == amount


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12.50", 12_500_000_000), ("0.000000001", 1), ("1e-9", 1), ("-3", -3_000_000_000), ("1E3", 10**12), (0, 0)],
)
def test_amounts_are_read_as_they_are_written(text: str | int, expected: int) -> None:
    assert usd_nanos(text) == expected


@pytest.mark.parametrize(
    "text", ["", "five", "EUR 5", "nan", "inf", "1e-10", "0.0000000001", "1e400", "1e-3000000", "4611686019", "0x10"]
)
def test_what_is_no_amount_is_refused_at_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"dollar|digits"):
        usd_nanos(text)


@given(prompt=st.integers(0, 10**7), completion=st.integers(0, 10**7), rates=st.tuples(*[st.integers(0, 10**13)] * 2))
def test_a_charge_is_rounded_up_to_a_nano_dollar_once(prompt: int, completion: int, rates: tuple[int, int]) -> None:
    exact = Decimal(prompt * rates[0] + completion * rates[1]) / 10**6
    charge = charge_usd_nanos(prompt, completion, *rates)
    assert 0 <= charge - exact < 1
    assert charge <= charge_usd_nanos(prompt + 1, completion, *rates)


def test_a_hundred_million_charges_of_a_nano_dollar_are_ten_cents() -> None:
    assert usd_text(100_000_000) == "$0.10"
    assert usd_text(1_234_567 * NANOS_PER_USD) == "$1,234,567.00"
