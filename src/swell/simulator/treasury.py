"""An infrastructure budget in a replay: so much per so many seconds, counted from the trace's beginning.

Amounts are whole nano-dollars, and each replica's time is rounded up to a millisecond: what is counted is never less
than the bill.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from math import ceil

from swell.errors import UserError
from swell.policy.scaling.spending import cost
from swell.simulator.fleet import SimReplica
from swell.state.funding import Fund, Funding, Tariff
from swell.state.scaling import Pool
from swell.units import NANOS_PER_USD, usd_nanos

PERIODS = {"hour": 3600.0, "day": 86_400.0, "week": 604_800.0}
DRAIN_SECONDS = 600.0  # as live without another setting: what drains longer is cut
LATE_SECONDS = 1.0  # of a turn: in a replay none is late


@dataclass(frozen=True)
class SimBudget:
    """So much per period."""

    usd_nanos: int
    period: str

    @property
    def seconds(self) -> float:
        """Of a period."""
        return PERIODS[self.period]

    @classmethod
    def parse(cls, text: str) -> "SimBudget":
        """`300 / week`. UserError where it is nothing of the kind."""
        amount, _, period = (part.strip() for part in text.partition("/"))
        try:
            nanos = usd_nanos(re.sub(r"^\$\s*", "", amount))
        except ValueError as error:
            raise UserError(f"--budget {text!r}: {amount!r} {error}; write it as '300 / week'") from None
        if nanos < 0:
            raise UserError(f"--budget {text!r} is negative; an amount is 0 or more")
        if period not in PERIODS:
            raise UserError(f"--budget {text!r}: give it per {', '.join(PERIODS)}, such as '300 / week'")
        return cls(nanos, period)


class Treasury:
    """What was spent in each period, and what is left for the policy."""

    def __init__(
        self, budget: SimBudget, pools: Iterable[Pool], turn_seconds: float, minimum_seconds: float = 0.0
    ) -> None:
        self._budget = budget
        self._tariff = tariff_of(pools, turn_seconds, minimum_seconds)
        self._ended: dict[int, int] = defaultdict(int)  # by period

    def ended(self, replica: SimReplica, now: float) -> None:
        """A replica is gone: it is billed from its order to now, and for the minimum."""
        for period, nanos in self._billed(replica, max(now, replica.ordered_at + self._tariff.minimum_seconds)):
            self._ended[period] += nanos

    def funding(self, now: float, running: Iterable[SimReplica]) -> Funding:
        """What is left by now."""
        seconds, cap = self._budget.seconds, self._budget.usd_nanos
        period = int(now // seconds)
        spent, rate = self._ended[period], 0
        for replica in running:
            rate += self._tariff.price(replica.pool.name)
            spent += sum(nanos for at, nanos in self._billed(replica, now) if at == period)
        left = cap - spent
        fund = Fund(
            name=f"the budget of this {self._budget.period}",
            cap_usd_nanos=cap,
            left_usd_nanos=left,
            next_usd_nanos=cap,
            share_usd_nanos=left,
            ends_in_seconds=(period + 1) * seconds - now,
        )
        return Funding((fund,), self._tariff, rate)

    def by_period(self) -> tuple[int, ...]:
        """Nano-dollars of every period, once all replicas have ended."""
        return tuple(self._ended[period] for period in range(max(self._ended, default=-1) + 1))

    def _billed(self, replica: SimReplica, now: float) -> list[tuple[int, int]]:
        seconds = self._budget.seconds
        price = self._tariff.price(replica.pool.name)
        found, start = [], replica.ordered_at
        while start < now:
            period = int(start // seconds)
            end = min(now, (period + 1) * seconds)
            found.append((period, cost(price, end - start)))
            start = end
        return found


def tariff_of(pools: Iterable[Pool], turn_seconds: float, minimum_seconds: float = 0.0) -> Tariff:
    """What replicas of these pools cost, where a decision is made every `turn_seconds`."""
    prices = tuple((pool.name, price_of(pool)) for pool in pools)
    return Tariff(prices, DRAIN_SECONDS, turn_seconds + LATE_SECONDS, minimum_seconds)


def price_of(pool: Pool) -> int:
    """Nano-dollars of a replica's hour, rounded up where a price is finer."""
    return ceil(Decimal(repr(pool.usd_per_hour)) * NANOS_PER_USD)
