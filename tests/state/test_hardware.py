"""What an hour of an owned machine costs, to the nano-dollar, and what is refused."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.errors import SpecError
from swell.state.catalogue import add_prices, cheapest, load_prices
from swell.state.hardware import owned_machine
from swell.units import usd

GIVEN: dict[str, Any] = {
    "name": "rack1", "accelerator": "H100", "count": 8, "purchase_usd": "250000", "life_years": "5",
    "power_watts": "8000", "usd_per_kwh": "0.12", "other_usd_per_year": "12000", "utilisation": "0.8",
}  # fmt: skip


def test_the_price_is_what_the_formula_says() -> None:
    machine = owned_machine(**GIVEN)
    # 250000 / 43830 + 8 * 0.12 + 12000 / 8766 = 8.0327812…, over 0.8 = 10.0409765000…
    assert machine.usd_nanos_per_hour == 10_040_976_501
    assert [round(share) for share in (machine.purchase_share, machine.power_share, machine.other_share)] == [
        5_703_855_807, 960_000_000, 1_368_925_394,
    ]  # fmt: skip


def test_without_other_costs_and_always_in_use() -> None:
    plain = {key: value for key, value in GIVEN.items() if key not in ("other_usd_per_year", "utilisation")}
    machine = owned_machine(**{**plain, "purchase_usd": "8766", "life_years": "1", "power_watts": "500"})
    assert machine.usd_nanos_per_hour == 1_060_000_000
    assert owned_machine(**{**plain, "purchase_usd": "0", "power_watts": "0"}).usd_nanos_per_hour == 0


def test_a_rest_is_rounded_up() -> None:
    machine = owned_machine(
        **{**GIVEN, "purchase_usd": "0", "power_watts": "0", "other_usd_per_year": "0.000000001", "utilisation": "1"}
    )
    assert machine.usd_nanos_per_hour == 1


dollars = st.decimals(0, 10**7, allow_nan=False, places=9)


@given(
    purchase=dollars, life=st.decimals("0.1", 50, places=3), watts=st.decimals(0, 10**5, places=2),
    kwh=st.decimals(0, 2, places=9), other=dollars, used=st.decimals("0.05", 1, places=4),
)  # fmt: skip
def test_no_less_than_the_exact_price_and_under_a_nano_dollar_more(
    purchase: Decimal, life: Decimal, watts: Decimal, kwh: Decimal, other: Decimal, used: Decimal
) -> None:
    amounts = {"purchase_usd": purchase, "life_years": life, "power_watts": watts, "usd_per_kwh": kwh,
               "other_usd_per_year": other, "utilisation": used}  # fmt: skip
    texts = {key: f"{value:f}" for key, value in amounts.items()}
    exact = Fraction(purchase) / Fraction(life) / 8766 + Fraction(watts) * Fraction(kwh) / 1000 + Fraction(other) / 8766
    nanos = exact * 10**9 / Fraction(used)
    if nanos > 10**14:  # the most that an hour may cost
        with pytest.raises(SpecError, match="more than 100000 dollars an hour"):
            owned_machine(**{**GIVEN, **texts})
        return
    found = owned_machine(**{**GIVEN, **texts}).usd_nanos_per_hour
    assert 0 <= found - nanos < 1


def test_the_row_says_how_its_price_came_about_and_is_planned_with(tmp_path: Path) -> None:
    price = owned_machine(**GIVEN).price("2026-11-30")
    assert (price.cloud, price.instance, price.accelerator, price.accelerator_count) == ("own", "rack1", "H100", 8)
    assert (price.region, price.zone, price.spot_usd_nanos_per_hour) == ("", "", None)
    for said in ("250000.00 USD over 5 years", "8000 W at 0.12 USD/kWh", "12000.00 USD a year", "80 % of the time"):
        assert said in price.source
    path = tmp_path / "own.csv"
    assert add_prices(path, [price]) == 0
    read = load_prices(path)
    assert price in read
    assert cheapest("H100", 8, among=read) == price
    assert usd(price.on_demand_usd_nanos_per_hour or 0) == Decimal("10.040976501")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("purchase_usd", "EUR 5", "purchase_usd: 'EUR 5' is not an amount in dollars, such as 12.50"),
        ("purchase_usd", "€5", "is not an amount in dollars"),
        ("purchase_usd", "$5", "is not an amount in dollars"),
        ("purchase_usd", "250,000", "is not an amount in dollars"),
        ("purchase_usd", "", "'' is not an amount in dollars"),
        ("purchase_usd", "-1", "purchase_usd: -1 must be 0 or more"),
        ("purchase_usd", "1e12", "the most there can be"),
        ("purchase_usd", "1e-999999999", "has more than 40 digits"),
        ("purchase_usd", "1e999999999", "has more than 40 digits"),
        ("usd_per_kwh", "nan", "usd_per_kwh: 'nan' is not an amount"),
        ("usd_per_kwh", "0.0000000001", "finer than a nano-dollar"),
        ("other_usd_per_year", "inf", "other_usd_per_year: 'inf' is not an amount"),
        ("life_years", "0", "life_years: 0 must be more than 0 and at most 100"),
        ("life_years", "-2", "life_years: -2 must be 0 or more"),
        ("life_years", "five", "life_years: 'five' is not a number"),
        ("life_years", "1e-9", "purchase_usd: with the rest it comes to more than 100000 dollars an hour"),
        ("power_watts", "-1", "power_watts: -1 must be 0 or more"),
        ("power_watts", "1e9", "power_watts: 1e9 must be 0 or more and at most 10000000"),
        ("utilisation", "0", "utilisation: 0 must be more than 0"),
        ("utilisation", "1.01", "utilisation: 1.01 must be more than 0 and at most 1"),
        ("name", " ", "name: "),
        ("name", "a\x1b[31m", "has control characters"),
        ("accelerator", "", "accelerator: "),
        ("count", 0, "count: 0 must be 1 to 10000"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(field: str, value: object, said: str) -> None:
    with pytest.raises(SpecError) as refused:
        owned_machine(**{**GIVEN, field: value})
    assert said in refused.value.message
