"""From prices of work over time to a bound that is exact in every request.

Relax the program's capacity rows; let p[g,t] be what a replica-second on profile g costs in tick t. Each request then
costs its work times the least price between its arrival and its deadline, on the profile where that is least, and
whatever the prices are, no policy is cheaper than all requests but the dearest that may be missed, provided that no
fleet earns anything at those prices: for every pool g, with m the price of switching on, 0 <= m <= price · start-up,

    s · p[g,t] <= s · price + m[t] - m[t+1]

Where a pool is limited, it may earn, and its limit times that is taken off. So the linear program need only find good
prices: its lots may be coarse and its solver inexact, and the value is a bound all the same. With the machines' own
prices it is the fluid bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.simulator.bounds.demand import Requests
from swell.simulator.bounds.work import SECONDS_PER_HOUR
from swell.simulator.result import Scenario

UNLIMITED_REPLICAS = 10_000  # what pools and scenarios have as their bound where none was given

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prices:
    """Prices that meet the condition above, in US dollars."""

    work: Floats  # [profile, tick], per replica-second
    earned: float  # by limited pools, less what the fleet's lower bound costs


def feasible_prices(
    scenario: Scenario, work: Floats, switching: Floats, floor: Floats, most: Floats, tick_seconds: float
) -> Prices:
    """The prices that a solver found, lowered to where they meet the condition.

    `work` [profile, tick] per replica-second, `switching` [pool, tick] per start, `floor` [tick] per replica that the
    scenario's lower bound demands, `most` [pool, tick] replicas that there can be.
    """
    per_second = np.array([pool.usd_per_hour / SECONDS_PER_HOUR for pool in scenario.pools])
    start_usd = per_second * [pool.start_seconds for pool in scenario.pools]
    profiles = list(dict.fromkeys(pool.profile for pool in scenario.pools))
    profile_of = [profiles.index(pool.profile) for pool in scenario.pools]
    switch = np.clip(switching, 0, start_usd[:, None])
    switch[0, 0] = 0  # the first pool is warm at the start
    after = np.concatenate((switch[:, 1:], np.zeros((len(switch), 1))), axis=1)
    on_usd = per_second[:, None] * tick_seconds + switch - after  # of one replica for one tick
    is_unlimited = most >= UNLIMITED_REPLICAS
    floor = np.clip(floor, 0, np.where(is_unlimited, np.maximum(on_usd, 0), np.inf).min(axis=0))
    on_usd = on_usd - floor
    work = np.maximum(work, 0)
    for row, profile in enumerate(profile_of):
        work[profile] = np.minimum(work[profile], np.where(is_unlimited[row], on_usd[row] / tick_seconds, np.inf))
    work = np.maximum(work, 0)
    earned = np.maximum(work[profile_of] * tick_seconds - on_usd, 0)
    from_limited = float((earned * most).sum())
    return Prices(work, from_limited - float(floor.sum()) * scenario.min_replicas)


def mean_prices(several: Sequence[Prices]) -> Prices:
    """Their mean, which meets the condition as well; what it lets limited pools earn is not more than this says."""
    work = np.mean([prices.work for prices in several], axis=0)
    return Prices(work, sum(prices.earned for prices in several) / len(several))


def request_usd(requests: Requests, prices: Prices) -> Floats:
    """What each request costs at the least."""
    usd = np.full(len(requests.first_tick), np.inf)
    for work, price in zip(requests.works, prices.work, strict=True):
        np.minimum(usd, work * _least_within(price, requests.first_tick, requests.last_tick), out=usd)
    return usd


def bound_usd(each_usd: Floats, prices: Prices, misses: int) -> float:
    """The bound: all requests but the `misses` dearest, less what limited pools earn."""
    return sum_of_least(each_usd, len(each_usd) - misses) - prices.earned


def sum_of_least(values: Floats, count: int) -> float:
    """Of the `count` smallest values."""
    if count >= len(values):
        return float(values.sum())
    return float(np.partition(values, count)[:count].sum())


def _least_within(values: Floats, first: NDArray[np.int64], last: NDArray[np.int64]) -> Floats:
    """The least of values[first … last] for each pair, by a table of least values over 1, 2, 4, … ticks."""
    last = np.minimum(last, len(values) - 1)
    level = np.log2(last - first + 1).astype(np.int64)
    found = np.zeros(len(first))
    table = values
    for exponent in range(int(level.max(initial=0)) + 1):
        length = 1 << exponent
        here = level == exponent
        found[here] = np.minimum(table[first[here]], table[last[here] - length + 1])
        if len(table) > length:
            table = np.minimum(table[:-length], table[length:])
    return found
