"""What the mix is asked for: the need in replicas of the reference, which pools may serve it, and what a miss is worth.

Pure. The first pool is the reference.
"""

from dataclasses import dataclass, field, replace
from math import log

from swell.policy.scaling.capacity import Mix, capacity, longer_share, longest_prompt
from swell.policy.scaling.placement_problem import PlacementRules
from swell.state.scaling import Decision, Objective, Observation, Pool, ReplicaState

LEAST_E_FOLD = 0.05  # of the need: also steady demand is not known better
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class MixSettings:
    """What a model's replicas may be. The first pool is the reference in which the need is counted."""

    pools: tuple[Pool, ...]
    objective: Objective
    rules: PlacementRules = field(default_factory=PlacementRules)


def in_reference(settings: MixSettings, seen: Observation, mix: Mix) -> Observation:
    """The fleet as so many replicas of the reference pool, for a policy that knows but one pool."""
    profiles = {pool.name: pool.profile for pool in settings.pools}
    if len(set(profiles.values())) == 1:
        return seen
    one = capacity(settings.pools[0].profile, settings.objective, mix)[0]
    worth = {name: capacity(each, settings.objective, mix)[0] / one for name, each in profiles.items()}
    found = []
    for state in (ReplicaState.READY, ReplicaState.STARTING):
        alike = [r for r in seen.replicas if r.state is state and r.pool in worth]
        whole = int(sum(worth[r.pool] for r in alike) + _ROUNDING)
        found += [replace(alike[0], pool=settings.pools[0].name) for _ in range(whole)]
    return replace(seen, replicas=tuple(found))


def usual_share(asked: Decision) -> float:
    """The share of the need that is there on average."""
    level = dict(asked.inputs).get("level", float(asked.replicas))
    return min(1.0, max(0.1, level / asked.replicas)) if asked.replicas else 1.0


def miss_usd(settings: MixSettings, need: int, usual: float, mix: Mix, one: float) -> float:
    """usd/h of missing all requests, by what it costs to miss fewer for want of headroom.

    Bursts go over the usual demand with a tail that falls about exponentially: with the share 1 - attainment at the
    need, each e-fold fewer misses takes (need - usual) / ln(1 / (1 - attainment)) more, so at the margin one share of
    all requests costs as much over 1 - attainment.
    """
    misses = 1 - settings.objective.attainment
    profiles = {pool.profile for pool in settings.pools}
    rates = {profile: capacity(profile, settings.objective, mix)[0] for profile in profiles}
    prices = [pool.usd_per_hour * one / rates[pool.profile] for pool in settings.pools if pool.max_replicas]
    e_fold = max(LEAST_E_FOLD, (1 - usual) / log(1 / misses))
    return need * min(prices, default=0.0) * e_fold / misses


def serving_pools(settings: MixSettings, mix: Mix) -> tuple[Pool, ...]:
    """The pools, without room where not (nearly) every prompt can be answered inside the objective.

    How many prompts are too long for a pool follows from their first two moments, as if their lengths were log-normal.
    A quarter of what the objective lets miss may be; where no pool is so good, all have room.
    """
    objective, reference = settings.objective, settings.pools[0].profile
    profiles = {pool.profile for pool in settings.pools}
    if len(profiles) == 1:
        return settings.pools
    share = {
        profile: longer_share(mix, longest_prompt(profile, objective, mix.output, reference)) for profile in profiles
    }
    allowed = max((1 - objective.attainment) / 4, min(share.values()))
    return tuple(pool if share[pool.profile] <= allowed else replace(pool, max_replicas=0) for pool in settings.pools)
