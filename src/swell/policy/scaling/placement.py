"""Which machines to have: the cheapest mix of accelerators, markets and zones for a demand inside an objective. Pure.

`place` solves it; `should_solve` says when it is worth solving again; `on_demand_now` bridges what spot does not
deliver. When not everything can be had, things are let go in this order: the reserve for a lost zone, then demand (the
smallest weighted share of requests), then the on-demand base. The placement names what was given up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, isfinite

from swell.policy.scaling.placement_alternatives import alternatives, binding
from swell.policy.scaling.placement_choice import Alternative, Placement, choose
from swell.policy.scaling.placement_problem import Bucket, PlacementInputs, PlacementRules, seconds_of
from swell.state.scaling import Market, Pool

SOLVE_AGAIN_SECONDS = 600.0  # at most so often
SOLVE_AGAIN_MOVED = 0.05  # and only when inputs moved by more than this share

__all__ = [
    "Alternative", "Bucket", "Placement", "PlacementInputs", "PlacementRules", "on_demand_now", "place", "should_solve",
]  # fmt: skip


def place(inputs: PlacementInputs, now: float = 0.0, *, explain: bool = True) -> Placement:
    """The cheapest placement. With `explain` also what was rejected, which takes about ten times as long."""
    placement = choose(inputs, now)
    if not explain:
        return placement
    rejected = alternatives(placement)
    return replace(placement, rejected=rejected, binding=binding(placement, rejected))


def should_solve(previous: Placement | None, now: float, inputs: PlacementInputs) -> bool:
    """Whether to place again: at most every ten minutes, and only if inputs moved by more than 5 %.

    Replicas there are do not count as inputs: placing changes them. Nor does room that the plan does not use.
    """
    if previous is None:
        return True
    if now - previous.at < SOLVE_AGAIN_SECONDS:
        return False
    before = previous.inputs
    if (before.objective, before.rules) != (inputs.objective, inputs.rules):
        return True
    if [p.name for p in before.pools] != [p.name for p in inputs.pools]:
        return True
    planned = dict(previous.counts)
    pools = zip(before.pools, inputs.pools, strict=True)
    return _demand_moved(before.demand, inputs.demand) or any(_pool_moved(a, b, planned[a.name]) for a, b in pools)


def on_demand_now(placement: Placement, ready: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """On-demand replicas needed right now, by on-demand pool: the planned ones, and what stands in for spot not ready.

    As SpotHedge does (Mao et al., EuroSys 2025), on capacity instead of counts: what `need` is over the base and the
    spot that is ready, at most what of the planned spot is not ready, in requests/s, never below the plan. So on-demand
    starts at once when spot is taken, before anybody knows whether spot comes back, and goes when spot is ready. Unlike
    there, it does not stand in for spot that was planned over the need: that was bought because it is cheap, and to be
    lost. What stands in is of the pool that is cheapest for it.
    """
    capacity, planned = dict(placement.capacity), dict(placement.counts)
    pools = placement.inputs.pools
    on_demand = [pool for pool in pools if pool.market is Market.ON_DEMAND]
    spot = [pool.name for pool in pools if pool.market is Market.SPOT]
    counts = {pool.name: planned[pool.name] for pool in on_demand}
    there = sum(capacity[name] * ready.get(name, 0) for name in spot)
    missing = sum(capacity[name] * planned[name] for name in spot) - there
    base = sum(capacity[name] * count for name, count in counts.items())
    rates = {bucket.name: bucket.requests_per_second for bucket in placement.inputs.demand}
    need = sum(rates[name] * share for name, share in placement.served)
    short = min(need - base - there, missing)
    useful = [pool for pool in on_demand if capacity[pool.name] > 0]
    for pool in sorted(useful, key=lambda p: (-_serves(placement, p), p.usd_per_hour / capacity[p.name], p.name)):
        if short <= 1e-9 * need:
            break
        more = min(ceil(short / capacity[pool.name] - 1e-9), max(0, pool.max_replicas - counts[pool.name]))
        counts[pool.name] += more
        short -= more * capacity[pool.name]
    return tuple(counts.items())


def _serves(placement: Placement, pool: Pool) -> int:
    """How many buckets the pool could serve."""
    inputs = placement.inputs
    return sum(
        bucket.requests_per_second > 0 and isfinite(seconds_of(pool.profile, inputs.objective, bucket.mix))
        for bucket in inputs.demand
    )


def _demand_moved(before: Sequence[Bucket], after: Sequence[Bucket]) -> bool:
    if [bucket.name for bucket in before] != [bucket.name for bucket in after]:
        return True
    total = sum(bucket.requests_per_second for bucket in before)
    moved = 0.0
    for old, new in zip(before, after, strict=True):
        if old.weight != new.weight:
            return True
        moved += abs(new.requests_per_second - old.requests_per_second)
        lengths = ((old.mix.prompt, new.mix.prompt), (old.mix.output, new.mix.output))
        moved += old.requests_per_second * max(abs(b - a) / max(a, 1e-9) for a, b in lengths)
    return moved > SOLVE_AGAIN_MOVED * total


def _pool_moved(before: Pool, after: Pool, planned: int) -> bool:
    if (before.profile, before.market, before.zone) != (after.profile, after.market, after.zone):
        return True
    numbers = (
        (before.usd_per_hour, after.usd_per_hour),
        (before.hazard_per_hour, after.hazard_per_hour),
        (before.start_seconds, after.start_seconds),
    )
    if any(abs(new - old) > SOLVE_AGAIN_MOVED * abs(old) for old, new in numbers):
        return True
    more_room = after.max_replicas > before.max_replicas and planned >= before.max_replicas
    return after.max_replicas < planned or more_room
