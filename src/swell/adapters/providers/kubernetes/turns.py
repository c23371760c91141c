"""The loop that makes the cluster what it shall be: look at the groups that something happened to, write what is due.

One group has one write at a time, so that what is written last is what is wanted last; different groups are written at
once, as far as the pace allows. A write that fails is not repeated but planned anew, after a back-off.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from swell.adapters.providers.kubernetes import manifests, names
from swell.adapters.providers.kubernetes.api import NOT_FOUND, ApiProblem, Kind
from swell.adapters.providers.kubernetes.certificates import Certificates
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.manifests import Scale
from swell.adapters.providers.kubernetes.pacing import PacedApi
from swell.adapters.providers.kubernetes.plan import KILL_GRACE_SECONDS, Deletion, Marking, Plan, plan
from swell.adapters.providers.kubernetes.seen import NodeSeen
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.clock import Clock

WRITES_AT_ONCE = 16
CLAIMS_AT_ONCE = 10  # of one group, before it is looked at again
TURN_SECONDS = 1.0  # at most between two looks at what is due by time
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0
CERTIFICATES = "certificates"  # what is being written where it is no group: a group's key has a slash
DELETED_BY_OTHERS = "its Deployment was deleted by somebody else"

_log = logging.getLogger(__name__)


class Turns:
    """Looks after `groups`. `nodes` says what is known of machines, `on_exit` is told who is gone."""

    def __init__(
        self,
        api: PacedApi,
        settings: ClusterSettings,
        clock: Clock,
        groups: dict[str, Group],
        nodes: Callable[[], Mapping[str, NodeSeen] | None],
        on_exit: Callable[[str], None],
        certificates: Certificates,
    ) -> None:
        self._api = api
        self._settings = settings
        self._clock = clock
        self._groups = groups
        self._nodes = nodes
        self._on_exit = on_exit
        self._certificates = certificates
        self._due: dict[str, Group] = {}  # to be looked at
        self._later: dict[str, float] = {}  # and when, without anything having happened
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._secrets_to_clear = False
        self._known: dict[str, Group] | None = None  # by the id of a child of an earlier server

    def look(self, group: Group) -> None:
        """Have a group looked at."""
        self._due[group.key] = group
        self._wake.set()

    def wake(self) -> None:
        """Look at once at what is due by time."""
        self._wake.set()

    def clear_secrets(self) -> None:
        """Delete Secrets without a Deployment, which a killed server may have left."""
        self._secrets_to_clear = True
        self._wake.set()

    def home_of(self, child_id: str) -> Group | None:
        """The group that a child of an earlier server belongs to, by what Deployments and Pods say."""
        if self._known is None:
            self._known = {}
            for group in self._groups.values():
                listed = group.applied.children if group.applied is not None else ()
                claimed = (pod.child_id for pod in group.pods.values() if pod.child_id)
                self._known.update(dict.fromkeys((*claimed, *listed), group))
        return self._known.get(child_id)

    async def run(self) -> None:
        """Turn until cancelled."""
        try:
            while True:
                now = self._clock.monotonic()
                self.turn(now)
                soonest = min((TURN_SECONDS, *(at - now for at in self._later.values())))
                try:
                    async with asyncio.timeout(max(0.0, soonest)):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            for task in self._writing.values():
                task.cancel()

    def turn(self, now: float) -> None:
        """Bring what is due up to date, and begin to write what follows from it."""
        self._wake.clear()
        for key in [key for key, at in self._later.items() if at <= now]:
            del self._later[key]
            if key in self._groups:
                self._due[key] = self._groups[key]
        for key, group in list(self._due.items()):
            if key in self._writing or len(self._writing) >= WRITES_AT_ONCE:
                continue
            del self._due[key]
            self._later.pop(key, None)
            self._look_at(group, now)
        if self._certificates.is_due(now) and CERTIFICATES not in self._writing:
            self._begin(CERTIFICATES, self._certificates.turn())
        if self._secrets_to_clear and "" not in self._writing:
            self._secrets_to_clear = False
            self._begin("", self._clear_secrets())

    def _look_at(self, group: Group, now: float) -> None:
        for child in group.advance(self._nodes(), now):
            self._on_exit(child.child_id)
        found = plan(group, self._nodes(), now)
        has_claims = bool(found.claims) and self._api.has_spare()
        again = found.next_at if found.next_at > now else math.inf
        if now < group.not_before:
            self._later[group.key] = min(group.not_before, again)
        elif not found.is_idle or has_claims:
            self._begin(group.key, self._write(group, found, has_claims))
        else:
            again = min(again, now + TURN_SECONDS) if found.claims else again
            if again < math.inf:
                self._later[group.key] = again
            elif not group.children and not group.pods and group.applied is None and not group.vacancies:
                del self._groups[group.key]

    def _begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._writing[key] = task
        task.add_done_callback(lambda _: self._written(key))

    def _written(self, key: str) -> None:
        del self._writing[key]
        if key in self._groups:
            self._due[key] = self._groups[key]
        self._wake.set()

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
            self._failed(group, found, problem)
        else:
            group.failures, group.problem = 0, ""

    def _failed(self, group: Group, found: Plan, problem: ApiProblem) -> None:
        now = self._clock.monotonic()
        group.failures += 1
        wait = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(group.failures - 1, 16))
        group.not_before = now + max(wait, problem.retry_after_seconds)
        group.problem = f"the cluster's API says: {problem.message}"
        _log.warning("writing Deployment %s failed: %s", group.name, problem.message)
        if found.is_new and problem.is_final:
            group.refuse(group.problem, now)

    async def _mark(self, group: Group, markings: tuple[Marking, ...]) -> None:
        for marking in markings:
            child_id, run, cost = marking.mark
            await self._ignoring_gone(
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
        await self._ignoring_gone(self._api.delete(Kind.PODS, pod.name, grace_seconds=grace))
        victim = group.victims.get(pod.uid)
        if victim is not None:
            victim.sent_seconds = grace
            if grace <= KILL_GRACE_SECONDS and victim.killed_at is None:
                victim.killed_at = self._clock.monotonic()
        if pod.is_over:
            group.cleared.add(pod.uid)

    async def _remove(self, group: Group) -> None:
        if self._certificates.are_asked_for(group):  # first: what is asked for is made again
            await self._ignoring_gone(self._api.delete(Kind.CERTIFICATES, names.certificate_name(group.name)))
        await self._ignoring_gone(self._api.delete(Kind.DEPLOYMENTS, group.name))
        group.unmake()
        await self._ignoring_gone(self._api.delete(Kind.SECRETS, group.name))
        if group.authority:
            await self._ignoring_gone(self._api.delete(Kind.SECRETS, names.certificate_name(group.name)))
        if not any(each.workload == group.workload and each is not group for each in self._groups.values()):
            await self._ignoring_gone(self._api.delete(Kind.DISRUPTION_BUDGETS, names.object_name(group.workload)))

    async def _clear_secrets(self) -> None:
        query = names.as_query(names.replica_selector(self._settings.installation))
        try:
            async for page in self._api.pages(Kind.SECRETS, query):
                used = {group.name for group in self._groups.values()} | self._certificates.secrets()
                for secret in page.items:
                    if secret.metadata.name not in used:
                        await self._ignoring_gone(self._api.delete(Kind.SECRETS, secret.metadata.name))
        except ApiProblem as problem:
            _log.warning("Secrets without a Deployment could not be cleared: %s", problem.message)

    async def _ignoring_gone(self, call: Awaitable[None]) -> None:
        try:
            await call
        except ApiProblem as problem:
            if problem.status != NOT_FOUND:
                raise
