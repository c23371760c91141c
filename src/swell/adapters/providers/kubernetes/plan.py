"""What to write about one Deployment now. Pure: a group and the time in, writes out, in the order to do them in.

Scaling down, the ReplicaSet chooses: first what is not ready, then the cheapest by deletion cost. So marks come before
the scale: a Pod that is somebody's is dear, one that shall go is cheap. If it has chosen another one all the same,
which then was not serving yet, what was meant to go is deleted by name.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from swell.adapters.providers.kubernetes.children import Mark, Nodes, Victim, is_away
from swell.adapters.providers.kubernetes.group import SPOT_SECONDS, TELL_SECONDS, Group, held_pods
from swell.adapters.providers.kubernetes.manifests import NOTHING, Scale
from swell.adapters.providers.kubernetes.seen import PodSeen

CLAIMED_COST, VICTIM_COST = 100, -100
VICTIM_SECONDS = 5.0  # for the ReplicaSet to do what it was told, before it is done here
KILL_GRACE_SECONDS = 1  # the least with which a kubelet still says that the process is gone
FORCE_SECONDS = 15.0  # after a kill that nobody confirmed; of a machine that is away, at once
EMPTY_SECONDS = 3600.0  # that a Deployment of no Pods is kept


@dataclass(frozen=True)
class Marking:
    """Write `mark` to a Pod."""

    pod: PodSeen
    mark: Mark


@dataclass(frozen=True)
class Deletion:
    """End a Pod. `force`: no kubelet is asked."""

    pod: PodSeen
    grace_seconds: int


@dataclass(frozen=True)
class Plan:
    """What to do, in this order; `claims` can wait."""

    marks: tuple[Marking, ...] = ()
    is_new: bool = False  # there is no Deployment yet
    scale: Scale | None = None
    deletions: tuple[Deletion, ...] = ()
    is_removal: bool = False
    claims: tuple[Marking, ...] = ()
    next_at: float = math.inf  # look again then, whatever happens

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that must be done now."""
        return not (self.marks or self.scale is not None or self.deletions or self.is_removal)


def plan(group: Group, nodes: Nodes, now: float) -> Plan:
    """What brings the cluster to what the group wants."""
    desired = group.desired()
    applied = group.applied or NOTHING
    active = group.active()
    scale = desired if _is_due(group, desired) else None
    is_lowering = 0 < desired.replicas < max(applied.replicas, len(active))
    claims = [Marking(pod, mark) for pod, mark in _claims(group)]
    marks = [*claims, *_reduced(group, active)] if is_lowering else []
    is_chosen = scale is None and len(active) <= desired.replicas
    due = [(victim, group.pods[uid]) for uid, victim in group.victims.items() if uid in group.pods]
    deletions = [each for victim, pod in due if (each := _deletion(victim, pod, nodes, now, is_chosen)) is not None]
    over = [pod for pod in group.pods.values() if pod.is_over and not pod.is_ending and pod.uid not in group.cleared]
    return Plan(
        marks=tuple(marks),
        is_new=group.applied is None,
        scale=scale,
        deletions=(*deletions, *(Deletion(pod, 0) for pod in over)),
        is_removal=_is_over(group, applied, now),
        claims=() if is_lowering else tuple(claims),
        next_at=min((math.inf, *group.vacancies, *_moments(group, due, now))),
    )


def _is_due(group: Group, desired: Scale) -> bool:
    """Whether a scale is to be written: it is another than was written, or somebody else has written another."""
    if group.applied is None:
        return bool(desired.children)
    if desired != group.applied:
        return True
    seen = group.seen
    is_newer = seen is not None and seen.generation > group.applied_generation
    return seen is not None and is_newer and seen.scale.replicas != desired.replicas


def _claims(group: Group) -> Iterator[tuple[PodSeen, Mark]]:
    """What Pods do not say yet of whose they are."""
    for child, pod in held_pods(group):
        mark = (child.child_id, child.run, CLAIMED_COST)
        if _mark_of(group, pod) != mark:
            yield pod, mark


def _reduced(group: Group, active: list[PodSeen]) -> Iterator[Marking]:
    """Pods that are nobody's any more, and still dear."""
    held = {pod.uid for _, pod in held_pods(group)}
    for pod in active:
        child_id, run, cost = _mark_of(group, pod)
        if pod.uid not in held and (cost > 0 or (cost == 0 and pod.uid in group.victims)):
            yield Marking(pod, (child_id, run, VICTIM_COST))


def _mark_of(group: Group, pod: PodSeen) -> Mark:
    return group.marks.get(pod.uid, (pod.child_id, pod.child_run, pod.cost))


def _deletion(victim: Victim, pod: PodSeen, nodes: Nodes, now: float, is_chosen: bool) -> Deletion | None:
    """`is_chosen`: the ReplicaSet has chosen whom to end by now, so that who still lives was not chosen."""
    is_late = is_chosen or now >= victim.asked_at + VICTIM_SECONDS
    if pod.is_over or not (pod.is_ending or is_late):
        return None  # one that is ended before its ReplicaSet knows that it is one too many is replaced by another
    if now >= victim.kill_at:
        is_stuck = victim.killed_at is not None and now >= victim.killed_at + FORCE_SECONDS
        grace = 0 if is_stuck or is_away(pod.node, nodes) else KILL_GRACE_SECONDS
    elif pod.is_ending:
        return None
    else:
        grace = max(KILL_GRACE_SECONDS, math.ceil(victim.kill_at - now))
    if victim.sent_seconds is not None and grace >= victim.sent_seconds:
        return None
    return Deletion(pod, grace)


def _moments(group: Group, due: list[tuple[Victim, PodSeen]], now: float) -> Iterator[float]:
    """When something is to be done although nothing happens."""
    for victim, _ in due:
        if victim.sent_seconds is None:
            yield victim.asked_at + VICTIM_SECONDS
        if victim.killed_at is None:
            yield victim.kill_at
        elif victim.sent_seconds:
            yield victim.killed_at + FORCE_SECONDS
    for child in group.children.values():
        if child.ended_at is not None and not child.is_told:
            yield child.ended_at + TELL_SECONDS
        elif child.ended_at is None and child.kill_at is not None:
            yield child.kill_at
        elif child.is_held and not child.pod and group.is_on_spot:
            yield child.added_at + SPOT_SECONDS
    if group.empty_since is not None and group.applied is not None:
        yield now if group.is_retired else group.empty_since + EMPTY_SECONDS


def _is_over(group: Group, applied: Scale, now: float) -> bool:
    """Whether the Deployment has nothing to do any more, and will not soon."""
    if group.empty_since is None or group.applied is None or applied.replicas or group.pods:
        return False
    return group.is_retired or now >= group.empty_since + EMPTY_SECONDS
