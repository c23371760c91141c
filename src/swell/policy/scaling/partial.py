"""What may be done where a part of the traffic is not seen: whoever may be using a replica keeps it. Pure.

A gateway whose connection is lost may be serving on. What the others tell is less than what happens, so it can be a
reason for more replicas and for none less. Only what a budget forbids goes all the same.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from swell.policy.scaling.funded import BINDING as BUDGET
from swell.state.scaling import Decision, ReplicaState, ReplicaView

BINDING = "silence"


def letting_nobody_go(decision: Decision, replicas: Sequence[ReplicaView]) -> Decision:
    """The decision without what it would let go, of any pool.

    Where it would let some go for others, all stays as it is: no more run than either it or now has.
    """
    present = Counter(each.pool for each in replicas if each.state is not ReplicaState.DRAINING)
    fewer = [pool for pool, count in decision.counts if count < present[pool]]
    if decision.binding == BUDGET or not fewer:
        return decision
    kept = tuple((pool, max(count, present[pool])) for pool, count in decision.counts)
    here = tuple((pool, present[pool]) for pool, _ in decision.counts)
    if sum(count for _, count in kept) > max(decision.replicas, sum(count for _, count in here)):
        kept = here
    return replace(
        decision,
        counts=kept,
        reason=f"a gateway worker is silent and may be serving, so none is let go; else {decision.reason}",
        binding=BINDING,
        is_hold=kept == here,
    )
