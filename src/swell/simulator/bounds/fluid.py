"""The fluid bound (B0): each request on its cheapest machine, in fractions of replicas that start for nothing.

No policy is cheaper. What an attainment below 1 allows to miss is missed for nothing: the dearest requests.
"""

from math import floor

import numpy as np
from numpy.typing import NDArray

from swell.simulator.bounds.availability import known_limits
from swell.simulator.bounds.demand import Limits, end_seconds
from swell.simulator.bounds.prices import sum_of_least
from swell.simulator.bounds.work import SECONDS_PER_HOUR, work_replica_seconds
from swell.simulator.result import Scenario
from swell.state.traffic import Traffic


def fluid_usd(
    scenario: Scenario, attainment: float | None = None, limits: Limits | None = None, tick_seconds: float = 60.0
) -> float:
    """US dollars that every policy pays. `attainment` stands for the objective's own where given."""
    each_usd = fluid_request_usd(scenario, limits, tick_seconds)
    wanted = scenario.objective.attainment if attainment is None else attainment
    return sum_of_least(each_usd, len(each_usd) - allowed_misses(scenario.traffic, wanted))


def fluid_request_usd(
    scenario: Scenario, limits: Limits | None = None, tick_seconds: float = 60.0
) -> NDArray[np.float64]:
    """What each request costs at the least; infinite where no pool was there.

    `limits` says for pools that come and go (spot) what there is per tick (where it is not given, the scenario's spot
    market does); a request costs their price if there was any between its arrival and its deadline.
    """
    traffic = scenario.traffic
    ends = end_seconds(traffic, scenario.objective, scenario.pools[0].profile)
    limits = known_limits(scenario, limits, tick_seconds, int(ends.max() // tick_seconds) + 1)
    usd = np.full(len(traffic), np.inf)
    for pool in scenario.pools:
        price = work_replica_seconds(traffic, pool.profile, scenario.objective)
        price *= pool.usd_per_hour / SECONDS_PER_HOUR
        if limits is not None and pool.name in limits:
            price[~_was_up(traffic, ends, limits[pool.name], tick_seconds)] = np.inf
        np.minimum(usd, price, out=usd)
    return usd


def allowed_misses(traffic: Traffic, attainment: float) -> int:
    """How many requests may miss."""
    return floor((1 - attainment) * len(traffic) + 1e-9)


def _was_up(
    traffic: Traffic, ends: NDArray[np.float64], limit: NDArray[np.int64], tick_seconds: float
) -> NDArray[np.bool_]:
    ups = np.concatenate(([0], np.cumsum(limit > 0)))
    first = (traffic.arrival_seconds // tick_seconds).astype(np.int64)
    last = (ends // tick_seconds).astype(np.int64)
    return np.asarray(ups[np.minimum(last + 1, len(limit))] > ups[np.minimum(first, len(limit))])
