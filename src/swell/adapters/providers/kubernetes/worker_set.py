"""One replica over several nodes: its LeaderWorkerSet, and its Pods. No I/O: what is seen goes in.

All its Pods are one engine. So the replica is over when one container has ended or one Pod is gone, whatever the
others do; its LeaderWorkerSet is deleted then, and the fleet starts another replica when it is time. It gets requests
while its first node is ready, which is asked, and all others run.

The controller of LeaderWorkerSets would make all Pods anew. It does where no server is there; a server that adopts the
replica finds it as if nothing had been.

While LeaderWorkerSets cannot be read, none is taken for gone: one is there until its deletion by name was answered, and
its Pods have stayed away since. Who comes after that answer was made by one that an API did not know which knows none.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from swell.adapters.providers.kubernetes.children import Child, Nodes, is_away, machine_of
from swell.adapters.providers.kubernetes.group import SIGKILL_CODE, SPOT_SECONDS
from swell.adapters.providers.kubernetes.seen import MAX_WAITING_CHARACTERS, PodSeen, WorkerSetSeen
from swell.ports.provider import ChildSpec, Loss, Machine

TELL_SECONDS = 30.0  # at most until an end is told although something is left
AWAY_SECONDS = 5.0  # that Pods have stayed away, where nothing else tells that their LeaderWorkerSet has gone
ASK_AGAIN_SECONDS = 30.0  # at most between two deletions of one whose Pods come again
DELETED_BY_OTHERS = "its LeaderWorkerSet was deleted by somebody else"


@dataclass
class WorkerSet:
    """Everything about one LeaderWorkerSet. `pods` are seen ones, by uid; `children` holds one at most."""

    key: str  # its name
    workload: str = ""
    spec: ChildSpec | None = None  # None: made by an earlier server
    children: dict[str, Child] = field(default_factory=dict)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    uid: str = ""  # of the LeaderWorkerSet; empty: there is none
    size: int = 1  # nodes
    child_id: str = ""  # as the LeaderWorkerSet says, or its Pods
    was_made: bool = False
    is_ending: bool = False  # somebody has deleted it, and it is still there
    is_hidden: bool = False  # LeaderWorkerSets cannot be read now
    is_tried: bool = False  # somebody may have made it, whether or not that was answered
    is_asked: bool = False  # its deletion was answered
    asked_at: float = -math.inf
    ask_at: float = -math.inf  # no sooner
    is_orphan: bool = False  # nobody adopted it
    has_secret: bool = False  # its environment lies in the cluster
    is_clearing: bool = False  # what it left is being cleared away
    sent: dict[str, int] = field(default_factory=dict)  # by uid, the grace with which a Pod's end was asked for
    killed_at: dict[str, float] = field(default_factory=dict)  # by uid
    members: set[str] = field(default_factory=set)  # uids of Pods of this run
    problem: str = ""  # why the last write failed
    failures: int = 0
    not_before: float = 0.0
    _asked_pods: set[str] = field(default_factory=set)  # uids of those that were there when its deletion was answered
    _pods_at: float = -math.inf  # when there was one last
    _is_unsure: bool = False  # whether they stay away
    _returns: int = 0  # times that they did not
    _departed: dict[str, PodSeen] = field(default_factory=dict)  # as last seen
    _failed: PodSeen | None = None  # the first of which a container ended by itself, as it was then
    _last_code: int | None = None  # of the first node, once it has ended

    @property
    def name(self) -> str:
        """The LeaderWorkerSet's."""
        return self.key

    @property
    def child(self) -> Child | None:
        """Whose it is; None before it is adopted, and once it is forgotten."""
        return next(iter(self.children.values()), None)

    @property
    def shall_end(self) -> bool:
        """Whether there shall be no LeaderWorkerSet."""
        child = self.child
        return self.is_orphan or (child is not None and (not child.is_held or child.is_lost))

    @property
    def may_be(self) -> bool:
        """Whether there is a LeaderWorkerSet, as far as known."""
        return self.is_tried and not self.is_asked if self.is_hidden else bool(self.uid)

    @property
    def is_left(self) -> bool:
        """Whether there is anything of it in the cluster, as far as known."""
        return self.may_be or bool(self.pods) or self._is_unsure

    def start(self, spec: ChildSpec, now: float) -> None:
        """It is to be made."""
        self.spec, self.workload, self.child_id, self.size = spec, spec.workload, spec.child_id, spec.needs.nodes
        self.children[spec.child_id] = Child(spec.child_id, spec.log_path, now)

    def adopt(self, child_id: str, log_path: Path, now: float) -> bool:
        """Take over an earlier server's; whether it is still there."""
        if child_id != self.child_id or not self.is_left:
            return False
        child = self.children[child_id] = Child(child_id, log_path, now)
        if not self.may_be or self.is_ending:  # its server was about to let it go
            child.kill_at = now
        elif not any(_has_failed(pod) for pod in self.pods.values()):
            self.members |= self.pods.keys()
            self._bind(child)  # at once: who serves is not to lose its requests until it is looked at
        return True

    def recall(self, workload: str, child_id: str) -> None:
        """Its Secret tells of it, and whatever an earlier server made after that may be there."""
        self.workload, self.child_id = self.workload or workload, self.child_id or child_id
        self.is_tried = self.was_made = self.has_secret = True
        self.is_clearing = False

    def leave(self, child_id: str, grace_seconds: float, now: float) -> None:
        """Ask the replica to end; a later call can only shorten its grace."""
        child = self.children.get(child_id)
        if child is not None and not child.is_gone:
            kill_at = now + max(0.0, grace_seconds)
            child.kill_at = kill_at if child.kill_at is None else min(child.kill_at, kill_at)

    def pod_changed(self, old: PodSeen | None, new: PodSeen | None) -> None:
        """A Pod came, changed or went."""
        if new is not None:
            self.pods[new.uid] = new
            self.recall(new.workload, new.child_id)
            self.size = max(self.size, new.set_size)
            self._note_failure(new)
        if old is not None and (new is None or new.uid != old.uid):
            self.pods.pop(old.uid, None)
            self._departed[old.uid] = old

    def _note_failure(self, pod: PodSeen) -> None:
        """Before the controller ends all Pods for it, and the end of the first is one of many."""
        child = self.child
        is_own = child is not None and child.is_held and (not child.pod or pod.uid in self.members)
        if is_own and self._failed is None and _has_failed(pod):
            self._failed = pod

    def set_changed(self, new: WorkerSetSeen | None) -> None:
        """The LeaderWorkerSet came, changed or went."""
        if new is None:
            self.uid, self.is_ending = "", False
            return
        self.made(new.uid)
        self.is_ending, self.size = new.is_ending, new.size
        self.workload, self.child_id = new.workload or self.workload, new.child_id or self.child_id

    def made(self, uid: str) -> None:
        """There is one."""
        self.uid, self.is_tried, self.was_made, self.has_secret = uid, True, True, True

    def deletion_answered(self, now: float, *, is_known: bool) -> None:
        """It was deleted, or the API knows none of that name."""
        self.is_asked, self.asked_at, self._asked_pods = True, now, set(self.pods)
        if not is_known:
            self.uid = ""

    def shown(self, is_hidden: bool, seen: WorkerSetSeen | None) -> None:
        """LeaderWorkerSets cannot be read any more, or can again: `seen` is what it is then."""
        self.is_hidden = is_hidden
        if seen is not None and not is_hidden:
            self.set_changed(seen)
            self.is_asked = seen.is_ending  # whatever was answered meanwhile
        elif not is_hidden and self.is_asked:
            self.set_changed(None)  # the list knows it no more, and no watch has ever told of it

    def is_ready(self, child: Child) -> bool:
        """Whether it may get requests: all nodes run, and the first one says so."""
        running = [pod for pod in self.pods.values() if pod.uid in self.members and pod.is_active and pod.is_ready]
        return child.pod in self.pods and len(running) >= self.size

    def refuse(self, message: str, now: float) -> None:
        """The API will not have it."""
        child = self.child
        if child is not None and not child.is_gone:
            child.ended_at, child.last_words = now, message

    def advance(self, nodes: Nodes, now: float) -> list[Child]:
        """Bring the replica up to what is seen; it, if its end may be told since."""
        child = self.child
        self._look_for_return(now)
        if child is not None and not child.is_gone:
            self._settle(child, nodes, now)
        if child is not None and self.shall_end:
            child.waiting = self._keeping()
        self._departed.clear()
        for kept in (self.sent, self.killed_at):
            for uid in [uid for uid in kept if uid not in self.pods]:
                del kept[uid]
        if child is None or child.is_told or child.ended_at is None:
            return []
        is_cleared = not self.is_left and not self.has_secret
        is_late = now >= child.ended_at + TELL_SECONDS and not self._is_unsure
        if not is_cleared and not (is_late and (self.is_asked or not self.may_be)):
            return []  # while its LeaderWorkerSet is not deleted, all that it had may come again
        child.is_told = True
        return [child]

    def _look_for_return(self, now: float) -> None:
        """Where sets are hidden, their Pods tell whether one is there all the same."""
        if not self.is_hidden:
            self._is_unsure = False
            return
        if self.pods:
            self._pods_at = now
        if self.is_asked and self.pods.keys() - self._asked_pods:
            self.is_asked, self._returns = False, self._returns + 1
            self.ask_at = now + min(ASK_AGAIN_SECONDS, 2.0 ** min(self._returns, 16))
        self._is_unsure = self.is_asked and now < self._sure_at

    @property
    def _sure_at(self) -> float:
        return max(self.asked_at, self._pods_at) + AWAY_SECONDS

    def _keeping(self) -> str:
        """What keeps it from its end, where that is not its Pods' own."""
        if self.may_be and self.problem:
            return f"its LeaderWorkerSet to be deleted: {self.problem}"
        if self.is_hidden and self._returns:
            return "its Pods to stay away: they come again, while LeaderWorkerSets cannot be read"
        return ""

    def _settle(self, child: Child, nodes: Nodes, now: float) -> None:
        self.members |= self.pods.keys() if not child.pod else set()
        seen = sorted((*self.pods.values(), *self._departed.values()), key=lambda pod: pod.index)
        own = [pod for pod in seen if pod.uid in self.members]
        for pod in own:
            if pod.index == 0 and pod.exit_code is not None:
                self._last_code = pod.exit_code
        if child.is_leaving:
            self._let_go(child, now)
            return
        if (failed := self._failed or next((pod for pod in own if _has_failed(pod)), None)) is not None:
            self._fail(child, failed, nodes, now)
            return
        self._look_for_loss(child, own, nodes)
        if self.was_made and not self.is_left:
            child.ended_at = now
            child.loss = Loss.RECLAIMED if child.is_lost else None
            child.last_words = child.last_words or DELETED_BY_OTHERS
            return
        self._bind(child)
        self._see_machine(child, nodes)
        child.waiting = self._waiting(child, nodes)
        self._refuse_spot(child, now)

    def _let_go(self, child: Child, now: float) -> None:
        """It was asked to end; it has once nothing is left."""
        if self.is_left:
            return
        is_late = self.was_made and now >= (child.kill_at or 0.0)
        child.ended_at = now
        child.exit_code = SIGKILL_CODE if self._last_code is None and is_late else self._last_code

    def _fail(self, child: Child, pod: PodSeen, nodes: Nodes, now: float) -> None:
        """One of its containers has ended by itself: what of the others is left is of no use."""
        code = pod.preparing_code if pod.ended_run is None else pod.exit_code
        words = pod.preparing_words if pod.ended_run is None else pod.last_words
        child.ended_at, child.exit_code, child.last_words = now, code, words
        is_taken = child.is_lost or child.has_notice or pod.is_disrupted or is_away(pod.node, nodes)
        child.loss = Loss.RECLAIMED if is_taken else None

    def _look_for_loss(self, child: Child, own: list[PodSeen], nodes: Nodes) -> None:
        """Nodes that end without having been asked to, or have gone: the others cannot go on without."""
        gone = [pod for pod in own if pod.is_ending or pod.uid not in self.pods]
        if gone and not child.is_lost:
            child.is_lost = child.has_notice = True
            child.last_words = (
                DELETED_BY_OTHERS if not self.may_be else f"{_place_of(gone[0].index)} was taken: {gone[0].name}"
            )

    def _bind(self, child: Child) -> None:
        """The first node's Pod is the replica's once all of its containers run."""
        running = [pod for pod in self.pods.values() if pod.is_running and pod.is_active]
        leader = next((pod for pod in running if pod.index == 0 and pod.address), None)
        if not child.pod and leader is not None and len(running) >= self.size:
            child.pod, child.run = leader.uid, leader.run

    def _see_machine(self, child: Child, nodes: Nodes) -> None:
        """What it runs on, by its first node; and whether any of its machines goes away."""
        leader = self.pods.get(child.pod)
        if leader is not None and nodes is not None and leader.node in nodes:
            child.machine = machine_of(leader, nodes)
        if nodes is not None and child.pod:
            homes = (nodes.get(pod.node) for pod in self.pods.values())
            child.has_notice |= any(home is not None and home.is_ending for home in homes)

    def _waiting(self, child: Child, nodes: Nodes) -> str:
        """What it waits for: which of its nodes for what, those for the same together."""
        if child.pod:
            away = sorted({pod.node for pod in self.pods.values() if is_away(pod.node, nodes)})
            return f"node {', '.join(away)}, which is not ready" if away else ""
        if not self.pods:
            hidden = "LeaderWorkerSets cannot be read" if self.is_hidden else ""
            return f"Pods: {self.problem or hidden}".removesuffix(": ")
        reasons: dict[str, list[str]] = {}
        by_index = {pod.index: pod for pod in self.pods.values() if pod.is_active}
        for index in range(self.size):
            pod = by_index.get(index)
            if reason := "a Pod" if pod is None else pod.waiting:
                reasons.setdefault(reason, []).append(_place_of(index))
        return "; ".join(f"{', '.join(who)}: {what}" for what, who in reasons.items())[:MAX_WAITING_CHARACTERS]

    def _refuse_spot(self, child: Child, now: float) -> None:
        """Who waits for a spot machine for too long will get none."""
        if self.spec is None or self.spec.needs.market != "spot" or child.pod or now < child.added_at + SPOT_SECONDS:
            return
        if len([pod for pod in self.pods.values() if pod.node]) < self.size:
            needs = self.spec.needs
            child.ended_at, child.loss, child.last_words = now, Loss.REFUSED, child.waiting
            child.machine = Machine("spot", needs.zone, needs.accelerator)

    def moments(self) -> Iterator[float]:
        """When something is to be done although nothing happens."""
        yield self.ask_at
        if self._is_unsure:
            yield self._sure_at
        child = self.child
        if child is None or child.is_told:
            return
        if child.ended_at is not None:
            yield child.ended_at + TELL_SECONDS
        elif child.kill_at is not None:
            yield child.kill_at
        elif not child.pod and self.spec is not None and self.spec.needs.market == "spot":
            yield child.added_at + SPOT_SECONDS


def _has_failed(pod: PodSeen) -> bool:
    """Whether one of its containers has ended by itself: those of a Pod that was asked to end have not."""
    return not pod.is_ending and (pod.is_over or pod.ended_run is not None or pod.preparing_code is not None)


def _place_of(index: int) -> str:
    return f"worker {index}" if index else "leader"
