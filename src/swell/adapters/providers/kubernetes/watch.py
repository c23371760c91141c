"""A cache of one kind of objects, kept up to date by a watch: what an informer does.

A list says what there is at one version, a watch what happens after it. A watch that breaks is taken up where it was;
one whose version is no longer known begins with a new list, as everything does from time to time, in case that
something was missed. Between the two there may be nothing new for a while, but never something wrong.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from swell.adapters.providers.kubernetes.api import (
    FORBIDDEN,
    NOT_FOUND,
    TOO_OLD,
    UNREACHABLE,
    ApiProblem,
    Change,
    ClusterApi,
    Kind,
)
from swell.adapters.providers.kubernetes.objects import Read
from swell.adapters.providers.kubernetes.pacing import Pause
from swell.clock import Clock

RELIST_SECONDS = 1800.0
SHORT_SECONDS = 1.0  # a watch that ends sooner and has told nothing did not work
FAILING_TRIES = 3  # errors in a row, without a list between, after which there is no answer to be hoped for soon
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 30.0

_log = logging.getLogger(__name__)
_View = TypeVar("_View")


@dataclass(frozen=True)
class Watching:
    """What to watch, and with which means. `chance` spreads the retries of many.

    `optional` is a kind that a cluster may not have, or not show: nothing is amiss then.
    """

    api: ClusterApi
    kind: Kind
    query: str
    clock: Clock
    pause: Pause
    chance: random.Random = field(default_factory=random.Random)
    optional: bool = False


class Watched(Generic[_View]):
    """Views of the objects of a kind, by name. `on_change` is told what an object was and what it is now.

    `view` makes of an object what is worth keeping. `denied` says that this kind may not be read at all, `missing` that
    the cluster has no such kind. Then views are of what there was: an API that knows no kind any more does not say that
    its objects have gone, for it says the same while it begins, or where only another version of them is served.
    """

    def __init__(
        self,
        watching: Watching,
        view: Callable[[Read], _View],
        on_change: Callable[[_View | None, _View | None], None],
    ) -> None:
        self._api, self._kind, self._query = watching.api, watching.kind, watching.query
        self._clock, self._pause, self._chance = watching.clock, watching.pause, watching.chance
        self._view = view
        self._on_change = on_change
        self._version = ""
        self._listed_at = 0.0
        self._failures = 0
        self._failing_since: float | None = None
        self.views: dict[str, _View] = {}
        self.ready = asyncio.Event()  # it was listed, or is denied
        self.denied = False
        self.missing = False
        self._optional = watching.optional
        self.problem = ""
        self.lists = 0

    @property
    def is_blind(self) -> bool:
        """Whether views are not what there is now."""
        return self.denied or self.missing

    @property
    def is_failing(self) -> bool:
        """Whether all that comes is errors, again and again."""
        return bool(self.problem) and self._failures >= FAILING_TRIES

    def silent_seconds(self, now: float) -> float:
        """For how long the API has given no answer; 0 while it answers."""
        return 0.0 if self._failing_since is None else now - self._failing_since

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                if not self._version or self._clock.monotonic() - self._listed_at >= RELIST_SECONDS:
                    await self._list()
                await self._follow()
            except ApiProblem as problem:
                await self._recover(problem)

    async def _list(self) -> None:
        found: dict[str, _View] = {}
        version = ""
        async for page in self._api.pages(self._kind, self._query):
            version = page.version or version
            for item in page.items:
                found[item.metadata.name] = self._view(item)
        failures = self._failures
        self._answered()
        self._failures = failures  # a list alone does not end a back-off: what was refused may have been the watch
        gone = self.views.keys() - found.keys()
        self._version, self._listed_at = version, self._clock.monotonic()
        self.lists += 1
        for name in gone:
            self._put(name, None)
        for name, view in found.items():
            self._put(name, view)
        self.ready.set()

    async def _follow(self) -> None:
        """Take what happens from the watch, until it ends or it is time for a list."""
        began, told = self._clock.monotonic(), False
        async for change, item in self._api.watch(self._kind, self._query, self._version):
            self._answered()
            told = True
            self._version = item.metadata.resourceVersion
            if change is not Change.BOOKMARK:
                self._put(item.metadata.name, None if change is Change.DELETED else self._view(item))
            if self._clock.monotonic() - self._listed_at >= RELIST_SECONDS:
                return
        if not told and self._clock.monotonic() - began < SHORT_SECONDS:
            raise ApiProblem(UNREACHABLE, "the watch ended at once")
        self._failures = 0

    def _put(self, name: str, view: _View | None) -> None:
        old = self.views.get(name)
        if view == old:
            return
        if view is None:
            del self.views[name]
        else:
            self.views[name] = view
        self._on_change(old, view)

    def _answered(self) -> None:
        self._failures, self._failing_since, self.problem = 0, None, ""
        self.denied = self.missing = False

    async def _recover(self, problem: ApiProblem) -> None:
        """Wait, longer each time; what was too old begins with a list."""
        self.problem = problem.message
        if problem.status == TOO_OLD:
            self._version = ""
        is_absent = self._optional and problem.status == NOT_FOUND
        if problem.status == FORBIDDEN or is_absent:
            self._version = ""  # a list tells at once when it may be read again; a watch may have nothing to tell
            self.denied, self.missing = problem.status == FORBIDDEN, is_absent
            self.ready.set()
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
        if problem.status != TOO_OLD and not (self._optional and self.is_blind):
            _log.warning("watching %s failed: %s", self._kind, problem.message)
        most = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(self._failures - 1, 16))
        await self._pause(most * self._chance.uniform(0.5, 1.0))
