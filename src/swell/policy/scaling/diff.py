"""From what shall be to what must be done. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swell.state.scaling import Decision, Pool, ReplicaState, ReplicaView


@dataclass(frozen=True, slots=True)
class Start:
    """Order more replicas of a pool."""

    pool: str
    count: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Let one replica go."""

    replica_id: str
    why: str


Action = Start | Drain


def actions(decision: Decision, replicas: Sequence[ReplicaView], pools: Mapping[str, Pool]) -> list[Action]:
    """What leads from `replicas` to the decided counts. Draining replicas count for nothing: they cannot come back.

    A pool that the decision does not name is left as it is. Computed from what is there now, not from what the decision
    saw, so that a decision that is applied late, or twice, does no more than it says.
    """
    found: list[Action] = []
    for pool, wanted in decision.counts:
        here = [r for r in replicas if r.pool == pool and r.state is not ReplicaState.DRAINING]
        if len(here) < wanted:
            found.append(Start(pool, wanted - len(here)))
        elif len(here) > wanted:
            found += [Drain(r.replica_id, _why(r)) for r in victims(here, pools)[: len(here) - wanted]]
    return found


def victims(replicas: Sequence[ReplicaView], pools: Mapping[str, Pool]) -> list[ReplicaView]:
    """Those that should go first, first: what has not started yet (latest order first), then what has least to lose.

    Of ready ones: the least loaded; of equally loaded ones the dearest, then the most hazardous, then the youngest.
    """

    def order(replica: ReplicaView) -> tuple[bool, float, int, int, float, float, float, str]:
        pool = pools.get(replica.pool)
        price = pool.usd_per_hour if pool else 0.0
        hazard = pool.hazard_per_hour if pool else 0.0
        is_ready = replica.state is ReplicaState.READY
        age_key = -replica.since if is_ready else -replica.ordered_at
        return (
            is_ready, 0.0 if is_ready else age_key, replica.in_flight, replica.outstanding_tokens,
            -price, -hazard, age_key, replica.replica_id,
        )  # fmt: skip

    return sorted(replicas, key=order)


def _why(replica: ReplicaView) -> str:
    if replica.state is ReplicaState.STARTING:
        return "it has not started yet"
    return f"it has the least to finish: {replica.in_flight} requests"
