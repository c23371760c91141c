"""From how much is needed to how many of which: the mix of accelerators, markets and zones from turn to turn. Pure.

The need comes in replicas of the reference pool, as the forecast gives it. Each turn:

1. What was seen of the spot pools is remembered (`spot_memory`): who took or refused is avoided for a while, and the
   hazard follows what happens.
2. Where `should_solve` says so, the mix is placed anew (`placement`). Its spot counts are the plan.
3. Between two solutions the plan follows the need by as few changes as do (`mix_fill`), first as if every pool could be
   had, which is remembered, then with those that can. So a zone that is back is used again at once.
4. On-demand replicas stand in for spot that is ordered and not sure to come (`on_demand_now`); an order that is
   confirmed at the next turn cancels them.
5. Nothing that is ready goes before what else is ready carries the need. So a move from one zone to another, or from
   on-demand back to spot, is paid twice for as long as a start takes, and leaves nothing uncovered.

Bounds on replicas and the ceiling of spend are kept by what shall be. Replicas that wait for their successors come on
top of the number of replicas, as in a rolling update, but not of the spend: there they go first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.mix_fill import Filling, filled, filling
from swell.policy.scaling.mix_words import Turn, told
from swell.policy.scaling.placement import (
    Bucket,
    Placement,
    PlacementInputs,
    PlacementRules,
    on_demand_now,
    place,
    should_solve,
)
from swell.policy.scaling.placement_problem import problem_of
from swell.policy.scaling.spot_memory import NOTHING, SpotMemory, hazard_per_hour, is_late, remember
from swell.state.scaling import Decision, Market, Objective, Observation, Pool, ReplicaState

Counts = dict[str, int]

ALL = "all"  # requests: their lengths are known by their means only
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class MixSettings:
    """What a model's replicas may be. The first pool is the reference in which the need is counted."""

    pools: tuple[Pool, ...]
    objective: Objective
    rules: PlacementRules = field(default_factory=PlacementRules)


@dataclass(frozen=True, slots=True)
class MixMemory:
    """What is remembered from one turn to the next."""

    spot: SpotMemory = field(default_factory=SpotMemory)
    placement: Placement | None = None
    plan: tuple[int, ...] = ()  # by pool, as if all could be had; what stands in for spot is no part of it
    filling: Filling | None = None  # that `wanted` was computed from
    wanted: tuple[int, ...] = ()
    decided: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class There:
    """The replicas of one pool: all that are not draining, those that are ready, those that will be in time."""

    present: int = 0
    ready: int = 0
    coming: int = 0


def spread(
    settings: MixSettings, memory: MixMemory, seen: Observation, asked: Decision, mix: Mix
) -> tuple[Decision, MixMemory]:
    """What is `asked` for in replicas of the reference pool, as counts of every pool."""
    there = _there(settings, seen)
    memory = replace(memory, spot=remember(memory.spot, settings.pools, seen, memory.decided))
    if seen.window is None:
        present = tuple((pool.name, there[pool.name].present) for pool in settings.pools)
        return replace(asked, counts=present, is_hold=True), replace(memory, decided=present)
    one = capacity(settings.pools[0].profile, settings.objective, mix)[0]
    inputs = _inputs(settings, memory, there, Bucket(ALL, asked.replicas * one, mix), seen.now)
    if asked.replicas and should_solve(memory.placement, seen.now, inputs):
        placement = place(inputs, seen.now, explain=False)
        counts = dict(placement.counts)
        plan = tuple(counts[pool.name] if pool.market is Market.SPOT else 0 for pool in settings.pools)
        memory = replace(memory, placement=placement, plan=plan, filling=None)
    memory = _followed(settings, memory, inputs, asked.replicas, one)
    turn = _turn(settings, memory, inputs, there)
    decided = tuple((pool.name, turn.serving[pool.name] + turn.leaving[pool.name]) for pool in settings.pools)
    is_hold = all(there[name].present == count for name, count in decided)
    memory = replace(memory, decided=decided)
    return told(asked, turn, decided, is_hold=is_hold), memory


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


def _there(settings: MixSettings, seen: Observation) -> dict[str, There]:
    """A start is in time if it ends before one that is ordered now in the reference pool would."""
    by_name = {pool.name: pool for pool in settings.pools}
    in_time = seen.now + settings.pools[0].start_seconds
    present, ready, coming = (dict.fromkeys(by_name, 0) for _ in range(3))
    for replica in seen.replicas:
        pool = by_name.get(replica.pool)
        if pool is None or replica.state is ReplicaState.DRAINING:
            continue
        present[pool.name] += 1
        if replica.state is ReplicaState.READY:
            ready[pool.name] += 1
        elif replica.ordered_at + pool.start_seconds <= in_time and not is_late(replica, pool, seen.now):
            coming[pool.name] += 1
    return {name: There(present[name], ready[name], coming[name]) for name in by_name}


def _inputs(
    settings: MixSettings, memory: MixMemory, there: Mapping[str, There], demand: Bucket, now: float
) -> PlacementInputs:
    """Placement's question, with what is known of the spot pools."""
    records = dict(memory.spot.records)
    pools = []
    for pool in settings.pools:
        record = records.get(pool.name, NOTHING)
        if pool.market is Market.SPOT:
            here = there[pool.name]
            room = here.ready + here.coming if now < record.avoid_until else pool.max_replicas
            hazard = hazard_per_hour(record, pool.hazard_per_hour)
            pool = replace(pool, hazard_per_hour=hazard, max_replicas=min(pool.max_replicas, room))  # noqa: PLW2901
        pools.append(pool)
    current = tuple((name, here.present) for name, here in there.items())
    return PlacementInputs(tuple(pools), (demand,), settings.objective, settings.rules, current)


