"""Children as Pods of a Kubernetes cluster: one Deployment for each workload and fingerprint; of those that span nodes,
one LeaderWorkerSet each.

What shall be is kept here and written to the cluster; what is comes from watches. `start` and `stop` only change what
shall be, so that many of them in one step of the fleet become one write per Deployment. Nothing is asked of the API per
replica, and nothing is waited for: a server that is killed at any point leaves a cluster that says what it was to be.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from swell.adapters.providers.kubernetes import manifests, names
from swell.adapters.providers.kubernetes.api import ApiProblem, ClusterApi, Kind
from swell.adapters.providers.kubernetes.certificates import Certificates
from swell.adapters.providers.kubernetes.children import Child
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.lasting import lasting
from swell.adapters.providers.kubernetes.pacing import Pace, PacedApi, Pause
from swell.adapters.providers.kubernetes.pods import ENGINE
from swell.adapters.providers.kubernetes.prefetch import Prefetching
from swell.adapters.providers.kubernetes.remains import Clearing, Remains
from swell.adapters.providers.kubernetes.seen import (
    DeploymentSeen,
    NodeSeen,
    PodSeen,
    WorkerSetSeen,
    see_deployment,
    see_node,
    see_pod,
    see_worker_set,
)
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.providers.kubernetes.sidecar import ENGINE_PORT, PORT
from swell.adapters.providers.kubernetes.turns import Turns
from swell.adapters.providers.kubernetes.watch import Watched, Watching
from swell.adapters.providers.kubernetes.worker_set import WorkerSet
from swell.adapters.providers.kubernetes.worker_set_manifests import LEADER, RANK
from swell.adapters.providers.kubernetes.worker_sets import WorkerSets
from swell.clock import Clock
from swell.errors import AtCapacity, LaunchFailed
from swell.ports.engine import LOOPBACK, Address
from swell.ports.provider import (
    LOG_TAIL_BYTES,
    Binding,
    ChildHandle,
    ChildSpec,
    ChildStatus,
    Expected,
    Loss,
    Preparation,
    Presence,
)
from swell.security.replica_tls import replica_name
from swell.state.snapshot import ClientIdentity

EVERYWHERE = "0.0.0.0"  # noqa: S104  of a Pod's own network
SYNC_SECONDS = 30.0  # until a cluster has told what there is, or is taken for out of reach
FAILING_SECONDS = 10.0  # the same, where all that comes is errors
SILENT_SECONDS = 30.0  # without an answer, after which nothing new is taken on
RETRY_SECONDS = 5.0
RECALL_TRIES = 6  # within SYNC_SECONDS, to list Secrets
LOG_LINES = 80

_GONE = ChildStatus(Presence.GONE)


class KubernetesProvider:
    """Runs children in a namespace of a cluster. Use it from one event loop; `close` leaves the Pods running.

    `on_exit` is called with a child's id when it is gone.
    """

    def __init__(
        self,
        api: ClusterApi,
        settings: ClusterSettings,
        *,
        clock: Clock,
        on_exit: Callable[[str], None] | None = None,
        pace: Pace | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self.api = PacedApi(api, clock, pace, pause)
        self._settings = settings
        self._namespace = settings.namespace
        self._clock, self._pause = clock, pause
        self._groups: dict[str, Group] = {}
        self._sets: dict[str, WorkerSet] = {}  # by name
        self._homes: dict[str, Group | WorkerSet] = {}  # by child id
        self._current: dict[str, Group] = {}  # by workload, the one that was started last
        self._logs: dict[Path, str] = {}  # child ids by log, the last one each
        self._adopting = True
        self._has_recalled = False
        self.tasks: list[asyncio.Task[None]] = []
        query = names.as_query(names.replica_selector(settings.installation))
        self._deployments: Watched[DeploymentSeen] = Watched(
            Watching(self.api, Kind.DEPLOYMENTS, query, clock, pause), see_deployment, self._deployment_changed
        )
        self._pods: Watched[PodSeen] = Watched(
            Watching(self.api, Kind.PODS, query, clock, pause), see_pod, self._pod_changed
        )
        self._nodes: Watched[NodeSeen] = Watched(
            Watching(self.api, Kind.NODES, "", clock, pause), see_node, self._node_changed
        )
        self._worker_sets: Watched[WorkerSetSeen] = Watched(
            Watching(self.api, Kind.LEADER_WORKER_SETS, query, clock, pause, optional=True),
            see_worker_set,
            self._worker_set_changed,
        )
        exits = on_exit or (lambda _: None)
        self._prefetching = Prefetching(self.api, settings, clock, pause)
        self._certificates = Certificates(self.api, settings, clock, self._groups)
        clearing = Clearing()
        self._set_turns = WorkerSets(
            self.api,
            settings,
            clock,
            self._sets,
            self._groups,
            self._known_nodes,
            self._known_sets,
            exits,
            clearing,
        )
        kept = self._groups, self._sets
        self._remains = Remains(self.api, settings, clock, *kept, self._certificates, self._set_turns.recall, clearing)
        self._turns = Turns(
            self.api, settings, clock, *kept, self._known_nodes, exits, self._certificates, self._remains, clearing
        )

    @property
    def binding(self) -> Binding:
        """Every Pod has a network of its own, and one template. Behind TLS nobody but the Pod reaches an engine."""
        host, port = (LOOPBACK, ENGINE_PORT) if self._settings.authority else (EVERYWHERE, PORT)
        return Binding(host, port, alike=True, leader=LEADER, rank=RANK)

    async def start(self, child: ChildSpec) -> ChildHandle:
        await self._ready()
        self._end_adoption()
        known = self._find(child.child_id)
        if known is not None and not known.is_gone:
            return _handle(child.child_id, child.log_path)
        self._require_answers()
        if child.needs.nodes > 1:
            self._require_sets(child)
            self._current.pop(child.workload, None)
            self._retire_others(child.workload, None)
            self._keep(child.child_id, child.log_path, self._set_turns.start(child))
            return _handle(child.child_id, child.log_path)
        key = names.group_key(names.labels(self._settings.installation, child.workload, child.fingerprint))
        group = self._groups.get(key)
        if group is None or group.spec is None:
            manifests.deployment(child, self._settings, manifests.NOTHING)  # refuses what no Pod can be made of
        group = group or self._group(key, names.object_name(child.workload, child.fingerprint), child.workload)
        if not manifests.fits([*group.children, child.child_id]):
            raise LaunchFailed(f"{child.workload} has more replicas than one Deployment can name")
        group.add(child, self._clock.monotonic())
        if self._current.get(child.workload) is not group:
            self._current[child.workload] = group
            self._retire_others(child.workload, group)
        self._keep(child.child_id, child.log_path, group)
        return _handle(child.child_id, child.log_path)

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        await self._ready()
        found = self._find(child_id)
        if found is not None and not found.is_gone:
            return _handle(child_id, log_path)
        home = await self._take_over(child_id, log_path)
        if home is None:
            return None
        self._keep(child_id, log_path, home)
        return _handle(child_id, log_path)

    async def _take_over(self, child_id: str, log_path: Path) -> Group | WorkerSet | None:
        group = self._turns.home_of(child_id)
        if group is not None:
            return group if group.adopt(child_id, log_path, self._clock.monotonic()) else None
        found = self._set_turns.adopt(child_id, log_path)
        if found is not None:
            return found
        await self._recall_sets()
        return self._set_turns.adopt(child_id, log_path)

    async def end_orphans(self) -> None:
        await self._ready()
        if self._adopting:
            for group in self._groups.values():
                group.end_orphans(self._clock.monotonic())
            self._set_turns.end_orphans()
            self._remains.look()
            self._turns.wake()
            self.tasks += await self._prefetching.begin()
        self._end_adoption()

    def expect(self, expected: Sequence[Expected]) -> None:
        self._prefetching.expect(expected)

    def preparations(self) -> Sequence[Preparation]:
        return self._prefetching.preparations()

    def status(self, handle: ChildHandle) -> ChildStatus:
        child = self._find(handle.child_id)
        if child is None:
            return _GONE
        if child.is_told:
            return ChildStatus(Presence.GONE, child.exit_code, machine=child.machine, loss=child.loss)
        known = ChildStatus(Presence.RUNNING, machine=child.machine, loss=Loss.NOTICE if child.has_notice else None)
        home = self._homes[handle.child_id]
        authority = home.authority if isinstance(home, Group) else ""
        lacking = self._certificates.lacking(authority) if authority else ""
        waiting = " and ".join(each for each in (child.waiting, lacking) if each)
        pod = home.pods.get(child.pod) if not child.is_gone else None
        if pod is None:
            return replace(known, waiting=waiting, ready=False)
        address = self._address(home, pod)
        if address is not None and not lacking:
            child.is_told_of = True
        # Whoever was reached once is not ended for want of a certificate that it is not to blame for.
        is_ready = home.is_ready(child) and child.is_told_of
        return replace(known, address=address, waiting=waiting, ready=is_ready)

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        child = self._find(handle.child_id)
        if child is None or child.is_gone:
            return
        self._end_adoption()
        home = self._homes[handle.child_id]
        home.leave(handle.child_id, grace_seconds, self._clock.monotonic())
        self._look(home)

    async def log_tail(self, log_path: Path) -> str:
        child = self._find(self._logs.get(log_path, ""))
        if child is None:
            return ""
        pod = self._homes[child.child_id].pods.get(child.pod)
        if child.last_words or pod is None:
            return child.last_words[-LOG_TAIL_BYTES:]
        try:
            return (await self.api.read_log(pod.name, ENGINE, max_bytes=LOG_TAIL_BYTES, lines=LOG_LINES)).strip()
        except ApiProblem:
            return ""

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        """Nothing: kubelets rotate what their containers write."""

    async def forget(self, handle: ChildHandle) -> None:
        child = self._find(handle.child_id)
        if child is not None and child.is_told:
            home = self._homes.pop(handle.child_id)
            del home.children[handle.child_id]
            if isinstance(home, WorkerSet):  # what is left of it goes on being cleared away
                home.is_orphan = True
                self._look(home)
            if self._logs.get(child.log_path) == handle.child_id:
                del self._logs[child.log_path]

    async def close(self) -> None:
        """Stop watching. Pods go on; a later provider adopts their children."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.api.close()

    def wake(self) -> None:
        """Have it look at once, as after a jump of an injected clock."""
        self._turns.wake()
        self._set_turns.wake()
        self._prefetching.wake()

    @property
    def identities(self) -> tuple[ClientIdentity, ...]:
        """What gateways must show its children, as far as it is there."""
        return self._certificates.identities

    @property
    def groups(self) -> tuple[Group, ...]:
        """Deployments with their children and Pods."""
        return tuple(self._groups.values())

    @property
    def silent_seconds(self) -> float:
        """For how long the API has not answered."""
        now = self._clock.monotonic()
        return max(self._deployments.silent_seconds(now), self._pods.silent_seconds(now))

    async def _ready(self) -> None:
        """Begin to watch, and wait until it is known what there is. Raises AtCapacity."""
        watched = (self._deployments, self._pods, self._nodes, self._worker_sets)
        if not self.tasks:
            self.tasks = [lasting(each.run, self._pause) for each in watched]
        for seconds in (FAILING_SECONDS, SYNC_SECONDS - FAILING_SECONDS):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    for each in watched:
                        await each.ready.wait()
            waiting = [each for each in watched if not each.ready.is_set()]
            if not waiting or any(each.is_failing for each in waiting):
                break
        if waiting:
            raise _out_of_reach(next((each.problem for each in waiting if each.problem), "no answer"))
        for each in (self._deployments, self._pods):
            if each.denied:
                raise _out_of_reach(each.problem)
        if problem := await self._certificates.begin():
            raise _out_of_reach(problem)

    async def _recall_sets(self) -> None:
        """Find LeaderWorkerSets without Pods, too, where they cannot be read. Raises AtCapacity."""
        if self._has_recalled or not self._worker_sets.is_blind:
            return
        for left in reversed(range(RECALL_TRIES)):
            try:
                await self._remains.recall_sets()
                break
            except ApiProblem as problem:
                if problem.is_final:
                    break
                if not left:
                    raise _out_of_reach(problem.message) from problem
                await self._pause(SYNC_SECONDS / RECALL_TRIES)
        self._has_recalled = True

    def _address(self, home: Group | WorkerSet, pod: PodSeen) -> Address | None:
        """Where gateways reach a Pod."""
        if not pod.address:
            return None
        if isinstance(home, WorkerSet) or not home.authority:
            return Address(pod.address, PORT)
        identity, name = self._certificates.identity_of(home.authority), replica_name(home.name, self._namespace)
        return Address(pod.address, PORT, tls=True, identity=identity, server_name=name)

    def _require_answers(self) -> None:
        if self.silent_seconds >= SILENT_SECONDS:
            raise _out_of_reach(self._deployments.problem or self._pods.problem)

    def _end_adoption(self) -> None:
        if not self._adopting:
            return
        self._adopting = False
        self.tasks += [lasting(each.run, self._pause) for each in (self._turns, self._set_turns)]
        for group in self._groups.values():
            self._turns.look(group)
        self._set_turns.look_at_all()

    def _retire_others(self, workload: str, group: Group | None) -> None:
        """A workload has one fingerprint at a time: Deployments of others go when their last Pod has."""
        for other in self._groups.values():
            if other.workload == workload and other is not group:
                other.is_retired = True
                self._turns.look(other)

    def _require_sets(self, child: ChildSpec) -> None:
        """Raises LaunchFailed where there can be no LeaderWorkerSets."""
        if self._worker_sets.missing:
            where = f"{child.workload} spans {child.needs.nodes} nodes, for which the cluster needs LeaderWorkerSet"
            raise LaunchFailed(f"{where}: it is not installed; see https://lws.sigs.k8s.io")
        if self._worker_sets.denied:
            where = f"{child.workload} spans {child.needs.nodes} nodes, and LeaderWorkerSets may not be read"
            raise LaunchFailed(f"{where}: {self._worker_sets.problem}; give the rights that docs/kubernetes.md lists")

    def _keep(self, child_id: str, log_path: Path, home: Group | WorkerSet) -> None:
        self._homes[child_id] = home
        self._logs[log_path] = child_id
        self._look(home)

    def _look(self, home: Group | WorkerSet) -> None:
        if isinstance(home, WorkerSet):
            self._set_turns.look(home)
        else:
            self._turns.look(home)

    def _find(self, child_id: str) -> Child | None:
        home = self._homes.get(child_id)
        return home.children.get(child_id) if home is not None else None

    def _group(self, key: str, name: str, workload: str) -> Group:
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, name, workload)
        group.name, group.workload = name or group.name, workload or group.workload
        return group

    def _known_nodes(self) -> dict[str, NodeSeen] | None:
        return None if self._nodes.denied else self._nodes.views

    def _known_sets(self) -> dict[str, WorkerSetSeen] | None:
        return None if self._worker_sets.is_blind else self._worker_sets.views

    def _worker_set_changed(self, old: WorkerSetSeen | None, new: WorkerSetSeen | None) -> None:
        self._set_turns.set_changed(old, new)

    def _pod_changed(self, old: PodSeen | None, new: PodSeen | None) -> None:
        if any(pod is not None and pod.set_name for pod in (old, new)):
            self._set_turns.pod_changed(old, new)
            return
        for each in {pod.group for pod in (old, new) if pod is not None}:
            group = self._group(each, "", "")
            group.pod_changed(old, new if new is not None and new.group == each else None)
            self._turns.look(group)

    def _deployment_changed(self, old: DeploymentSeen | None, new: DeploymentSeen | None) -> None:
        for seen in (old, new):
            if seen is not None and (new is None or seen is new or seen.group != new.group):
                group = self._group(seen.group, seen.name, seen.workload)
                group.deployment_changed(new if seen is new else None)
                self._turns.look(group)

    def _node_changed(self, old: NodeSeen | None, new: NodeSeen | None) -> None:
        name = new.name if new is not None else old.name if old is not None else ""
        for pod in [pod for pod in self._pods.views.values() if pod.node == name]:
            self._look(self._sets[pod.set_name] if pod.set_name else self._groups[pod.group])


def _handle(child_id: str, log_path: Path) -> ChildHandle:
    """A child's id is all that it is known by; there is no process here."""
    return ChildHandle(child_id, log_path, pid=0, start_time=0.0)


def _out_of_reach(problem: str) -> AtCapacity:
    return AtCapacity(f"the cluster's API does not answer as it should: {problem}", retry_after_seconds=RETRY_SECONDS)
