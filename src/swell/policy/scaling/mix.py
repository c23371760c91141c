"""From how much is needed to how many of which: the mix of accelerators, markets and zones from turn to turn. Pure.

The need comes in replicas of the reference pool, as the forecast gives it. Each turn:

1. What was seen of the spot pools is remembered (`spot_memory`): who took or refused is avoided for a while, and the
   hazard follows what happens.
2. Where `should_solve` says so, the mix is placed anew (`placement`); between two solutions the plan follows the need
   by as few changes as do (`mix_fill`), as if every pool could be had.
3. What is sure carries the need: what is there, and orders where a replica is and nothing was lost or refused since.
   Elsewhere, what the plan or the reserve wants is ordered one replica at a time until one comes: nothing is let go, or
   bought dearer, for a hope.
4. On-demand replicas stand in for spot that is planned and not sure (`on_demand_now`), as far as the need goes.
5. Nothing that is ready goes before what takes its place is. So a move from one zone to another, or from on-demand back
   to spot, is paid twice for as long as a start takes, and leaves nothing uncovered.

Bounds on replicas and the ceiling of spend are kept by what is planned. What stands in, and what waits for its
successors, comes on top of the number of replicas, as in a rolling update, but not of the spend: there it goes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.mix_batch import PATIENCE_SECONDS, place_batch, places_of
from swell.policy.scaling.mix_fill import Filling, added, filled, filling, floored, trimmed
from swell.policy.scaling.mix_need import MixSettings, in_reference, miss_usd, serving_pools, usual_share
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
from swell.policy.scaling.spot_memory import NOTHING, PoolRecord, SpotMemory, hazard_per_hour, is_late, remember
from swell.state.scaling import Decision, Market, Objective, Observation, Pool, ReplicaState
from swell.units import NANOS_PER_USD

Counts = dict[str, int]

ALL = "all"  # requests: their lengths are known by their means only
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class MixMemory:
    """What is remembered from one turn to the next."""

    spot: SpotMemory = field(default_factory=SpotMemory)
    placement: Placement | None = None
    plan: tuple[int, ...] = ()  # by pool, as if all could be had
    filling: Filling | None = None  # for which it was made
    sure: "Sure | None" = None  # what could be relied on in the last turn
    decided: tuple[tuple[str, int], ...] = ()
    batch: tuple[tuple[str, int], ...] = ()  # of those decided: for batch
    batch_lacks_since: float | None = None  # spot, for at least half of what batch needs


@dataclass(frozen=True, slots=True)
class Sure:
    """What can be relied on, by pool, and from what that followed."""

    known: Filling  # the room of pools that are known to have it
    start: list[int]
    is_open: list[bool]  # who may have room, and nobody knows
    counts: list[int]
    hoped: list[int]  # orders besides, where nobody knows


@dataclass(frozen=True, slots=True)
class There:
    """The replicas of one pool: all that are not draining, those that are ready, those that will be in time."""

    present: int = 0
    ready: int = 0
    coming: int = 0

    @property
    def sure(self) -> int:
        """Ready, or in time."""
        return self.ready + self.coming

    def without(self, count: int) -> "There":
        """Without so many of them, those that start first."""
        starting = self.present - self.ready
        return There(self.present - count, self.ready - max(0, count - starting), max(0, self.coming - count))


def spread(
    settings: MixSettings, memory: MixMemory, seen: Observation, asked: Decision, mix: Mix, batch: float = 0.0
) -> tuple[Decision, MixMemory]:
    """What is `asked` for in replicas of the reference pool, as counts of every pool; and `batch` besides, which may
    wait."""
    everything = _there(settings, seen)
    there = _others(memory, everything)
    memory = replace(memory, spot=remember(memory.spot, settings.pools, seen, memory.decided))
    if seen.window is None:
        present = tuple((pool.name, everything[pool.name].present) for pool in settings.pools)
        return replace(asked, counts=present, is_hold=True), replace(memory, decided=present)
    one = capacity(settings.pools[0].profile, settings.objective, mix)[0]
    settings = replace(settings, pools=serving_pools(settings, mix))
    usual = usual_share(asked)
    demand = Bucket(ALL, max(1, asked.replicas) * one, mix)
    inputs = _inputs(settings, memory, there, demand, seen.now)
    inputs = replace(inputs, usual=usual, miss_usd_per_hour=miss_usd(settings, asked.replicas, usual, mix, one))
    if asked.replicas and should_solve(memory.placement, seen.now, inputs):
        placement = place(inputs, seen.now, explain=False)
        memory = replace(memory, placement=placement, plan=_planned(settings, placement), filling=None)
    memory = _followed(settings, memory, inputs, asked.replicas, one)
    memory = _relied_on(memory, inputs, there)
    turn = _turn(settings, memory, inputs, there)
    turn, memory = _with_batch(settings, memory, inputs, everything, turn, batch, seen.now)
    decided = tuple(turn.counts.items())
    is_hold = all(everything[name].present == count for name, count in decided)
    memory = replace(memory, decided=decided)
    return told(asked, turn, decided, is_hold=is_hold), memory


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


def _others(memory: MixMemory, there: Mapping[str, There]) -> dict[str, There]:
    """What is there without what is batch's. Who is lost, batch loses first."""
    decided, batch = dict(memory.decided), dict(memory.batch)
    kept = {name: decided.get(name, 0) - batch.get(name, 0) for name in there}
    return {
        name: here.without(min(batch.get(name, 0), max(0, here.present - kept[name]))) for name, here in there.items()
    }


