"""What placement is asked, and the numbers that follow from it. Pure.

A pool is one way to buy a replica; a bucket is demand of like lengths. A request of bucket b takes w[p, b]
replica-seconds of pool p when it is used up to its capacity inside the objective; where even an unloaded replica
misses the objective, the pool cannot serve the bucket. That requests of different lengths add up is an approximation:
against the capacity of the whole mix it was within 3 % on four traces wherever an accelerator is comfortably inside
the objective, and on the dear side.

Losing spot capacity costs twice. Money: a replica that is taken pays its start again, and the work that it had begun:

    disruption usd/h = hazard/h · usd/h · (start_seconds + lost_seconds) / 3600

where half of a request's time in the engine is lost on average. And requests: when a zone goes, what the rest cannot
carry is missed until on-demand replicas are up. Zone z is lost a share c_z = 1 - exp(-hazard · recovery) of the time;
with it goes a share rho of the spot replicas of other zones, since zones fall together.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.regions import region_of
from swell.state.scaling import LatencyProfile, Market, Objective, Pool


@dataclass(frozen=True, slots=True)
class Bucket:
    """Demand of requests of like lengths."""

    name: str
    requests_per_second: float
    mix: Mix
    weight: float = 1.0  # of a request, where not all can be served; batch has less than interactive

    @classmethod
    def of_means(cls, name: str, rate: float, prompt: float, output: float, weight: float = 1.0) -> "Bucket":
        """As if all its requests were alike."""
        return cls(name, rate, Mix.of_means(prompt, output), weight)


@dataclass(frozen=True, slots=True)
class PlacementRules:
    """What the user and the world allow."""

    on_demand_base: int = 0  # on-demand replicas at least
    max_spot_fraction: float = 1.0  # of the capacity
    min_replicas: int = 0
    max_replicas: int = 100_000
    usd_per_hour: float | None = None  # a ceiling of spend
    # The share of requests that may miss their objective because a zone was lost. None: half of what the objective lets
    # miss. 1 asks for no reserve at all.
    loss_share: float | None = None
    recovery_seconds: float | None = (
        None  # from a loss to its replacement; None: the fastest start of an on-demand pool
    )
    # How zones fall together: V100 zones of AWS over 45 days of 2023 (SkyPilot spot traces).
    shared_within_region: float = 0.43
    shared_across_regions: float = 0.14
    hold_seconds: float = 3600.0  # that a plan is expected to stand: what a start costs is spread over it


@dataclass(frozen=True, slots=True)
class PlacementInputs:
    """Everything that placement looks at."""

    pools: tuple[Pool, ...]
    demand: tuple[Bucket, ...]
    objective: Objective
    rules: PlacementRules = PlacementRules()
    current: tuple[tuple[str, int], ...] = ()  # replicas there are, by pool; pools that are not named have none
    # Of the demand, what is there on average: that is what a lost zone makes miss. Below 1 where the demand is a high
    # quantile, which must be served but is rarely met at the very moment that a zone goes.
    usual: float = 1.0
    # usd/h that it is worth to lose all requests to lost zones less. What it costs to miss as many fewer elsewhere, by
    # more headroom for bursts: misses are best avoided where that is cheapest. 0: the rules' `loss_share` alone counts.
    miss_usd_per_hour: float = 0.0

    def __post_init__(self) -> None:
        if len({pool.name for pool in self.pools}) < len(self.pools):
            raise ValueError("pools must have different names")
        for bucket in self.demand:
            if not (0 <= bucket.requests_per_second < math.inf and bucket.weight >= 0):
                raise ValueError(
                    f"demand {bucket.name}: the rate must be finite and neither it nor the weight negative"
                )


@dataclass(frozen=True)
class ZoneLoss:
    """One zone gone: how much of the time, and the share of each pool's replicas that is left then."""

    zone: str
    chance: float
    left: NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """Placement as numbers. Index p is the pool, b the bucket, in the order of the inputs."""

    inputs: PlacementInputs
    price: NDArray[np.float64]  # p, usd/h
    disruption: NDArray[np.float64]  # p, usd/h
    start_price: NDArray[np.float64]  # p, usd/h of starting one, spread over the time that the plan stands
    limit: NDArray[np.int64]  # p
    current: NDArray[np.int64]  # p
    is_spot: NDArray[np.bool_]  # p
    rate: NDArray[np.float64]  # b, requests/s
    weight: NDArray[np.float64]  # b
    seconds: NDArray[np.float64]  # p, b: replica-seconds of a request; inf where the pool cannot serve it
    capacity: NDArray[np.float64]  # p, requests/s of the mix as far as the pool can serve it
    hopeless: NDArray[np.bool_]  # b: no pool can serve it; its rate counts as 0
    losses: tuple[ZoneLoss, ...]
    loss_share: float
    usual: float  # share of the rate

    @property
    def rules(self) -> PlacementRules:
        """Of the inputs."""
        return self.inputs.rules


