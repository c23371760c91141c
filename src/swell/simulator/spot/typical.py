"""A market for pools of which no more is known than their zone and their hazard.

Shapes are the medians over nine V100 zones of AWS during 45 days of 2023 (statistics of the SkyPilot spot traces): up
runs have a mean of 4.2 times their median, down runs last 1.7 hours on average and have a mean of 2.9 times their
median.
"""

from collections.abc import Iterable

from swell.policy.scaling.regions import region_of
from swell.simulator.spot.calibrate import couple
from swell.simulator.spot.market import NOTICE_SECONDS, Timeline
from swell.simulator.spot.runs import Runs
from swell.simulator.spot.semi_markov import Zone, semi_markov_market
from swell.state.scaling import Market, Pool

_UP_SHAPE = 4.2
_DOWN_MEAN_SECONDS = 1.7 * 3600
_DOWN_SHAPE = 2.9
_LEAST_HAZARD_PER_HOUR = 1 / (24 * 365)


def typical_zones(pools: Iterable[Pool], nodes: int = 16) -> tuple[Zone, ...]:
    """One zone per spot pool, under the pool's name, since accelerator types of one zone do not share capacity.

    A pool's mean up run is the inverse of its hazard.
    """
    zones = []
    for pool in pools:
        if pool.market is Market.SPOT:
            up = 3600 / max(pool.hazard_per_hour, _LEAST_HAZARD_PER_HOUR)
            zones.append(
                Zone(
                    pool.name,
                    region_of(pool.zone),
                    Runs(up, up / _UP_SHAPE),
                    Runs(_DOWN_MEAN_SECONDS, _DOWN_MEAN_SECONDS / _DOWN_SHAPE),
                    nodes,
                )
            )
    return tuple(zones)


def market_for(
    pools: Iterable[Pool],
    *,
    seed: int,
    horizon_seconds: float,
    nodes: int = 16,
    notice_seconds: float = NOTICE_SECONDS,
) -> Timeline:
    """Typical zones with typical correlations; `nodes` replicas of room in each."""
    coupling = couple(typical_zones(pools, nodes))
    return semi_markov_market(
        coupling.zones,
        seed=seed,
        horizon_seconds=horizon_seconds,
        shocks=coupling.shocks,
        notice_seconds=notice_seconds,
    )
