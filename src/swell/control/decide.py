"""What to do next about a fleet. Pure: wanted workloads, known replicas and the time in, actions with reasons out.

A replica gets one action at a time; what follows from it is decided in the next step.

Who is unseen counts as what it was, and nothing is done about it until its place tells.

Whose machine will be taken leaves as who was let go does, and its place is filled at once: nothing new is sent to it,
and what runs has the notice to finish in.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.ports.provider import Loss
from swell.state.replica import Phase

BACKOFF_FIRST_SECONDS = 0.5
KILL_MARGIN_SECONDS = 5.0  # after the stop grace, before the kill is asked for again


class Verb(StrEnum):
    """What can be done about a replica, and the phase it leads to."""

    START = "start"  # pending -> starting
    READY = "ready"  # starting -> ready
    FAIL = "fail"  # -> failed; killed if it still runs
    RETRY = "retry"  # failed -> pending, as a new child
    DRAIN = "drain"  # ready -> draining
    STOP = "stop"  # -> stopping
    KILL = "kill"  # stays in its phase
    FINISH = "finish"  # -> stopped, and forgotten


@dataclass(frozen=True)
class Add:
    """A new replica, pending."""

    workload: str
    ordinal: int


@dataclass(frozen=True)
class Act:
    """Do `verb` about the child, because of `reason`."""

    verb: Verb
    child_id: str
    reason: str


Action = Add | Act

_PREFERENCE = {Phase.READY: 0, Phase.STARTING: 1, Phase.PENDING: 2, Phase.FAILED: 3}
FORGETTING = frozenset({Verb.RETRY, Verb.FINISH})  # the child is gone, and with it what is stored of it
LEAVING = frozenset({Phase.DRAINING, Phase.STOPPING, Phase.STOPPED})


def decide(
    workloads: Mapping[str, Workload],
    replicas: Sequence[Replica],
    now: float,
    let_go: Collection[str] = frozenset(),
    awaited: Collection[str] = (),
) -> list[Action]:
    """The actions that lead from what is to what is wanted. Children in `let_go` leave, whatever else is wanted.

    Nothing is started in the places that are `awaited`.
    """
    actions: list[Action] = []
    kept: set[str] = set()
    let_go = {*let_go, *(replica.child_id for replica in replicas if replica.loss is Loss.NOTICE)}
    by_workload: dict[str, list[Replica]] = {}
    for replica in replicas:
        by_workload.setdefault(replica.workload, []).append(replica)
    for workload in workloads.values():
        own = by_workload.get(workload.name, [])
        staying = [replica for replica in own if replica.child_id not in let_go]
        fresh = _fresh(workload, staying)
        kept.update(replica.child_id for replica in fresh)
        kept.update(replica.child_id for replica in _bridging(workload, staying, fresh))
        actions.extend(Add(workload.name, ordinal) for ordinal in _free_ordinals(workload, own, len(fresh)))
    for replica in [each for each in replicas if not each.unseen]:
        wanted = workloads.get(replica.workload) if replica.child_id in kept else None
        action = _leave(replica, now) if wanted is None else _keep(replica, wanted, now)
        waits = action is not None and action.verb is Verb.START and replica.provider in awaited
        if action is not None and not waits:
            actions.append(action)
    return actions


def backoff_seconds(failures: int, most: float) -> float:
    """The wait after the n-th failure in a row (from 1): 0.5, 1, 2, 4, … up to `most`."""
    return float(min(most, BACKOFF_FIRST_SECONDS * 2 ** min(max(0, failures - 1), 32)))


def _fresh(workload: Workload, own: Sequence[Replica]) -> list[Replica]:
    """The best `count` of those that run, or shall run, what is wanted now."""
    candidates = [r for r in own if r.phase not in LEAVING and r.fingerprint == workload.fingerprint]
    return sorted(candidates, key=lambda r: (_PREFERENCE[r.phase], r.ordinal))[: workload.count]


def _bridging(workload: Workload, own: Sequence[Replica], fresh: Sequence[Replica]) -> list[Replica]:
    """Outdated replicas that go on serving until their successors are ready."""
    if workload.addresses:
        return []  # nothing has to load: the new address can be used at once
    missing = workload.count - sum(replica.phase is Phase.READY for replica in fresh)
    outdated = [r for r in own if r.phase is Phase.READY and r.fingerprint != workload.fingerprint]
    return sorted(outdated, key=lambda replica: replica.ordinal)[: max(0, missing)]


def _free_ordinals(workload: Workload, own: Sequence[Replica], present: int) -> Iterator[int]:
    """Numbers for the replicas that are missing, lowest first; a number belongs to a leaving one until it is gone."""
    taken = {replica.ordinal for replica in own}
    ordinal, missing = 0, workload.count - present
    while missing > 0 and (not workload.addresses or ordinal < len(workload.addresses)):
        if ordinal not in taken:
            yield ordinal
            missing -= 1
        ordinal += 1


def _keep(replica: Replica, workload: Workload, now: float) -> Act | None:
    match replica.phase:
        case Phase.PENDING if now >= replica.not_before:
            return Act(Verb.START, replica.child_id, "wanted")
        case Phase.STARTING:
            return _judge_start(replica, workload, now)
        case Phase.READY:
            return _judge_health(replica, workload, now)
        case Phase.FAILED if not replica.alive and now >= replica.not_before:
            return Act(Verb.RETRY, replica.child_id, "its back-off is over")
    return None


def _judge_start(replica: Replica, workload: Workload, now: float) -> Act | None:
    if not replica.alive:
        lost = _lost(replica)
        return Act(Verb.FAIL, replica.child_id, lost or f"ended before it was ready ({_how(replica)})")
    if replica.healthy or (workload.health is None and not replica.waiting):
        return Act(Verb.READY, replica.child_id, "answers")
    if now - replica.since >= workload.start_timeout_seconds:
        why = f"it waited for: {replica.waiting}" if replica.waiting else "raise start_timeout_seconds if it only loads"
        return Act(Verb.FAIL, replica.child_id, f"was not ready within {workload.start_timeout_seconds:g} s; {why}")
    return None


def _judge_health(replica: Replica, workload: Workload, now: float) -> Act | None:
    if not replica.alive:
        return Act(Verb.FAIL, replica.child_id, _lost(replica) or f"ended ({_how(replica)})")
    if replica.unhealthy_since is not None and now - replica.unhealthy_since >= workload.unhealthy_seconds:
        return Act(Verb.FAIL, replica.child_id, f"has not been healthy for {workload.unhealthy_seconds:g} s")
    return None


def _leave(replica: Replica, now: float) -> Act | None:
    """The way out, for what nobody wants."""
    child_id, waited = replica.child_id, now - replica.since
    match replica.phase:
        case Phase.PENDING:
            return Act(Verb.FINISH, child_id, "no longer wanted")
        case Phase.STARTING:
            return Act(Verb.STOP, child_id, "no longer wanted")
        case Phase.READY:
            return Act(Verb.DRAIN, child_id, "no longer wanted")
        case Phase.DRAINING if not replica.alive or replica.drained:
            return Act(Verb.STOP, child_id, "drained")
        case Phase.DRAINING if waited >= replica.drain_seconds:
            return Act(Verb.STOP, child_id, f"not drained after {replica.drain_seconds:g} s")
        case Phase.STOPPING | Phase.FAILED if not replica.alive:
            return Act(Verb.FINISH, child_id, "gone")
        case Phase.STOPPING if waited >= replica.stop_grace_seconds + KILL_MARGIN_SECONDS:
            return Act(Verb.KILL, child_id, "did not end in time")
    return None


def _lost(replica: Replica) -> str:
    """What became of its machine; empty where nothing did."""
    machine = replica.machine
    what = " ".join(
        word for word in (machine.accelerator, "spot machine" if machine.market == "spot" else "machine") if word
    )
    where = f" in {machine.zone}" if machine.zone else ""
    if replica.loss is Loss.REFUSED:
        return f"no {what}{where} was to be had"
    return f"its {what}{where} was taken" if replica.loss is not None else ""


def _how(replica: Replica) -> str:
    code = replica.exit_code
    if code is None:
        return "exit code unknown"
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
