"""All LeaderWorkerSets of an installation: which there are, and the loop that writes them."""

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path

from swell.adapters.providers.kubernetes import manifests, names
from swell.adapters.providers.kubernetes.api import NOT_FOUND, ApiProblem, Kind, ignoring_gone
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.pacing import PacedApi
from swell.adapters.providers.kubernetes.plan import KILL_GRACE_SECONDS, Deletion
from swell.adapters.providers.kubernetes.remains import CLEARING_SECONDS, Clearing, is_used
from swell.adapters.providers.kubernetes.rounds import Rounds
from swell.adapters.providers.kubernetes.seen import NodeSeen, PodSeen, WorkerSetSeen
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.providers.kubernetes.worker_set import WorkerSet
from swell.adapters.providers.kubernetes.worker_set_manifests import leader_worker_set
from swell.adapters.providers.kubernetes.worker_set_plan import SetPlan, plan_set
from swell.clock import Clock
from swell.ports.provider import ChildSpec

_log = logging.getLogger(__name__)


class WorkerSets(Rounds[WorkerSet]):
    """Looks after `sets`, by name; what is of `groups` stays. `nodes` says what is known of machines, `seen` which sets
    there are, and None while they cannot be read; `on_exit` is told who is gone."""

    def __init__(
        self,
        api: PacedApi,
        settings: ClusterSettings,
        clock: Clock,
        sets: dict[str, WorkerSet],
        groups: Mapping[str, Group],
        nodes: Callable[[], Mapping[str, NodeSeen] | None],
        seen: Callable[[], Mapping[str, WorkerSetSeen] | None],
        on_exit: Callable[[str], None],
        clearing: Clearing,
    ) -> None:
        super().__init__(clock, sets)
        self._api = api
        self._settings = settings
        self._sets = sets
        self._groups = groups
        self._nodes = nodes
        self._seen = seen
        self._is_hidden = False
        self._on_exit = on_exit
        self._clearing = clearing
        self._is_settled = False  # adoption is over
        self._budgeted: set[str] = set()  # workloads whose budget of disruptions was written

    def start(self, spec: ChildSpec) -> WorkerSet:
        """A replica more. Raises LaunchFailed for what no Pods can be made of."""
        leader_worker_set(spec, self._settings)
        found = self._find(names.set_name(spec.workload, spec.child_id))
        found.start(spec, self._clock.monotonic())
        self.look(found)
        return found

    def adopt(self, child_id: str, log_path: Path) -> WorkerSet | None:
        """Take over a replica of an earlier server; None where nothing is left of it."""
        self._look_around()
        for each in self._sets.values():
            if each.child_id == child_id and each.adopt(child_id, log_path, self._clock.monotonic()):
                self.look(each)
                return each
        return None

    def recall(self, name: str, workload: str, child_id: str) -> None:
        """An earlier server may have made one of which there is only the Secret to be seen."""
        found = self._find(name)
        found.recall(workload, child_id)
        self._mark_orphan(found)
        self.look(found)

    def end_orphans(self) -> None:
        """Adoption is over: what nobody took over goes, as soon as it is idle."""
        self._is_settled = True
        for each in self._sets.values():
            self._mark_orphan(each)
            self.look(each)

    def look_at_all(self) -> None:
        """Have every one looked at."""
        for each in self._sets.values():
            self.look(each)

    def set_changed(self, old: WorkerSetSeen | None, new: WorkerSetSeen | None) -> None:
        """A LeaderWorkerSet came, changed or went."""
        seen = new or old
        if seen is not None:
            found = self._find(seen.name)
            found.set_changed(new)
            self._mark_orphan(found)
            self.look(found)

    def pod_changed(self, old: PodSeen | None, new: PodSeen | None) -> None:
        """A Pod of one came, changed or went."""
        seen = new or old
        if seen is not None:
            found = self._find(seen.set_name)
            found.pod_changed(old, new)
            self._mark_orphan(found)
            self.look(found)

    def _mark_orphan(self, item: WorkerSet) -> None:
        item.is_orphan |= self._is_settled and item.child is None

    def _find(self, name: str) -> WorkerSet:
        return self._sets.setdefault(name, WorkerSet(name, is_hidden=self._is_hidden))

    def _look_around(self) -> None:
        """Have all looked at where they can no longer be read, or can be read again."""
        seen = self._seen()
        if self._is_hidden == (seen is None):
            return
        self._is_hidden = seen is None
        for name, item in self._sets.items():
            item.shown(self._is_hidden, seen.get(name) if seen is not None else None)
            self.look(item)

    def turn(self, now: float) -> None:
        self._look_around()
        super().turn(now)

    def _look_at(self, item: WorkerSet, now: float) -> None:
        for child in item.advance(self._nodes(), now):
            self._on_exit(child.child_id)
        found = plan_set(item, self._nodes(), now)
        again = found.next_at if found.next_at > now else math.inf
        if found.is_new and self._clearing.holds(item.name, item.workload):
            again = now + CLEARING_SECONDS
        elif not found.is_idle and now >= item.not_before:
            self._begin(item.key, self._write(item, found))
            return
        elif not found.is_idle:
            again = min(item.not_before, again)
        if again < math.inf:
            self._later[item.key] = again
        elif not item.children and not item.is_left:
            del self._sets[item.key]

    async def _write(self, item: WorkerSet, found: SetPlan) -> None:
        try:
            if found.is_new:
                await self._make(item)
            if found.is_deletion:
                await self._end(item)
            for deletion in found.deletions:
                await self._delete(item, deletion)
            if found.is_clearing:
                await self._clear(item)
        except ApiProblem as problem:
            now = self._failed(item, problem)
            _log.warning("writing LeaderWorkerSet %s failed: %s", item.name, problem.message)
            if found.is_new and problem.is_final:
                item.refuse(item.problem, now)
        else:
            item.failures, item.problem = 0, ""

    async def _make(self, item: WorkerSet) -> None:
        """Whatever it takes comes first: Pods begin as soon as it is there."""
        spec, settings = item.spec, self._settings
        if spec is None:
            return
        manifest = leader_worker_set(spec, settings)
        secret = manifests.secret(spec, settings, item.name)
        item.has_secret = True
        await self._api.apply(Kind.SECRETS, item.name, secret, manager=names.MANAGER)
        if spec.workload not in self._budgeted:
            budget = manifests.disruption_budget(spec.workload, settings)
            await self._api.apply(Kind.DISRUPTION_BUDGETS, budget["metadata"]["name"], budget, manager=names.MANAGER)
            self._budgeted.add(spec.workload)
        was_tried, item.is_tried = item.is_tried, True
        try:
            made = await self._api.apply(Kind.LEADER_WORKER_SETS, item.name, manifest, manager=names.MANAGER)
        except ApiProblem as problem:
            item.is_tried = was_tried or not problem.is_final
            raise
        item.made(made.metadata.uid)

    async def _end(self, item: WorkerSet) -> None:
        is_known = True
        try:
            await self._api.delete(Kind.LEADER_WORKER_SETS, item.name)
        except ApiProblem as problem:
            if problem.status != NOT_FOUND or item.name in (self._seen() or {}):
                raise  # one that is shown is there, whatever another API server says: ask again
            is_known = False
        item.deletion_answered(self._clock.monotonic(), is_known=is_known)

    async def _delete(self, item: WorkerSet, deletion: Deletion) -> None:
        pod, grace = deletion.pod, deletion.grace_seconds
        await ignoring_gone(self._api.delete(Kind.PODS, pod.name, grace_seconds=grace))
        item.sent[pod.uid] = grace
        if grace <= KILL_GRACE_SECONDS:
            item.killed_at.setdefault(pod.uid, self._clock.monotonic())

    async def _clear(self, item: WorkerSet) -> None:
        """What it leaves behind, the budget too where it is the last of its workload; last by what it is known."""
        item.is_clearing = True
        if item.workload and not is_used(item.workload, self._groups, self._sets):
            self._budgeted.discard(item.workload)
            with self._clearing.of(item.workload):
                await ignoring_gone(self._api.delete(Kind.DISRUPTION_BUDGETS, names.object_name(item.workload)))
        await ignoring_gone(self._api.delete(Kind.SECRETS, item.name))
        item.has_secret = False
