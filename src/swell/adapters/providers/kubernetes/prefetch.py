"""The loop that gets models and images ready before a replica needs them. No replica waits for any of it.

What is wanted is told by `expect`; what is comes from watches; each look writes what differs. A server that is killed
leaves Jobs and DaemonSets that a later one knows by their names, so nothing is made twice. Where nothing is to be
prepared any more, what an earlier server made is looked for once, by its Pods, and goes.
"""

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import FORBIDDEN, NOT_FOUND, ApiProblem, Kind
from swell.adapters.providers.kubernetes.pacing import PacedApi, Pause
from swell.adapters.providers.kubernetes.prefetch_manifests import Wanted, wanted
from swell.adapters.providers.kubernetes.prefetch_plan import (
    Key,
    PodSaid,
    Remembered,
    WorkSeen,
    plan,
    rows,
    see_daemon_set,
    see_job,
    see_prefetch_pod,
)
from swell.adapters.providers.kubernetes.settings import ClusterSettings, Prefetch
from swell.adapters.providers.kubernetes.watch import Watched, Watching
from swell.clock import Clock
from swell.ports.provider import Expected, Preparation, Progress

BEGIN_SECONDS = 30.0  # until a server goes on without knowing what is prepared
TURN_SECONDS = 5.0  # at most between two looks at what is due by time
BACKOFF_SECONDS = 30.0  # after a write that failed
REFUSED_SECONDS = 300.0  # after one that would be refused again

_log = logging.getLogger(__name__)


