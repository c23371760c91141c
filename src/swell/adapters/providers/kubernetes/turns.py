"""The loop over Deployments: the groups that something happened to are looked at, and what is due is written."""

import logging
import math
from collections.abc import Callable, Mapping

from swell.adapters.providers.kubernetes import manifests, names
from swell.adapters.providers.kubernetes.api import ApiProblem, Kind, ignoring_gone
from swell.adapters.providers.kubernetes.certificates import Certificates
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.manifests import Scale
from swell.adapters.providers.kubernetes.pacing import PacedApi
from swell.adapters.providers.kubernetes.plan import KILL_GRACE_SECONDS, Deletion, Marking, Plan, plan
from swell.adapters.providers.kubernetes.remains import CLEARING_SECONDS, Clearing, Remains, is_used
from swell.adapters.providers.kubernetes.rounds import TURN_SECONDS, Rounds
from swell.adapters.providers.kubernetes.seen import NodeSeen
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.providers.kubernetes.worker_set import WorkerSet
from swell.clock import Clock

CLAIMS_AT_ONCE = 10  # of one group, before it is looked at again
CERTIFICATES, REMAINS = "certificates", "remains"  # what is being written where it is no group: its key has a slash
DELETED_BY_OTHERS = "its Deployment was deleted by somebody else"

_log = logging.getLogger(__name__)


