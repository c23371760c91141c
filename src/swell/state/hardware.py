"""What an hour of a machine costs that somebody owns.

    (purchase / (life_years * 8766 h) + watts / 1000 * usd_per_kwh + other_per_year / 8766 h) / utilisation

All of it is exact (fractions of whole numbers) until the end, where it is rounded up to a nano-dollar. Utilisation is
the share of its life in which the machine serves: an hour that it serves also pays for those in which it does not.
"""

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from swell.errors import SpecError
from swell.state.catalogue_rows import Price
from swell.state.price_cells import (
    MAX_USD_PER_HOUR,
    checked_amount,
    checked_text,
    dollars,
    dollars_nanos,
    refusal,
)
from swell.units import NANOS_PER_USD

HOURS_PER_YEAR = 8766  # of 365.25 days
OWN_CLOUD = "own"
_MAX_LIFE_YEARS = 100
_MAX_WATTS = 10_000_000
_MAX_COUNT = 10_000


@dataclass(frozen=True, slots=True)
class OwnedMachine:
    """A machine, what it cost and what it costs to run. All of it is of the whole machine, not of one accelerator."""

    name: str
    accelerator: str
    accelerator_count: int
    purchase_usd_nanos: int
    life_years: Decimal  # over which the purchase is spread
    power_watts: Decimal  # on average over the time in which it runs, cooling included where that is paid for
    usd_nanos_per_kwh: int
    other_usd_nanos_per_year: int = 0  # space, network, service
    utilisation: Decimal = Decimal(1)  # more than 0, at most 1

    @property
    def purchase_share(self) -> Fraction:
        """Nano-dollars an hour for the purchase."""
        return Fraction(self.purchase_usd_nanos) / (Fraction(self.life_years) * HOURS_PER_YEAR)

    @property
    def power_share(self) -> Fraction:
        """Nano-dollars an hour for electricity."""
        return Fraction(self.power_watts) / 1000 * self.usd_nanos_per_kwh

    @property
    def other_share(self) -> Fraction:
        """Nano-dollars an hour for everything else."""
        return Fraction(self.other_usd_nanos_per_year, HOURS_PER_YEAR)

    @property
    def usd_nanos_per_hour(self) -> int:
        """The price of an hour in which it serves, rounded up to a nano-dollar."""
        return math.ceil((self.purchase_share + self.power_share + self.other_share) / Fraction(self.utilisation))

    def price(self, as_of: str) -> Price:
        """The machine as a row of the catalogue, dated `as_of`; the source says how the price came about."""
        source = (
            f"own: {dollars(self.purchase_usd_nanos)} USD over {self.life_years:f} years, {self.power_watts:f} W at "
            f"{dollars(self.usd_nanos_per_kwh)} USD/kWh, {dollars(self.other_usd_nanos_per_year)} USD a year besides, "
            f"in use {(self.utilisation * 100).normalize():f} % of the time"
        )
        return Price(
            as_of,
            OWN_CLOUD,
            self.name,
            self.accelerator,
            self.accelerator_count,
            self.usd_nanos_per_hour,
            source=source,
        )


def owned_machine(
    *,
    name: str,
    accelerator: str,
    count: int,
    purchase_usd: str,
    life_years: str,
    power_watts: str,
    usd_per_kwh: str,
    other_usd_per_year: str = "0",
    utilisation: str = "1",
) -> OwnedMachine:
    """A machine from what a user wrote. SpecError names the field, the value and what is wrong with it."""
    machine = OwnedMachine(
        _text("name", name),
        _text("accelerator", accelerator),
        count,
        _amount("purchase_usd", purchase_usd),
        _number("life_years", life_years, _MAX_LIFE_YEARS, positive=True),
        _number("power_watts", power_watts, _MAX_WATTS),
        _amount("usd_per_kwh", usd_per_kwh),
        _amount("other_usd_per_year", other_usd_per_year),
        _number("utilisation", utilisation, 1, positive=True),
    )
    if not 1 <= count <= _MAX_COUNT:
        raise SpecError("count", f"{count} must be 1 to {_MAX_COUNT}")
    if machine.usd_nanos_per_hour > MAX_USD_PER_HOUR * NANOS_PER_USD:
        raise SpecError("purchase_usd", f"with the rest it comes to more than {MAX_USD_PER_HOUR} dollars an hour")
    return machine


def _text(path: str, text: str) -> str:
    try:
        return checked_text(text)
    except ValueError as error:
        raise SpecError(path, refusal(text, error)) from None


def _amount(path: str, text: str) -> int:
    try:
        return dollars_nanos(text)
    except ValueError as error:
        raise SpecError(path, refusal(text, error)) from None


def _number(path: str, text: str, most: int, *, positive: bool = False) -> Decimal:
    try:
        value = checked_amount(text)
        if value > most or (positive and value == 0):
            raise ValueError(f"must be {'more than 0' if positive else '0 or more'} and at most {most}")
    except ValueError as error:
        raise SpecError(path, refusal(text, error)) from None
    return value