def _inputs(
    settings: MixSettings, memory: MixMemory, there: Mapping[str, There], demand: Bucket, now: float
) -> PlacementInputs:
    """Placement's question, with what is known of the spot pools."""
    records = dict(memory.spot.records)
    pools = []
    for pool in settings.pools:
        pools.append(_with_room(pool, records.get(pool.name, NOTHING), there[pool.name], now))
    current = tuple((name, here.present) for name, here in there.items())
    return PlacementInputs(tuple(pools), (demand,), settings.objective, settings.rules, current)


def _with_room(pool: Pool, record: PoolRecord, here: There, now: float) -> Pool:
    """A spot pool with the hazard that was seen, and without room for more than is there while it is avoided."""
    if pool.market is not Market.SPOT:
        return pool
    room = min(pool.max_replicas, here.sure if now < record.avoid_until else pool.max_replicas)
    hazard = hazard_per_hour(record, pool.hazard_per_hour)
    if (hazard, room) == (pool.hazard_per_hour, pool.max_replicas):
        return pool
    return replace(pool, hazard_per_hour=hazard, max_replicas=room)


def _planned(settings: MixSettings, placement: Placement) -> tuple[int, ...]:
    """The placement's counts. Where some spot could not be had, on-demand only as far as rules want it."""
    rules, counts = settings.rules, dict(placement.counts)
    limits = [pool.max_replicas for pool in placement.inputs.pools]
    is_all_open = limits == [pool.max_replicas for pool in settings.pools]
    is_wanted = is_all_open or rules.on_demand_base > 0 or rules.max_spot_fraction < 1
    return tuple(counts[pool.name] if is_wanted or pool.market is Market.SPOT else 0 for pool in settings.pools)


def _followed(settings: MixSettings, memory: MixMemory, inputs: PlacementInputs, need: int, one: float) -> MixMemory:
    """The plan for the need of now. The same as before where the need is."""
    before, limit = memory.filling, [pool.max_replicas for pool in settings.pools]
    ceiling = inf if settings.rules.usd_per_hour is None else settings.rules.usd_per_hour
    if before is not None and (before.need, before.limit, before.ceiling_usd) == (need, limit, ceiling):
        return memory
    asked = replace(filling(problem_of(inputs), need, one), limit=limit)
    plan = filled(asked, list(memory.plan) or [0] * len(settings.pools))
    return replace(memory, plan=tuple(plan), filling=asked, sure=None)


