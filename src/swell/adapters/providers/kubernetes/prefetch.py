"""The loop that gets models and images ready before a replica needs them. No replica waits for any of it.

What is wanted is told by `expect`; what is comes from watches; each look writes what differs. A server that is killed
leaves Jobs and DaemonSets that a later one knows by their names, so nothing is made twice. Where nothing is to be
prepared any more, what an earlier server made is looked after in the same way until it is gone.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import CONFLICT, NOT_FOUND, ApiProblem, Kind
from swell.adapters.providers.kubernetes.lasting import lasting
from swell.adapters.providers.kubernetes.pacing import PacedApi, Pause
from swell.adapters.providers.kubernetes.prefetch_manifests import Wanted, wanted
from swell.adapters.providers.kubernetes.prefetch_plan import (
    ITS_PODS,
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
BACKOFF_FIRST_SECONDS = 0.5  # after a write that failed, doubled each time: several tries fit into a server's end
BACKOFF_MAX_SECONDS = 30.0
REFUSED_SECONDS = 300.0  # after one that was to make something, and would be refused again

_log = logging.getLogger(__name__)


class Prefetching:
    """Looks after one place's Jobs and DaemonSets. `begin` once it is known what is expected."""

    def __init__(self, api: PacedApi, settings: ClusterSettings, clock: Clock, pause: Pause) -> None:
        self._api = api
        self._settings = settings
        self._clock = clock
        self._expected: Sequence[Expected] = ()
        self._pause = pause
        self._wanted: dict[str, Wanted] = {}
        self._known = Remembered()
        self._wake = asyncio.Event()
        self._is_over = False  # nothing is to be prepared, and nothing is left
        query = names.as_query(names.prefetch_selector(settings.installation))
        self._by_hand = f"kubectl delete jobs,daemonsets -n {settings.namespace} -l {query}"
        # Who prepares nothing needs no rights for it.
        optional = settings.prefetch is None
        self._jobs: Watched[WorkSeen] = Watched(
            Watching(api, Kind.JOBS, query, clock, pause, optional=optional), see_job, self._changed
        )
        self._sets: Watched[WorkSeen] = Watched(
            Watching(api, Kind.DAEMON_SETS, query, clock, pause, optional=optional), see_daemon_set, self._changed
        )
        self._pods: Watched[PodSaid] = Watched(
            Watching(api, Kind.PODS, query, clock, pause, optional=optional), see_prefetch_pod, lambda old, new: None
        )

    def expect(self, expected: Sequence[Expected]) -> None:
        """What may come. Does nothing where that has not changed, except that what shall go is tried at once."""
        if expected != self._expected:
            self._expected = expected
            self._wanted = wanted(expected, self._settings)
        for key in [key for key in self._known.not_before if key[1] not in self._wanted]:
            self._known.forgive(key)
        self._wake.set()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def preparations(self) -> list[Preparation]:
        """How everything fares; where nothing is wanted, what there is may not be known yet, and that is told."""
        if self._is_over:
            return []
        found = rows(self._wanted, self._seen(), self._pods.views.values(), self._known, self._denied())
        if not self._wanted and not (self._is_known and self._may_see):
            problem = next((each.problem for each in self._watched() if each.problem), "the cluster does not answer")
            says = f"it is not known what there is: {problem}"
            found.append(Preparation("anything", "prepared before", (), Progress.LEAVING, says))
        return [replace(each, by_hand=self._by_hand) if each.progress is Progress.LEAVING else each for each in found]

    async def begin(self) -> list["asyncio.Task[None]"]:
        """Find what there is, and look after it from now on, until the tasks are cancelled that this returns.

        A cluster that does not tell within BEGIN_SECONDS does so later. Where nothing is to be prepared, nobody waits
        for what there is, and it is looked after until it is gone.
        """
        prefetch = self._settings.prefetch
        watches = [lasting(each.run, self._pause) for each in self._watched()]
        watches.append(asyncio.ensure_future(self._wake_once_known()))
        if prefetch is None:
            return [*watches, lasting(partial(self._clear, watches), self._pause)]
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                await self._ready()
        except TimeoutError:
            _log.warning("what is prepared ahead is not known yet: the cluster does not answer")
        except BaseException:
            for task in watches:
                task.cancel()
            raise
        return [*watches, lasting(partial(self._run, prefetch), self._pause)]

    async def _run(self, prefetch: Prefetch) -> None:
        while True:
            await self._turn(prefetch.queue)

    async def _clear(self, watches: Sequence["asyncio.Task[None]"]) -> None:
        """Take away what an earlier server prepared; then nothing is looked after any more."""
        is_told = False
        while self.preparations():
            if self._is_known and not is_told and (denied := self._denied()):
                is_told, problem = True, " and ".join(denied.values())
                _log.warning("what was prepared ahead stays: %s; to take it away, run: %s", problem, self._by_hand)
            await self._turn("")
        self._is_over = True
        for task in watches:
            task.cancel()

    async def _turn(self, queue: str) -> None:
        """Write what is due, and wait until there may be more."""
        self._wake.clear()
        soonest = await self._step(queue)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(TURN_SECONDS, soonest - self._clock.monotonic()))):
                await self._wake.wait()

    async def _ready(self) -> None:
        for each in self._watched():
            await each.ready.wait()

    async def _wake_once_known(self) -> None:
        """A list of nothing changes nothing, and would be noticed late."""
        for each in self._watched():
            await each.ready.wait()
            self._wake.set()

    async def _step(self, queue: str) -> float:
        """Write what is due; when to look again, whatever happens."""
        now, unix = self._clock.monotonic(), self._clock.unix()
        steps = plan(self._wanted, self._seen(), self._known, queue, now, unix)
        for kind, name in steps.deletions:
            await self._write((kind, name), None)
        for each in steps.applies:
            watched = self._jobs if each.kind is Kind.JOBS else self._sets
            # What cannot be seen is not made either.
            if self._wanted.get(each.name) is each and watched.ready.is_set() and not watched.denied:
                await self._write((each.kind, each.name), each)
        return steps.next_at

    async def _write(self, key: Key, applied: Wanted | None) -> None:
        """Apply or delete, and take what comes of it for seen: the watch may tell it later than the next look."""
        kind, name = key
        was_in_doubt = key in self._known.in_doubt
        if applied is not None:
            self._known.in_doubt.add(key)
        try:
            if applied is None:
                await self._delete(kind, name)
            else:
                await self._apply(kind, name, applied)
        except ApiProblem as problem:
            if problem.is_final and not was_in_doubt:
                self._known.in_doubt.discard(key)
            self._put_off(key, problem, is_refused=problem.is_final and applied is not None)
        else:
            self._known.in_doubt.discard(key)
            self._known.forgive(key)

    def _put_off(self, key: Key, problem: ApiProblem, *, is_refused: bool) -> None:
        """Leave one alone for a while, longer each time."""
        failures = self._known.failures[key] = self._known.failures.get(key, 0) + 1
        wait = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(failures - 1, 16))
        wait = max(REFUSED_SECONDS if is_refused else wait, problem.retry_after_seconds)
        self._known.not_before[key] = self._clock.monotonic() + wait
        if key[0] is Kind.JOBS and problem.status == CONFLICT:
            return  # it is there, as somebody has changed it, such as Kueue that let it go on: the watch will tell
        told = f"the cluster's API says: {problem.message}"
        if self._known.problems.get(key) != told:
            self._known.problems[key] = told
            _log.warning("writing %s %s failed: %s", *key, problem.message)

    async def _apply(self, kind: Kind, name: str, applied: Wanted) -> None:
        if kind is Kind.JOBS:
            await self._api.apply(Kind.JOBS, name, applied.manifest, manager=names.MANAGER, force=False)
            self._known.done.pop(name, None)
            self._known.made[name] = self._clock.monotonic()
            self._jobs.views.setdefault(name, WorkSeen(kind, name, applied.digest, Progress.WAITING, "a Pod"))
            return
        await self._api.apply(Kind.DAEMON_SETS, name, applied.manifest, manager=names.MANAGER)
        known = self._sets.views.get(name)
        if known is None or known.digest != applied.digest:
            self._sets.views[name] = WorkSeen(kind, name, applied.digest, Progress.WAITING, ITS_PODS)

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

    def _watched(self) -> Iterator[Watched[WorkSeen] | Watched[PodSaid]]:
        yield from (self._jobs, self._sets, self._pods)

    @property
    def _is_known(self) -> bool:
        """Whether everything was listed, or may not be."""
        return all(each.ready.is_set() for each in self._watched())

    @property
    def _may_see(self) -> bool:
        """Whether rights are there, or none are expected to be: who prepares nothing has been given none."""
        return self._settings.prefetch is None or not self._denied()

    def _denied(self) -> dict[Kind, str]:
        """Kinds that may not be seen, and what the API says of it."""
        kinds = ((Kind.JOBS, self._jobs), (Kind.DAEMON_SETS, self._sets))
        return {kind: each.problem for kind, each in kinds if each.denied}

    def _seen(self) -> list[WorkSeen]:
        return [*self._jobs.views.values(), *self._sets.views.values()]

    def _changed(self, old: WorkSeen | None, new: WorkSeen | None) -> None:
        if new is not None and new.progress is Progress.FAILED and (old is None or old.progress is not new.progress):
            pods = [pod.words for pod in self._pods.views.values() if pod.of == new.name and pod.is_failed]
            _log.warning("a model is not fetched ahead: %s: %s", new.name, next(filter(None, pods), new.says))
        elif new is not None and new.kind is Kind.JOBS and new.progress is Progress.DONE and old is not None:
            _log.info("a model was fetched ahead by %s", new.name)
        self._wake.set()