def _followed(settings: MixSettings, memory: MixMemory, inputs: PlacementInputs, need: int, one: float) -> MixMemory:
    """The plan for the need of now, and what of it can be had. The same as before where both are the same."""
    limits, before = [pool.max_replicas for pool in inputs.pools], memory.filling
    if before is not None and (before.need, before.limit) == (need, limits):
        return memory
    asked = filling(problem_of(inputs), need, one)
    if not need:  # nothing is planned for nothing but what the rules want
        asked = replace(asked, losses=[])
    plan = filled(replace(asked, limit=[pool.max_replicas for pool in settings.pools]), list(memory.plan))
    wanted = filled(asked, plan) if limits != [pool.max_replicas for pool in settings.pools] else plan
    kept = (n if pool.market is Market.SPOT else 0 for pool, n in zip(settings.pools, plan, strict=True))
    return replace(memory, plan=tuple(kept), filling=asked, wanted=tuple(wanted))


def _turn(settings: MixSettings, memory: MixMemory, inputs: PlacementInputs, there: Mapping[str, There]) -> Turn:
    """What serves from now on, and what stays until it does."""
    asked = memory.filling
    assert asked is not None  # noqa: S101 - `_followed` made it
    names = [pool.name for pool in settings.pools]
    wanted = dict(zip(names, memory.wanted, strict=True))
    serving = {**wanted, **_standing_in(memory, inputs, wanted, there)}
    leaving = _leaving(asked, serving, there)
    cut = _cut_to_ceiling(asked, serving, leaving, there)
    avoided = tuple(
        pool.name for pool, known in zip(inputs.pools, settings.pools, strict=True)
        if pool.max_replicas < known.max_replicas
    )  # fmt: skip
    provided = sum(c * serving[name] for name, c in zip(names, asked.capacity, strict=True))
    return Turn(
        serving=serving,
        leaving=leaving,
        standing_in=sum(max(0, serving[name] - count) for name, count in wanted.items()),
        avoided=avoided,
        short=max(0.0, 1 - provided / asked.need) if asked.need else 0.0,
        is_cut=cut or not asked.is_affordable(list(memory.wanted)),
        usd_per_hour=sum(usd * (serving[name] + leaving[name]) for name, usd in zip(names, asked.price, strict=True)),
    )


def _standing_in(
    memory: MixMemory, inputs: PlacementInputs, wanted: Counts, there: Mapping[str, There]
) -> Mapping[str, int]:
    """On-demand replicas, by pool: those that are wanted, and more while spot is not sure to come.

    What is ordered now is sure where spot of the same pool is ready and nothing was lost or refused since.
    """
    asked, placed, records = memory.filling, memory.placement, dict(memory.spot.records)
    sure = {}
    for pool in inputs.pools:
        if pool.market is Market.SPOT:
            here = there[pool.name]
            is_sure = here.ready > 0 and not records[pool.name].failures
            sure[pool.name] = wanted[pool.name] if is_sure else min(wanted[pool.name], here.ready + here.coming)
    if asked is None or placed is None or all(wanted[name] == count for name, count in sure.items()):
        return {}
    one = inputs.demand[0].requests_per_second / max(asked.need, 1)
    capacities = tuple((pool.name, c * one) for pool, c in zip(inputs.pools, asked.capacity, strict=True))
    now = replace(placed, inputs=inputs, counts=tuple(wanted.items()), capacity=capacities, served=((ALL, 1.0),))
    return dict(on_demand_now(now, sure))


def _leaving(asked: Filling, serving: Counts, there: Mapping[str, There]) -> Counts:
    """Ready replicas that are not wanted and have to stay until others are ready; the cheapest do."""
    capacities = dict(zip(serving, asked.capacity, strict=True))
    dearness = {name: usd / max(capacities[name], 1e-9) for name, usd in zip(serving, asked.price, strict=True)}
    leaving = dict.fromkeys(serving, 0)
    short = asked.need - sum(capacities[name] * min(there[name].ready, count) for name, count in serving.items())
    for name in sorted(serving, key=lambda each: (dearness[each], each)):
        while short > _ROUNDING and capacities[name] > 0 and serving[name] + leaving[name] < there[name].ready:
            leaving[name] += 1
            short -= capacities[name]
    return leaving


def _cut_to_ceiling(asked: Filling, serving: Counts, leaving: Counts, there: Mapping[str, There]) -> bool:
    """Take away what the ceiling of spend does not allow: what leaves, then orders, then what is there; dearest first.

    In place. Whether anything was taken.
    """
    prices = dict(zip(serving, asked.price, strict=True))
    spend = sum(usd * (serving[name] + leaving[name]) for name, usd in prices.items())
    is_cut = False
    for counts, floors in (
        (leaving, dict.fromkeys(serving, 0)),
        (serving, {name: here.present for name, here in there.items()}),
        (serving, dict.fromkeys(serving, 0)),
    ):
        for name in sorted(prices, key=lambda each: (-prices[each], each)):
            while spend > asked.ceiling_usd + _ROUNDING and counts[name] > floors[name]:
                counts[name] -= 1
                spend -= prices[name]
                is_cut = True
    return is_cut
