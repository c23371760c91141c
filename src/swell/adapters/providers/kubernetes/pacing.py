"""How fast the API is asked: a token bucket for everything, and what happens on conflicts and overload.

An API server's own fairness protects it from its clients, by letting them wait or refusing them. A client that paces
itself is neither, and leaves room for kubelets and people. Reading one page or beginning one watch counts as one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from swell.adapters.providers.kubernetes.api import (
    CONFLICT,
    TOO_MANY,
    ApiProblem,
    Change,
    ClusterApi,
    Kind,
    Page,
)
from swell.adapters.providers.kubernetes.objects import Read
from swell.clock import Clock

REQUESTS_PER_SECOND = 20.0
BURST_REQUESTS = 40
SPARE_REQUESTS = 10  # of the burst that work which can wait leaves to work which cannot
CONFLICT_TRIES = 4
MAX_HOLD_SECONDS = 30.0  # of all requests, after the server said that there are too many
USUAL_HOLD_SECONDS = 1.0  # where it did not say for how long

_Answer = TypeVar("_Answer")
Pause = Callable[[float], Awaitable[None]]
"""Waits for seconds; a test's own makes its clock go on."""


@dataclass(frozen=True)
class Pace:
    """How many requests a second, and how many at once after a quiet time."""

    per_second: float = REQUESTS_PER_SECOND
    burst: int = BURST_REQUESTS
    spare: int = SPARE_REQUESTS


class Bucket:
    """Tokens, one a request. Who comes too early is told how long to wait, in the order of coming."""

    def __init__(self, pace: Pace, now: float) -> None:
        self._pace = pace
        self._tokens = float(pace.burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one; the seconds to wait before it may be used."""
        self._fill(now)
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._pace.per_second) + max(0.0, self._at - now)

    def has_spare(self, now: float) -> bool:
        """Whether there is more than what urgent work should find."""
        self._fill(now)
        return self._tokens > self._pace.spare

    def hold(self, now: float, seconds: float) -> None:
        """Let nothing through for a while."""
        self._fill(now)
        self._tokens = min(self._tokens, 0.0)
        self._at = max(self._at, now + min(seconds, MAX_HOLD_SECONDS))

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(float(self._pace.burst), self._tokens + (now - self._at) * self._pace.per_second)
            self._at = now


class PacedApi:
    """A cluster's API at a bounded pace. `writes` and `reads` count requests."""

    def __init__(self, api: ClusterApi, clock: Clock, pace: Pace | None = None, pause: Pause = asyncio.sleep) -> None:
        self._api = api
        self._clock = clock
        self._pause = pause
        self._bucket = Bucket(pace or Pace(), clock.monotonic())
        self.writes = 0
        self.reads = 0

    def has_spare(self) -> bool:
        """Whether work that can wait may be done now."""
        return self._bucket.has_spare(self._clock.monotonic())

    async def pages(self, kind: Kind, query: str) -> AsyncIterator[Page]:
        pages = self._api.pages(kind, query)
        while True:
            await self._turn()
            self.reads += 1
            try:
                page = await anext(pages)
            except StopAsyncIteration:
                return
            except ApiProblem as problem:
                self._heed(problem)
                raise
            yield page

    async def watch(self, kind: Kind, query: str, version: str) -> AsyncIterator[tuple[Change, Read]]:
        await self._turn()
        self.reads += 1
        try:
            async for event in self._api.watch(kind, query, version):
                yield event
        except ApiProblem as problem:
            self._heed(problem)
            raise

    async def apply(
        self, kind: Kind, name: str, manifest: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> Read:
        return await self._write(lambda: self._api.apply(kind, name, manifest, manager=manager, force=force))

    async def annotate(self, pod: str, patch: Mapping[str, Any]) -> None:
        await self._write(lambda: self._api.annotate(pod, patch))

    async def delete(self, kind: Kind, name: str, *, grace_seconds: int | None = None) -> None:
        await self._write(lambda: self._api.delete(kind, name, grace_seconds=grace_seconds))

    async def read_log(self, pod: str, container: str, *, max_bytes: int, lines: int) -> str:
        await self._turn()
        self.reads += 1
        return await self._api.read_log(pod, container, max_bytes=max_bytes, lines=lines)

    async def close(self) -> None:
        await self._api.close()

    async def _write(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Conflicts are races with controllers and are over at once; everything else is the caller's to judge."""
        for left in reversed(range(CONFLICT_TRIES)):
            await self._turn()
            self.writes += 1
            try:
                return await call()
            except ApiProblem as problem:
                self._heed(problem)
                if problem.status != CONFLICT or not left:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _turn(self) -> None:
        wait = self._bucket.take(self._clock.monotonic())
        if wait > 0:
            await self._pause(wait)

    def _heed(self, problem: ApiProblem) -> None:
        if problem.status == TOO_MANY or problem.retry_after_seconds > 0:
            self._bucket.hold(self._clock.monotonic(), problem.retry_after_seconds or USUAL_HOLD_SECONDS)
