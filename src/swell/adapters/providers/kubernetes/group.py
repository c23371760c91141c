"""The children of one Deployment, and which Pod is whose. No I/O: what is seen goes in, what became of it is kept.

A Deployment's Pods are alike, so it does not matter who gets which. A child is given a Pod once that Pod's container
runs, and keeps it; which one it is is written to the Pod (a claim), so that a later server knows. Until then it waits.

A child is over when the run of the container that it was given is, and that is told once the Deployment no longer
names it, so that no later server takes it for one that waits. Its place stays for a moment, as a vacancy: the
ReplicaSet has made another Pod by then, or the kubelet has started the container anew, and the child that the fleet
starts instead takes it. What is not taken is given up. So a Deployment never asks for more Pods than are wanted, and
back-off, phases and decisions stay where they are for every provider: in the fleet.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swell.adapters.providers.kubernetes.children import Child, Mark, Nodes, Victim, is_away, machine_of
from swell.adapters.providers.kubernetes.manifests import NOTHING, Scale
from swell.adapters.providers.kubernetes.seen import DeploymentSeen, PodSeen
from swell.ports.provider import ChildSpec, Loss, Machine

VACANCY_SECONDS = 10.0
SPOT_SECONDS = 300.0  # until a market that has brought no machine is taken to have none
TELL_SECONDS = 5.0  # at most until an end is told although it could not be written
SIGKILL_CODE = -9


@dataclass
class Group:
    """Everything about one Deployment. `pods` are seen ones, by uid."""

    key: str
    name: str
    workload: str
    authority: str = ""  # whose certificates its Pods show; empty: they take plaintext
    spec: ChildSpec | None = None  # None: made by an earlier server, and no child was started since
    children: dict[str, Child] = field(default_factory=dict)
    pods: dict[str, PodSeen] = field(default_factory=dict)
    victims: dict[str, Victim] = field(default_factory=dict)
    vacancies: list[float] = field(default_factory=list)  # when each is given up
    marks: dict[str, Mark] = field(default_factory=dict)  # written to Pods, by uid
    cleared: set[str] = field(default_factory=set)  # uids of Pods that are over and were deleted
    charged: dict[str, int] = field(default_factory=dict)  # by uid, the last run whose end is some child's
    seen: DeploymentSeen | None = None
    uid: str = ""  # of the Deployment
    applied: Scale | None = None  # as last written, or found; None: there is no Deployment
    applied_generation: int = 0
    is_retired: bool = False  # another fingerprint has taken its place
    is_clearing: bool = False  # its Deployment has gone, and what else it had goes
    empty_since: float | None = None
    problem: str = ""  # why the last write failed
    failures: int = 0
    not_before: float = 0.0
    _departed: dict[str, PodSeen] = field(default_factory=dict)  # Pods that went since the last look, as last seen

    def pod_changed(self, old: PodSeen | None, new: PodSeen | None) -> None:
        """A Pod came, changed or went."""
        if new is not None:
            self.pods[new.uid] = new
        if old is not None and (new is None or new.uid != old.uid):
            self.pods.pop(old.uid, None)
            self._departed[old.uid] = old

    def deployment_changed(self, new: DeploymentSeen | None) -> None:
        """The Deployment came, changed or went. What was not made here is taken as it is."""
        gone = self.seen
        self.seen = new
        if new is None:
            if gone is not None and gone.uid == self.uid:
                self.unmake()
            return
        self.authority = new.authority
        if self.applied is None:
            self.made(new.uid, new.scale, new.generation)

    def made(self, uid: str, scale: Scale, generation: int) -> None:
        """The Deployment has this scale now."""
        self.uid, self.applied, self.applied_generation, self.is_clearing = uid, scale, generation, False

    def unmake(self) -> None:
        """There is no Deployment any more."""
        self.uid, self.applied, self.applied_generation = "", None, 0

    def desired(self) -> Scale:
        """How many Pods there shall be, and for whom."""
        held = [child for child in self.children.values() if child.is_held]
        count = sum(not child.is_lost for child in held) + len(self.vacancies)
        return Scale(count, tuple(sorted(child.child_id for child in held)))

    def add(self, spec: ChildSpec, now: float) -> None:
        """A child more, in a vacancy where there is one."""
        self.spec = spec
        self.authority = spec.needs.tls.authority if spec.needs.tls is not None else ""
        self.is_retired = False
        self.children[spec.child_id] = Child(spec.child_id, spec.log_path, now)
        if self.vacancies:
            self.vacancies.pop(0)

    def adopt(self, child_id: str, log_path: Path, now: float) -> bool:
        """Take over a child of an earlier server; whether it is still there."""
        pod = next((each for each in self.pods.values() if each.child_id == child_id), None)
        is_wanted = self.applied is not None and child_id in self.applied.children
        if pod is None and not is_wanted:
            return False
        child = Child(child_id, log_path, now)
        if pod is not None:
            child.is_told_of = True
            child.pod, child.run = pod.uid, pod.child_run
            if child.has_ended(pod):
                return False
            if not is_wanted:  # its server was about to let it go
                child.kill_at = now
                self.victims.setdefault(pod.uid, Victim(now, now))
        self.children[child_id] = child
        return True

    def end_orphans(self, now: float) -> None:
        """Adoption is over: what nobody took over is given up, unless somebody takes its place at once."""
        missing = (self.applied or NOTHING).replicas - self.desired().replicas
        self.vacancies += [now + VACANCY_SECONDS] * missing

    def leave(self, child_id: str, grace_seconds: float, now: float) -> None:
        """Ask a child to end; a later call can only shorten its grace."""
        child = self.children.get(child_id)
        if child is None or child.is_gone:
            return
        kill_at = now + max(0.0, grace_seconds)
        child.kill_at = kill_at if child.kill_at is None else min(child.kill_at, kill_at)
        if not child.pod:
            self._give_surplus(child, now)
        if child.pod:
            victim = self.victims.setdefault(child.pod, Victim(now, child.kill_at))
            victim.kill_at = min(victim.kill_at, child.kill_at)

    def advance(self, nodes: Nodes, now: float) -> list[Child]:
        """Bring children up to what is seen; those that are over since. `nodes` is None where they may not be read."""
        self.vacancies = [until for until in self.vacancies if until > now]
        self._forget_pods()
        self._charge()
        for child in self.children.values():
            if not child.is_gone:
                self._settle(child, nodes, now)
        self._bind()
        self._refuse_spot(now)
        self._see_machines(nodes)
        self._departed.clear()
        self._tell_waiting(nodes)
        is_empty = not self.vacancies and all(child.is_gone for child in self.children.values())
        self.empty_since = (now if self.empty_since is None else self.empty_since) if is_empty else None
        return self._tell(now)

    def is_ready(self, child: Child) -> bool:
        """Whether it may get requests."""
        pod = self.pods.get(child.pod)
        return pod is not None and pod.is_ready

    def refuse(self, message: str, now: float) -> None:
        """The API will not have it: children without a Pod are over, for this reason."""
        for child in self.children.values():
            if not child.is_gone and not child.pod:
                child.ended_at, child.last_words = now, message
        self.vacancies.clear()

    def active(self) -> list[PodSeen]:
        """What the ReplicaSet counts."""
        return [pod for pod in self.pods.values() if pod.is_active]

    def free(self) -> list[PodSeen]:
        """Active Pods that are nobody's, in the order of their coming."""
        taken = {child.pod for child in self.children.values() if not child.is_gone}
        found = [pod for pod in self.active() if pod.uid not in taken and pod.uid not in self.victims]
        return sorted(found, key=lambda pod: (pod.born, pod.name))

    def _forget_pods(self) -> None:
        kinds: tuple[dict[str, Any], ...] = (self.victims, self.marks, self.charged)
        for kept in kinds:
            for uid in [uid for uid in kept if uid not in self.pods]:
                del kept[uid]
        self.cleared &= self.pods.keys()

    def _settle(self, child: Child, nodes: Nodes, now: float) -> None:
        if not child.pod:
            if child.is_leaving and self._is_let_go(child):
                child.ended_at = now
            return
        pod = self.pods.get(child.pod) or self._departed.get(child.pod)
        if child.pod in self.pods and pod is not None and not child.has_ended(pod):
            if pod.is_ending and not child.is_leaving and not child.is_lost:
                child.is_lost = True
                self.vacancies.append(now + VACANCY_SECONDS)
            return
        child.ended_at = now
        if pod is not None and child.has_ended(pod):
            child.exit_code, child.last_words = pod.exit_code, pod.last_words
            self.charged[pod.uid] = max(child.run, pod.ended_run or 0)
        elif child.is_leaving and now >= (child.kill_at or 0.0):
            child.exit_code = SIGKILL_CODE  # nobody told, and it had no time left for anything else
        is_disrupted = pod is not None and (pod.is_disrupted or is_away(pod.node, nodes))
        is_taken = child.is_lost or child.has_notice or is_disrupted
        child.loss = Loss.RECLAIMED if is_taken and not child.is_leaving else None
        if not child.is_leaving and not child.is_lost:
            self.vacancies.append(now + VACANCY_SECONDS)

    def _is_let_go(self, child: Child) -> bool:
        """Whether a child without a Pod has left nothing that could still become one."""
        applied = self.applied or NOTHING
        return child.child_id not in applied.children and len(self.active()) <= applied.replicas

    def _charge(self) -> None:
        """A container that ended before anybody was given it: its end is the end of one who waits."""
        waiting = [child for child in self.children.values() if child.is_held and not child.pod]
        for pod in self.free() if waiting else ():
            if pod.ended_run is None or pod.is_running or pod.ended_run <= self.charged.get(pod.uid, -1):
                continue
            if not waiting:
                return
            child = waiting.pop(0)
            child.pod, child.run = pod.uid, pod.ended_run

    def _tell(self, now: float) -> list[Child]:
        """Children whose end may be told, and was not yet."""
        named = self.applied.children if self.applied is not None else ()
        told = [
            child
            for child in self.children.values()
            if child.ended_at is not None
            and not child.is_told
            and (child.child_id not in named or now >= child.ended_at + TELL_SECONDS)
        ]
        for child in told:
            child.is_told = True
        return told

    def _bind(self) -> None:
        """Give Pods whose containers run to those who wait, first come first served."""
        waiting = [child for child in self.children.values() if child.is_held and not child.pod]
        if not waiting:
            return
        ready = [pod for pod in self.free() if pod.is_running and pod.address]
        ready.sort(key=lambda pod: not pod.is_ready)
        for child, pod in zip(waiting, ready, strict=False):
            child.pod, child.run = pod.uid, pod.run

    @property
    def is_on_spot(self) -> bool:
        """Whether its Pods wait for machines that a market may not have."""
        return self.spec is not None and self.spec.needs.market == "spot"

    def _refuse_spot(self, now: float) -> None:
        """Who waits for a spot machine for too long will get none."""
        if not self.is_on_spot or self.spec is None:
            return
        has_none = sum(not pod.node for pod in self.free())
        needs = self.spec.needs
        for child in list(self.children.values()):
            if has_none and child.is_held and not child.pod and now >= child.added_at + SPOT_SECONDS:
                has_none -= 1
                child.ended_at, child.loss, child.last_words = now, Loss.REFUSED, child.waiting
                child.machine = Machine("spot", needs.zone, needs.accelerator)

    def _see_machines(self, nodes: Nodes) -> None:
        """What children run on, and whether it goes away."""
        for child in self.children.values():
            pod = self.pods.get(child.pod) if not child.is_gone else None
            if pod is None:
                continue
            node = nodes.get(pod.node) if nodes is not None else None
            if node is not None:
                child.machine = machine_of(pod, nodes)
            if not child.is_leaving and (child.is_lost or (node is not None and node.is_ending)):
                child.has_notice = True

    def _give_surplus(self, child: Child, now: float) -> None:
        """A Pod too many runs, or was to be killed by now: it is this child's that leaves, and ends with it."""
        waiting = sum(each.is_held and not each.pod for each in self.children.values())
        free = self.free()
        if len(free) <= waiting:
            return
        running = [pod for pod in free if pod.is_running]
        pod = running[-1] if running else free[-1]
        if pod.is_running or now >= (child.kill_at or 0.0):
            child.pod, child.run = pod.uid, pod.run

    def _tell_waiting(self, nodes: Nodes) -> None:
        """Every child's word on what it waits for; of those without a Pod, in the order of their Pods."""
        unbound = [child for child in self.children.values() if child.is_held and not child.pod]
        pods = iter(self.free())
        for child in unbound:
            pod = next(pods, None)
            if pod is None:
                reason = self.problem or (self.seen.problem if self.seen is not None else "")
                child.waiting = f"a Pod: {reason}" if reason else "a Pod"
            else:
                child.waiting = pod.waiting or "its Pod to be given to it"
        for child in self.children.values():
            if child.pod:
                pod = self.pods.get(child.pod)
                lost = pod is not None and is_away(pod.node, nodes)
                child.waiting = f"node {pod.node}, which is not ready" if pod is not None and lost else ""


def held_pods(group: Group) -> Iterator[tuple[Child, PodSeen]]:
    """Children that shall run and have a Pod that is not ending."""
    for child in group.children.values():
        pod = group.pods.get(child.pod) if child.is_held else None
        if pod is not None and pod.is_active:
            yield child, pod
