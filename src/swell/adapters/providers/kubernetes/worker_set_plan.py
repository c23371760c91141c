"""What to write about one LeaderWorkerSet now. Pure: it and the time in, writes out, in the order to do them in.

Deleted, it takes its Pods with it: the first node's is asked to end, and the others' once that is gone, so that what
runs may finish. Whoever has no time left for that is deleted by name, but only after the LeaderWorkerSet: its
controller would make another.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from swell.adapters.providers.kubernetes.children import Nodes, is_away
from swell.adapters.providers.kubernetes.plan import FORCE_SECONDS, KILL_GRACE_SECONDS, Deletion
from swell.adapters.providers.kubernetes.seen import PodSeen
from swell.adapters.providers.kubernetes.worker_set import WorkerSet


@dataclass(frozen=True)
class SetPlan:
    """What to do, in this order."""

    is_new: bool = False
    is_deletion: bool = False
    deletions: tuple[Deletion, ...] = ()
    is_clearing: bool = False  # of what it leaves behind
    next_at: float = math.inf  # look again then, whatever happens

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do now."""
        return not (self.is_new or self.is_deletion or self.deletions or self.is_clearing)


def plan_set(worker_set: WorkerSet, nodes: Nodes, now: float) -> SetPlan:
    """What brings the cluster to what is wanted."""
    child = worker_set.child
    if not worker_set.shall_end:
        is_new = child is not None and not worker_set.was_made
        return SetPlan(is_new=is_new, next_at=_next(worker_set.moments(), now))
    is_deletion = worker_set.may_be and not worker_set.is_asked and now >= worker_set.ask_at
    is_deleted = worker_set.is_asked or not worker_set.may_be
    due = [_deletion(worker_set, pod, nodes, now) for pod in worker_set.pods.values()] if is_deleted else []
    forced = [at + FORCE_SECONDS for uid, at in worker_set.killed_at.items() if worker_set.sent.get(uid)]
    return SetPlan(
        is_deletion=is_deletion,
        deletions=tuple(each for each in due if each is not None),
        is_clearing=worker_set.has_secret and not worker_set.is_left,
        next_at=_next((*worker_set.moments(), *forced), now),
    )


def _next(moments: Iterable[float], now: float) -> float:
    return min((at for at in moments if at > now), default=math.inf)


def _deletion(worker_set: WorkerSet, pod: PodSeen, nodes: Nodes, now: float) -> Deletion | None:
    """Of a Pod whose time is over; nobody waits for a kubelet that is away."""
    child = worker_set.child
    is_away_now = is_away(pod.node, nodes)
    is_late = child is not None and (child.is_gone or (child.kill_at is not None and now >= child.kill_at))
    if not (is_late or is_away_now):
        return None
    killed = worker_set.killed_at.get(pod.uid)
    is_stuck = killed is not None and now >= killed + FORCE_SECONDS
    grace = 0 if is_stuck or is_away_now else KILL_GRACE_SECONDS
    sent = worker_set.sent.get(pod.uid)
    return None if sent is not None and grace >= sent else Deletion(pod, grace)