def problem_of(inputs: PlacementInputs) -> Problem:
    """The numbers of a placement."""
    pools, demand, rules = inputs.pools, inputs.demand, inputs.rules
    table = [[seconds_of(pool.profile, inputs.objective, bucket.mix) for bucket in demand] for pool in pools]
    seconds = np.array(table, dtype=np.float64).reshape(len(pools), len(demand))
    rate = np.array([bucket.requests_per_second for bucket in demand], dtype=np.float64)
    hopeless = np.array([not column.any() for column in np.isfinite(seconds).T], dtype=np.bool_)
    rate = np.where(hopeless, 0.0, rate)
    current = dict(inputs.current)
    lost = _lost_seconds(inputs)
    return Problem(
        inputs=inputs,
        price=np.array([pool.usd_per_hour for pool in pools]),
        disruption=np.array([p.hazard_per_hour * p.usd_per_hour * (p.start_seconds + lost) / 3600 for p in pools]),
        start_price=np.array([p.usd_per_hour * p.start_seconds / max(1.0, rules.hold_seconds) for p in pools]),
        limit=np.array([max(0, pool.max_replicas) for pool in pools], dtype=np.int64),
        current=np.array([current.get(pool.name, 0) for pool in pools], dtype=np.int64),
        is_spot=np.array([pool.market is Market.SPOT for pool in pools], dtype=np.bool_),
        rate=rate,
        weight=np.array([bucket.weight for bucket in demand], dtype=np.float64),
        seconds=seconds,
        capacity=capacity_of(seconds, rate),
        hopeless=hopeless,
        losses=_losses(pools, rules),
        usual=inputs.usual,
        loss_share=(1 - inputs.objective.attainment) / 2 if rules.loss_share is None else rules.loss_share,
    )


def seconds_of(profile: LatencyProfile, objective: Objective, mix: Mix) -> float:
    """Replica-seconds of one request; infinite where even an unloaded replica misses the objective."""
    fits = mix.prompt + mix.output <= profile.kv_tokens
    in_time = profile.prefill_ms(mix.prompt) <= objective.ttft_limit_ms(mix.prompt, profile)
    if not fits or not in_time or profile.step_ms(1, mix.context) > objective.itl_ms:
        return math.inf
    return 1 / capacity(profile, objective, mix)[0]


def capacity_of(seconds: NDArray[np.float64], rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """Requests a second that one replica serves of what it can serve of the mix; 0 where that is nothing."""
    servable = np.isfinite(seconds) & (rate > 0)
    served = np.where(servable, rate, 0.0).sum(axis=1)
    busy = np.where(servable, rate * np.where(servable, seconds, 0.0), 0.0).sum(axis=1)
    capacity: NDArray[np.float64] = np.divide(served, busy, out=np.zeros_like(served), where=busy > 0)
    return capacity


def missed_share(problem: Problem, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """The share of requests that miss because zones are lost: what they carried and nothing that is idle can take."""
    usual = problem.usual * problem.rate
    total = float(usual.sum())
    if total <= 0 or not problem.losses:
        return 0.0
    seconds = np.where(np.isfinite(problem.seconds), problem.seconds, 0.0)
    idle = np.maximum(0.0, counts - (shares * usual * seconds).sum(axis=1))
    worst = np.zeros(len(problem.losses))
    for together in served_together(problem):
        rate = np.where(together, usual, 0.0)
        capacity, carried = capacity_of(problem.seconds, rate), (shares * rate).sum(axis=1)
        for index, loss in enumerate(problem.losses):
            missed = float((1 - loss.left) @ carried - (loss.left * capacity) @ idle)
            worst[index] = max(worst[index], missed)
    return float(sum(loss.chance * m for loss, m in zip(problem.losses, worst.tolist(), strict=True))) / total


def served_together(problem: Problem) -> list[NDArray[np.bool_]]:
    """Sets of buckets (as masks): all of them, and those that only some pools can serve, by which pools those are."""
    servable = np.isfinite(problem.seconds) & (problem.rate > 0)[None, :]
    found = [problem.rate > 0]
    for pools in {tuple(column) for column in servable.T.tolist() if any(column) and not all(column)}:
        inside = ~(servable & ~np.array(pools)[:, None]).any(axis=0) & (problem.rate > 0)
        found.append(inside)
    return sorted({tuple(mask.tolist()): mask for mask in found}.values(), key=lambda mask: mask.tolist(), reverse=True)


def _lost_seconds(inputs: PlacementInputs) -> float:
    """Half of the time that a request of the mix spends being decoded, at the ITL of the objective."""
    total = sum(bucket.requests_per_second for bucket in inputs.demand)
    output = sum(bucket.requests_per_second * bucket.mix.output for bucket in inputs.demand)
    return output / total * inputs.objective.itl_ms / 2000 if total > 0 else 0.0


def _losses(pools: Sequence[Pool], rules: PlacementRules) -> tuple[ZoneLoss, ...]:
    spot = [pool for pool in pools if pool.market is Market.SPOT and pool.hazard_per_hour > 0]
    on_demand = [pool.start_seconds for pool in pools if pool.market is Market.ON_DEMAND]
    starts = on_demand or [pool.start_seconds for pool in pools]
    recovery = rules.recovery_seconds if rules.recovery_seconds is not None else min(starts, default=0.0)
    found = []
    for zone in dict.fromkeys(pool.zone for pool in spot):
        hazard = max(pool.hazard_per_hour for pool in spot if pool.zone == zone)
        left = np.array([1 - _shared(zone, pool, rules) for pool in pools])
        found.append(ZoneLoss(zone, -math.expm1(-hazard * recovery / 3600), left))
    return tuple(found)


def _shared(zone: str, pool: Pool, rules: PlacementRules) -> float:
    """The share of a pool's replicas that goes with the zone. Spot pools without a zone are in one unnamed zone."""
    if pool.market is not Market.SPOT:
        return 0.0
    if pool.zone == zone:
        return 1.0
    same = region_of(pool.zone) == region_of(zone)
    return rules.shared_within_region if same else rules.shared_across_regions