class Turns(Rounds[Group]):
    """Looks after `groups`; what is of `sets` stays. `nodes` says what is known of machines, `on_exit` is told who is
    gone."""

    def __init__(
        self,
        api: PacedApi,
        settings: ClusterSettings,
        clock: Clock,
        groups: dict[str, Group],
        sets: Mapping[str, WorkerSet],
        nodes: Callable[[], Mapping[str, NodeSeen] | None],
        on_exit: Callable[[str], None],
        certificates: Certificates,
        remains: Remains,
        clearing: Clearing,
    ) -> None:
        super().__init__(clock, groups)
        self._api = api
        self._settings = settings
        self._groups = groups
        self._sets = sets
        self._nodes = nodes
        self._on_exit = on_exit
        self._certificates = certificates
        self._remains = remains
        self._clearing = clearing
        self._known: dict[str, Group] | None = None  # by the id of a child of an earlier server

    def home_of(self, child_id: str) -> Group | None:
        """The group that a child of an earlier server belongs to, by what Deployments and Pods say."""
        if self._known is None:
            self._known = {}
            for group in self._groups.values():
                listed = group.applied.children if group.applied is not None else ()
                claimed = (pod.child_id for pod in group.pods.values() if pod.child_id)
                self._known.update(dict.fromkeys((*claimed, *listed), group))
        return self._known.get(child_id)

    def _besides(self) -> None:
        now = self._clock.monotonic()
        if self._certificates.is_due(now) and CERTIFICATES not in self._writing:
            self._begin(CERTIFICATES, self._certificates.turn())
        if self._remains.is_due(now) and REMAINS not in self._writing:
            self._begin(REMAINS, self._remains.turn())

    def _look_at(self, group: Group, now: float) -> None:
        for child in group.advance(self._nodes(), now):
            self._on_exit(child.child_id)
        found = plan(group, self._nodes(), now)
        has_claims = bool(found.claims) and self._api.has_spare()
        again = found.next_at if found.next_at > now else math.inf
        if now < group.not_before:
            self._later[group.key] = min(group.not_before, again)
        elif found.is_new and self._clearing.holds(group.name, group.workload):
            self._later[group.key] = now + CLEARING_SECONDS
        elif not found.is_idle or has_claims:
            self._begin(group.key, self._write(group, found, has_claims))
        else:
            again = min(again, now + TURN_SECONDS) if found.claims else again
            if again < math.inf:
                self._later[group.key] = again
            elif not group.children and not group.pods and group.applied is None and not group.vacancies:
                del self._groups[group.key]
                if group.problem:  # of what its last write had to do some may be done, and be there without it
                    self._remains.look()

    async def _write(self, group: Group, found: Plan, with_claims: bool) -> None:
        try:
            await self._mark(group, found.marks)
            if found.scale is not None:
                await self._scale(group, found.scale, is_new=found.is_new)
            for deletion in found.deletions:
                await self._delete(group, deletion)
            if found.is_removal:
                await self._remove(group)
            if with_claims:
                await self._mark(group, found.claims[:CLAIMS_AT_ONCE])
        except ApiProblem as problem:
            self._refused(group, found, problem)
        else:
            group.failures, group.problem = 0, ""

    def _refused(self, group: Group, found: Plan, problem: ApiProblem) -> None:
        now = self._failed(group, problem)
        _log.warning("writing Deployment %s failed: %s", group.name, problem.message)
        if found.is_new and problem.is_final:
            group.refuse(group.problem, now)

    async def _mark(self, group: Group, markings: tuple[Marking, ...]) -> None:
        for marking in markings:
            child_id, run, cost = marking.mark
            await ignoring_gone(
                self._api.annotate(marking.pod.name, manifests.mark(child_id=child_id, run=run, cost=cost))
            )
            group.marks[marking.pod.uid] = marking.mark

    async def _scale(self, group: Group, scale: Scale, *, is_new: bool) -> None:
        if not is_new:
            await self._apply(group, manifests.scaled(group.name, group.uid, scale), scale, names.SCALE_MANAGER)
            return
        if group.spec is None:
            group.refuse(DELETED_BY_OTHERS, self._clock.monotonic())
            return
        spec, settings = group.spec, self._settings
        secret, budget = manifests.secret(spec, settings), manifests.disruption_budget(spec.workload, settings)
        await self._api.apply(Kind.SECRETS, secret["metadata"]["name"], secret, manager=names.MANAGER)
        await self._certificates.prepare(group)
        await self._api.apply(Kind.DISRUPTION_BUDGETS, budget["metadata"]["name"], budget, manager=names.MANAGER)
        await self._apply(group, manifests.deployment(spec, settings, scale), scale, names.MANAGER)
        self._certificates.made(group)

    async def _apply(self, group: Group, manifest: Mapping[str, object], scale: Scale, manager: str) -> None:
        made = await self._api.apply(Kind.DEPLOYMENTS, group.name, manifest, manager=manager)
        group.made(made.metadata.uid, scale, made.metadata.generation)

    async def _delete(self, group: Group, deletion: Deletion) -> None:
        pod, grace = deletion.pod, deletion.grace_seconds
        await ignoring_gone(self._api.delete(Kind.PODS, pod.name, grace_seconds=grace))
        victim = group.victims.get(pod.uid)
        if victim is not None:
            victim.sent_seconds = grace
            if grace <= KILL_GRACE_SECONDS and victim.killed_at is None:
                victim.killed_at = self._clock.monotonic()
        if pod.is_over:
            group.cleared.add(pod.uid)

    async def _remove(self, group: Group) -> None:
        if self._certificates.are_asked_for(group):  # first: what is asked for is made again
            await ignoring_gone(self._api.delete(Kind.CERTIFICATES, names.certificate_name(group.name)))
        await ignoring_gone(self._api.delete(Kind.DEPLOYMENTS, group.name))
        group.unmake()
        group.is_clearing = True
        if group.authority:
            await ignoring_gone(self._api.delete(Kind.SECRETS, names.certificate_name(group.name)))
        if not is_used(group.workload, self._groups, self._sets):
            with self._clearing.of(group.workload):
                await ignoring_gone(self._api.delete(Kind.DISRUPTION_BUDGETS, names.object_name(group.workload)))
        await ignoring_gone(
            self._api.delete(Kind.SECRETS, group.name)
        )  # last: by it a later server knows of the others
