"""The loop that makes a cluster what it shall be: look at what something happened to, write what is due.

One object has one write at a time, so that what is written last is what is wanted last; different ones are written at
once, as far as the pace allows. A write that fails is not repeated but planned anew, after a back-off.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, Generic, Protocol, TypeVar

from swell.adapters.providers.kubernetes.api import ApiProblem
from swell.clock import Clock

WRITES_AT_ONCE = 16
TURN_SECONDS = 1.0  # at most between two looks at what is due by time
BACKOFF_FIRST_SECONDS = 0.5
BACKOFF_MAX_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Looked(Protocol):
    """What is looked after: a Deployment, or a LeaderWorkerSet."""

    key: str
    problem: str
    failures: int
    not_before: float


_Item = TypeVar("_Item", bound=Looked)


class Rounds(ABC, Generic[_Item]):
    """Looks after `items`, by key."""

    def __init__(self, clock: Clock, items: dict[str, _Item]) -> None:
        self._clock = clock
        self._items = items
        self._due: dict[str, _Item] = {}  # to be looked at
        self._later: dict[str, float] = {}  # and when, without anything having happened
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()

    @abstractmethod
    def _look_at(self, item: _Item, now: float) -> None:
        """Bring one up to date, and begin to write what follows from it."""

    def _besides(self) -> None:
        """Begin what is not about one of them."""

    def look(self, item: _Item) -> None:
        """Have one looked at."""
        self._due[item.key] = item
        self._wake.set()

    def wake(self) -> None:
        """Look at once at what is due by time."""
        self._wake.set()

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
            if key in self._items:
                self._due[key] = self._items[key]
        for key, item in list(self._due.items()):
            if key in self._writing or len(self._writing) >= WRITES_AT_ONCE:
                continue
            del self._due[key]
            self._later.pop(key, None)
            try:
                self._look_at(item, now)
            except Exception:  # a fault in our own code about one of them keeps no other waiting
                self._wrong(key, now)
        self._besides()

    def _begin(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._writing[key] = task
        task.add_done_callback(lambda _: self._written(key))

    def _written(self, key: str) -> None:
        task = self._writing.pop(key)
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._wrong(key, self._clock.monotonic(), fault)
        elif key in self._items:
            self._due[key] = self._items[key]
        self._wake.set()

    def _wrong(self, key: str, now: float, fault: BaseException | None = None) -> None:
        """Leave one alone for a while that could not be looked after."""
        _log.error("what %s needs could not be done", key, exc_info=fault or True)
        self._later[key] = now + BACKOFF_MAX_SECONDS

    def _failed(self, item: _Item, problem: ApiProblem) -> float:
        """Have it left alone for a while, longer each time. The time."""
        now = self._clock.monotonic()
        item.failures += 1
        wait = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(item.failures - 1, 16))
        item.not_before = now + max(wait, problem.retry_after_seconds)
        item.problem = f"the cluster's API says: {problem.message}"
        return now