class Prefetching:
    """Looks after one place's Jobs and DaemonSets. `begin` once it is known what is expected."""

    def __init__(self, api: PacedApi, settings: ClusterSettings, clock: Clock, pause: Pause) -> None:
        self._api = api
        self._settings = settings
        self._clock = clock
        self._expected: Sequence[Expected] = ()
        self._wanted: dict[str, Wanted] = {}
        self._known = Remembered()
        self._wake = asyncio.Event()
        query = self._query = names.as_query(names.prefetch_selector(settings.installation))
        self._jobs: Watched[WorkSeen] = Watched(Watching(api, Kind.JOBS, query, clock, pause), see_job, self._changed)
        self._sets: Watched[WorkSeen] = Watched(
            Watching(api, Kind.DAEMON_SETS, query, clock, pause), see_daemon_set, self._changed
        )
        self._pods: Watched[PodSaid] = Watched(
            Watching(api, Kind.PODS, query, clock, pause), see_prefetch_pod, lambda old, new: None
        )

    def expect(self, expected: Sequence[Expected]) -> None:
        """What may come. Does nothing where that has not changed."""
        if expected != self._expected:
            self._expected = expected
            self._wanted = wanted(expected, self._settings)
            self._wake.set()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def preparations(self) -> list[Preparation]:
        """How everything fares."""
        if self._settings.prefetch is None:
            return []
        found = rows(self._wanted, self._seen(), self._pods.views.values(), self._known)
        problem = next((each.problem for each in self._watched() if each.denied), "")
        return [_denied(each, problem) for each in found] if problem else found

    async def begin(self) -> list["asyncio.Task[None]"]:
        """Find what there is, and look after it from now on, until the tasks are cancelled that this returns.

        A cluster that does not tell within BEGIN_SECONDS does so later. Where nothing is to be prepared, nothing is
        looked after, and what an earlier server prepared has been deleted.
        """
        prefetch = self._settings.prefetch
        tasks: list[asyncio.Task[None]] = []
        if prefetch is not None:
            tasks = [asyncio.ensure_future(each.run()) for each in self._watched()]
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await (self._clear() if prefetch is None else self._ready())
        except TimeoutError:
            _log.warning("what is prepared ahead is not known yet: the cluster does not answer")
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        return tasks if prefetch is None else [*tasks, asyncio.ensure_future(self._run(prefetch))]

    async def _run(self, prefetch: Prefetch) -> None:
        await self._ready()
        while True:
            self._wake.clear()
            soonest = await self._step(prefetch)
            try:
                async with asyncio.timeout(max(0.0, min(TURN_SECONDS, soonest - self._clock.monotonic()))):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _ready(self) -> None:
        for each in self._watched():
            await each.ready.wait()

    async def _step(self, prefetch: Prefetch) -> float:
        """Write what is due; when to look again, whatever happens."""
        if self._jobs.denied or self._sets.denied:
            return math.inf  # what cannot be seen is not written either
        steps = plan(self._wanted, self._seen(), self._known, prefetch.queue, self._clock.monotonic())
        for kind, name in steps.deletions:
            await self._write((kind, name), None)
        for each in steps.applies:
            if self._wanted.get(each.name) is each:
                await self._write((each.kind, each.name), each)
        return steps.next_at

    async def _write(self, key: Key, applied: Wanted | None) -> None:
        """Apply or delete, and take what comes of it for seen: the watch may tell it later than the next look."""
        kind, name = key
        try:
            if applied is None:
                await self._delete(kind, name)
            elif kind is Kind.JOBS:
                await self._api.apply(Kind.JOBS, name, applied.manifest, manager=names.MANAGER)
                self._known.done.pop(name, None)
                self._jobs.views.setdefault(name, WorkSeen(kind, name, applied.digest, Progress.WAITING, "a Pod"))
            else:
                await self._api.apply(Kind.DAEMON_SETS, name, applied.manifest, manager=names.MANAGER)
                known = self._sets.views.get(name)
                if known is None or known.digest != applied.digest:
                    self._sets.views[name] = WorkSeen(kind, name, applied.digest, Progress.RUNNING, "on no nodes yet")
        except ApiProblem as problem:
            wait = REFUSED_SECONDS if problem.is_final else BACKOFF_SECONDS
            self._known.not_before[key] = self._clock.monotonic() + max(wait, problem.retry_after_seconds)
            self._known.problems[key] = f"the cluster's API says: {problem.message}"
            _log.warning("writing %s %s failed: %s", kind, name, problem.message)
        else:
            self._known.not_before.pop(key, None)
            self._known.problems.pop(key, None)

    async def _delete(self, kind: Kind, name: str) -> None:
        try:
            if kind is Kind.JOBS:
                await self._api.delete(Kind.JOBS, name)
            else:
                await self._api.delete(Kind.DAEMON_SETS, name)
        except ApiProblem as problem:
            if problem.status != NOT_FOUND:
                raise
        (self._jobs if kind is Kind.JOBS else self._sets).views.pop(name, None)

    async def _clear(self) -> None:
        """Nothing is to be prepared: what an earlier server made is known by its Pods, which may always be seen."""
        try:
            if not await self._has_pods():
                return
            for kind, pages in (
                (Kind.JOBS, self._api.pages(Kind.JOBS, self._query)),
                (Kind.DAEMON_SETS, self._api.pages(Kind.DAEMON_SETS, self._query)),
            ):
                async for page in pages:
                    for item in page.items:
                        await self._delete(kind, item.metadata.name)
        except ApiProblem as problem:
            advice = f"; run: kubectl delete jobs,daemonsets -n {self._settings.namespace} -l {self._query}"
            told = advice if problem.status == FORBIDDEN else ""
            _log.warning("what was prepared ahead could not be cleared away: %s%s", problem.message, told)

    async def _has_pods(self) -> bool:
        async for page in self._api.pages(Kind.PODS, self._query):
            if page.items:
                return True
        return False

    def _watched(self) -> Iterator[Watched[WorkSeen] | Watched[PodSaid]]:
        yield from (self._jobs, self._sets, self._pods)

    def _seen(self) -> list[WorkSeen]:
        return [*self._jobs.views.values(), *self._sets.views.values()]

    def _changed(self, old: WorkSeen | None, new: WorkSeen | None) -> None:
        if new is not None and new.progress is Progress.FAILED and (old is None or old.progress is not new.progress):
            pods = [pod.words for pod in self._pods.views.values() if pod.of == new.name and pod.is_failed]
            _log.warning("a model is not fetched ahead: %s: %s", new.name, next(filter(None, pods), new.says))
        elif new is not None and new.kind is Kind.JOBS and new.progress is Progress.DONE and old is not None:
            _log.info("a model was fetched ahead by %s", new.name)
        self._wake.set()


def _denied(each: Preparation, problem: str) -> Preparation:
    return Preparation(each.what, each.name, each.models, Progress.FAILED, f"the cluster's API says: {problem}")