def _turn(settings: MixSettings, memory: MixMemory, inputs: PlacementInputs, there: Mapping[str, There]) -> Turn:
    """What serves from now on, and what stays until it does."""
    asked = memory.filling
    assert asked is not None  # noqa: S101 - `_followed` made it
    names = [pool.name for pool in settings.pools]
    assert memory.sure is not None  # noqa: S101
    sure, hoped = memory.sure.counts, memory.sure.hoped
    serving = dict(zip(names, sure, strict=True))
    serving.update(_standing_in(memory, inputs, serving))
    standing_in = sum(serving.values()) - sum(sure)
    for name, count in zip(names, hoped, strict=True):
        serving[name] += count
    leaving = _leaving(asked, serving, there)
    cut = _cut_to_ceiling(asked, serving, leaving, there)
    provided = sum(c * serving[name] for name, c in zip(names, asked.capacity, strict=True))
    return Turn(
        serving=serving,
        leaving=leaving,
        standing_in=standing_in,
        avoided=tuple(
            pool.name
            for pool, known in zip(inputs.pools, settings.pools, strict=True)
            if pool.max_replicas < known.max_replicas
        ),
        short=max(0.0, 1 - provided / asked.need) if asked.need else 0.0,
        is_cut=cut or not asked.is_affordable(list(memory.plan)),
        usd_per_hour=sum(usd * (serving[name] + leaving[name]) for name, usd in zip(names, asked.price, strict=True)),
    )


def _with_batch(
    settings: MixSettings, memory: MixMemory, inputs: PlacementInputs, there: Mapping[str, There], turn: Turn,
    need: float, now: float,
) -> tuple[Turn, MixMemory]:  # fmt: skip
    """The turn with the replicas for batch; see `mix_batch`."""
    asked, records = memory.filling, dict(memory.spot.records)
    if need <= 0 or asked is None:
        return turn, replace(memory, batch=(), batch_lacks_since=None)
    names = [pool.name for pool in settings.pools]
    places = places_of(
        tuple(_with_room(pool, records.get(pool.name, NOTHING), there[pool.name], now) for pool in settings.pools),
        dict(zip(names, asked.capacity, strict=True)),
        dict(zip(names, asked.usd, strict=True)),
        {name: there[name].sure for name in names},
        {name: there[name].sure > 0 and not records.get(name, NOTHING).failures for name in names},
        turn.counts,
    )
    on_spot = sum(place.capacity * place.spare for place in places if place.pool.market is Market.SPOT)
    since = None if 2 * on_spot >= need else memory.batch_lacks_since
    if 2 * on_spot < need and since is None:
        since = now
    counts = place_batch(
        need,
        places,
        most=max(0, settings.rules.max_replicas - sum(turn.counts.values())),
        usd_left=asked.ceiling_usd - turn.usd_per_hour,
        may_be_on_demand=since is not None and now - since >= PATIENCE_SECONDS,
    )
    paid = sum(usd * counts.get(name, 0) for name, usd in zip(names, asked.price, strict=True))
    turn = replace(turn, batch=counts, batch_need=need, usd_per_hour=turn.usd_per_hour + paid)
    return turn, replace(memory, batch=tuple(counts.items()), batch_lacks_since=since)


def _relied_on(memory: MixMemory, inputs: PlacementInputs, there: Mapping[str, There]) -> MixMemory:
    """With what can be relied on, from who is there. The same as before where nothing of it changed."""
    asked, records = memory.filling, dict(memory.spot.records)
    assert asked is not None  # noqa: S101 - `_followed` made it
    limits, start, is_open = [], [], []
    for pool, planned in zip(inputs.pools, memory.plan, strict=True):
        here = there[pool.name]
        if pool.market is not Market.SPOT:
            limits.append(pool.max_replicas)
            start.append(planned)
            is_open.append(False)
            continue
        is_proven = here.sure > 0 and not records[pool.name].failures
        limits.append(pool.max_replicas if is_proven else min(here.sure, pool.max_replicas))
        start.append(max(here.sure, planned) if is_proven else here.sure)
        is_open.append(not is_proven and pool.max_replicas > here.sure)
    known = replace(asked, limit=limits)
    before = memory.sure
    if before is not None and (before.known, before.start, before.is_open) == (known, start, is_open):
        return memory
    counts, hoped = _sure(known, start, is_open, [pool.max_replicas for pool in inputs.pools], list(memory.plan))
    return replace(memory, sure=Sure(known, start, is_open, counts, hoped))


def _sure(
    known: Filling, start: list[int], is_open: list[bool], room: list[int], plan: list[int]
) -> tuple[list[int], list[int]]:
    """Counts that can be relied on, and orders besides where nobody knows: by pool.

    `known` has the room that is known, `room` what there may be.
    """
    counts = floored(known, start)
    # More on-demand than that is bought by who stands in, as far as the need goes.
    on_demand = [None if is_spot else n for n, is_spot in zip(counts, known.is_spot, strict=True)]
    limits = [most if n is None else n for n, most in zip(on_demand, known.limit, strict=True)]
    room = [most if n is None else n for n, most in zip(on_demand, room, strict=True)]
    known = replace(known, limit=limits)
    sure = trimmed(known, added(replace(known, losses=[]), counts), plan)
    best = added(replace(known, limit=room), sure)
    hoped = [0] * len(sure)
    for p, more in enumerate(best):
        if is_open[p]:
            hoped[p] = int(max(more, plan[p]) > sure[p])
        elif limits[p] > sure[p]:
            sure[p] = more
    return sure, hoped


