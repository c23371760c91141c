"""What a fleet has seen of its spot pools: what was taken, what was refused, how long things lasted. Pure.

A pool's hazard is what is expected beforehand, moved by what is seen: with a prior of one loss in 1 / prior hours,

    hazard = (1 + losses) / (1 / prior + hours held)

where a loss counts by the share of the pool's replicas that went, and both sums are forgotten with a time constant of a
day. It moves in whole steps of a half, towards what was expected: plans shall not change for every quiet hour.

A pool that took or refused a replica is avoided for a minute, and twice as long each time in a row, up to ten minutes:
being refused costs nothing but the order, and a zone that is back is found soon. A replica that becomes ready ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import copysign, exp, inf, log, trunc

from swell.state.scaling import Market, Observation, Pool, ReplicaState, ReplicaView

AVOID_FIRST_SECONDS = 60.0
AVOID_MOST_SECONDS = 600.0
LATE = 2.0  # times the usual start, after which a replica that is not ready is not expected any more
PRIOR_LOSSES = 1.0  # that what is expected beforehand weighs
FORGET_SECONDS = 86_400.0
STEP = 1.5  # of the hazard that plans are made with
LEAST_HAZARD_PER_HOUR = 0.01  # nobody promises that spot stays

Counts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """One spot pool's."""

    losses: float = 0.0
    held_hours: float = 0.0  # with at least one replica there
    failures: int = 0  # losses and refusals, in a row
    avoid_until: float = -inf


@dataclass(frozen=True, slots=True)
class SpotMemory:
    """What was seen last, and each pool's record."""

    at: float = -inf
    records: tuple[tuple[str, PoolRecord], ...] = ()
    present: tuple[tuple[str, tuple[str, ...]], ...] = ()  # replicas that took requests or would, by pool


NOTHING = PoolRecord()


def remember(memory: SpotMemory, pools: Sequence[Pool], seen: Observation, wanted: Counts) -> SpotMemory:
    """The records after one more observation. `wanted` are the counts that were decided at the one before."""
    before, asked, records = dict(memory.present), dict(wanted), dict(memory.records)
    seconds = max(0.0, seen.now - memory.at) if memory.at > -inf else 0.0
    groups: dict[str, list[ReplicaView]] = {pool.name: [] for pool in pools if pool.market is Market.SPOT}
    for replica in seen.replicas:
        if replica.pool in groups and replica.state is not ReplicaState.DRAINING:
            groups[replica.pool].append(replica)
    present = []
    for pool in pools:
        if pool.name not in groups:
            continue
        replicas = groups[pool.name]
        here = tuple(replica.replica_id for replica in replicas)
        present.append((pool.name, here))
        was = before.get(pool.name, ())
        record = _older(records.get(pool.name, NOTHING), seconds, is_held=bool(was))
        gone = len(set(was) - set(here)) - max(0, len(was) - asked.get(pool.name, len(was)))
        refused = asked.get(pool.name, 0) - len(was) - len(set(here) - set(was))
        if any(r.state is ReplicaState.READY and r.since > memory.at for r in replicas):
            record = replace(record, failures=0, avoid_until=-inf)
        if gone > 0:
            record = replace(record, losses=record.losses + gone / len(was))
        late = any(is_late(replica, pool, seen.now) for replica in replicas)
        if gone > 0 or refused > 0 or (late and seen.now >= record.avoid_until):
            record = _failed(record, seen.now)
        records[pool.name] = record
    return SpotMemory(seen.now, tuple(records.items()), tuple(present))


def hazard_per_hour(record: PoolRecord, expected: float) -> float:
    """Preemptions of one replica that are to be expected in an hour; `expected` is what was thought beforehand."""
    prior = max(expected, LEAST_HAZARD_PER_HOUR)
    seen = (PRIOR_LOSSES + record.losses) / (PRIOR_LOSSES / prior + record.held_hours)
    return float(prior * STEP ** trunc(log(seen / prior) / log(STEP) + copysign(1e-9, seen - prior)))


def is_late(replica: ReplicaView, pool: Pool, now: float) -> bool:
    """Whether a replica that starts is not to be counted on any more."""
    return replica.state is ReplicaState.STARTING and now - replica.ordered_at > LATE * max(pool.start_seconds, 1.0)


def _older(record: PoolRecord, seconds: float, *, is_held: bool) -> PoolRecord:
    keep = exp(-seconds / FORGET_SECONDS)
    return replace(
        record,
        losses=record.losses * keep,
        held_hours=record.held_hours * keep + (seconds / 3600 if is_held else 0.0),
    )


def _failed(record: PoolRecord, now: float) -> PoolRecord:
    wait = min(AVOID_MOST_SECONDS, AVOID_FIRST_SECONDS * 2.0 ** min(record.failures, 10))
    return replace(record, failures=record.failures + 1, avoid_until=now + wait)
