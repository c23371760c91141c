"""What infrastructure budgets leave for a model's replicas, as the scaling policy is told. Frozen values.

Money is whole nano-dollars, times are seconds from now.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fund:
    """One budget in its present period, for one model."""

    name: str  # for people, such as `the infrastructure budget of 2026-11`
    cap_usd_nanos: int
    left_usd_nanos: int  # not spent, and not bound by what others have running: the model never spends more
    next_usd_nanos: int  # the same of the next period, which pays for what ends late
    share_usd_nanos: int  # of what is left, that the model is to spread over the rest of the period
    ends_in_seconds: float
    owner: str = ""  # the model whose budget it is; empty: the organisation's


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a replica costs, and how long it costs after it was decided that it goes. Bounds that hold for sure."""

    prices: tuple[tuple[str, int], ...]  # nano-dollars of a replica's hour, by pool
    drain_seconds: float  # from being let go until it is surely gone
    turn_seconds: float  # until the next decision is surely carried out
    minimum_seconds: float = 0.0  # that is billed at least, from the order on

    def price(self, pool: str) -> int:
        """Of one replica, nano-dollars an hour; 0 of a pool that nobody is billed for."""
        return next((price for name, price in self.prices if name == pool), 0)


@dataclass(frozen=True, slots=True)
class Funding:
    """All budgets that bound a model's replicas, and what these cost."""

    funds: tuple[Fund, ...]
    tariff: Tariff
    rate_usd_nanos: int = 0  # what runs of the model costs an hour, what drains included