def _standing_in(memory: MixMemory, inputs: PlacementInputs, sure: Counts) -> Mapping[str, int]:
    """On-demand replicas, by pool: those that are planned, and more while spot that is planned is not sure."""
    asked, placed = memory.filling, memory.placement
    planned = {pool.name: count for pool, count in zip(inputs.pools, memory.plan, strict=True)}
    if asked is None or placed is None or not asked.need or all(sure[n] >= count for n, count in planned.items()):
        return {}
    one = inputs.demand[0].requests_per_second / asked.need
    capacities = tuple((pool.name, c * one) for pool, c in zip(inputs.pools, asked.capacity, strict=True))
    now = replace(placed, inputs=inputs, counts=tuple(planned.items()), capacity=capacities, served=((ALL, 1.0),))
    return dict(on_demand_now(now, sure))


def _leaving(asked: Filling, serving: Counts, there: Mapping[str, There]) -> Counts:
    """Ready replicas that are not wanted and have to stay until their successors are ready; the cheapest do."""
    capacities = dict(zip(serving, asked.capacity, strict=True))
    dearness = {name: usd / max(capacities[name], 1e-9) for name, usd in zip(serving, asked.price, strict=True)}
    leaving = dict.fromkeys(serving, 0)
    short = sum(capacities[name] * max(0, count - there[name].ready) for name, count in serving.items())
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
    is_spot = dict(zip(serving, asked.is_spot, strict=True))

    def _on_demand() -> int:
        return asked.on_demand(list(serving.values()))

    spend = sum(usd * (serving[name] + leaving[name]) for name, usd in prices.items())
    is_cut = False
    for counts, floors in (
        (leaving, dict.fromkeys(serving, 0)),
        (serving, {name: here.present for name, here in there.items()}),
        (serving, dict.fromkeys(serving, 0)),
    ):
        for is_base in (False, True):  # spot, and on-demand beyond the base, before the base
            for name in sorted(prices, key=lambda each: (-prices[each], each)):
                while spend > asked.ceiling_usd + _ROUNDING and counts[name] > floors[name]:
                    if not is_base and counts is serving and not is_spot[name] and _on_demand() <= asked.base:
                        break
                    counts[name] -= 1
                    spend -= prices[name]
                    is_cut = True
    return is_cut


class Mixer:
    """The mix with its memory, beside a scaler that gives the need."""

    def __init__(
        self,
        pools: tuple[Pool, ...],
        objective: Objective,
        rules: PlacementRules | None = None,
        min_replicas: int = 0,
        max_replicas: int = 10_000,
    ) -> None:
        """Bounds count replicas of any pool, and take the place of those in `rules`."""
        bounded = replace(rules or PlacementRules(), min_replicas=min_replicas, max_replicas=max_replicas)
        self.settings = MixSettings(pools, objective, bounded)
        self.memory = MixMemory()

    def in_reference(self, seen: Observation, mix: Mix) -> Observation:
        """See `in_reference`."""
        return in_reference(self.settings, seen, mix)

    @property
    def start_seconds(self) -> float:
        """Of the pool that takes longest."""
        return max(pool.start_seconds for pool in self.settings.pools)

    def decide(
        self, seen: Observation, asked: Decision, mix: Mix, usd_nanos_per_hour: int | None = None, batch: float = 0.0
    ) -> Decision:
        """See `spread`. A ceiling of spend that is given counts besides the one in the rules."""
        settings = self.settings
        if usd_nanos_per_hour is not None:
            ceiling = usd_nanos_per_hour / NANOS_PER_USD
            own = settings.rules.usd_per_hour
            rules = replace(settings.rules, usd_per_hour=ceiling if own is None else min(own, ceiling))
            settings = replace(settings, rules=rules)
        decision, self.memory = spread(settings, self.memory, seen, asked, mix, batch)
        return decision
