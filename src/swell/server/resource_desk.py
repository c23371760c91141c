"""Models and tenants that are declared beside the file (RFC 8): read, joined to what is served, told what became of it.

One desk outlives the servers that succeed one another while this one leads. A change is acted on after a moment of
quiet, so that many at once are one, and there is a least time between two. One that changes nothing that is served
costs a status alone. One that cannot be served is tried again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from swell.clock import Clock
from swell.errors import AtCapacity, RetryLater, SwellError
from swell.ports.declarations import Declarations
from swell.security.private_files import replace_private
from swell.server.loops import Loop
from swell.server.resource_status import Progress, is_written, progress_of, status_of
from swell.server.spec_change import SpecDesk
from swell.spec import Spec
from swell.spec.custom_resources import MODELS
from swell.spec.declared import UNAVAILABLE, Declared, Key, Refusal, Wanted, merge
from swell.state.records import DecisionRecord

QUIET_SECONDS = 0.5  # without another change, before one is acted on
MAX_WAIT_SECONDS = 5.0  # for such a quiet time
BETWEEN_SECONDS = 5.0  # at least, from one joining to the next
AGAIN_SECONDS = 60.0  # until a model that could not be had is tried again
FAILED_SECONDS = 15.0  # until what could not be served is tried again; doubles with each try up to
FAILED_MAX_SECONDS = 600.0
BUSY_SECONDS = 1.0  # until a server that was busy is asked again
STATUS_SECONDS = 2.0  # between two looks at what became of them
MAX_WRITES = 20  # of statuses in one look; the others come in the next
LISTED_DECISIONS = 50  # among which the last one that changed something is looked for

_log = logging.getLogger(__name__)


class Server(Protocol):
    """What the desk asks of the server that serves now."""

    has_begun: bool
    spec_desk: SpecDesk | None

    def status(self) -> dict[str, Any]:
        """As `swell status` shows it."""

    async def decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        """The newest decisions, newest first."""


class ResourceDesk:
    """`server` is the one that serves now. `check` is what a spec must hold here; it raises SpecError."""

    def __init__(
        self,
        declarations: Declarations,
        server: Callable[[], Server | None],
        clock: Clock,
        kept: Path,
        check: Callable[[Spec], None] = lambda spec: None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._declarations = declarations
        self._server = server
        self._clock = clock
        self._kept = kept
        self._check = check
        self._pause = pause
        self._known: tuple[Declared, ...] = ()
        self._shown: dict[str, Mapping[str, Any]] = {}  # statuses that this desk wrote, by uid
        self._decisions: dict[str, DecisionRecord] = {}
        self._told_wanted: dict[str, int] = {}
        self._statuses = Loop("statuses of resources", self._status_step, STATUS_SECONDS, clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._failures = 0  # in a row, of what was joined
        self._has_failed = False  # what was joined last
        self._again: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Learn what there is; where the cluster does not answer, what there was. Raises AtCapacity without either."""
        try:
            self._known = tuple(await self._declarations.begin())
        except AtCapacity as error:
            kept = self._read_kept()
            if kept is None:
                raise
            _log.warning("resources are as they were last read", extra={"reason": str(error)})
            self._known = kept
        else:
            self._declarations.changed.clear()
            self._keep()

    def start(self) -> None:
        """Join what changes, and write what became of it, from now on."""
        self._tasks = [asyncio.ensure_future(self._run()), asyncio.ensure_future(self._statuses.run())]

    async def close(self) -> None:
        """Leave them as they are."""
        tasks = [*self._tasks, *([self._again] if self._again else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._declarations.close()

    def failed(self) -> None:
        """What was joined last cannot be served: it is tried again though nothing changes, each time later."""
        self._has_failed = True
        seconds = min(FAILED_MAX_SECONDS, FAILED_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        _log.warning("the resources are tried again", extra={"retry_after_seconds": seconds, "attempt": self._failures})
        if self._again is not None:
            self._again.cancel()
        self._again = asyncio.ensure_future(self._try_again(seconds))

    async def _try_again(self, seconds: float) -> None:
        await self._pause(seconds)
        self._declarations.changed.set()

    def join(self, of_file: Spec, refused: Mapping[Key, Refusal]) -> Wanted:
        """The file's spec and every resource that there was at the last change. Called in any thread."""
        return merge(of_file, self._known, refused=refused, check=self._check)

    async def _run(self) -> None:
        while True:
            await self._change()
            if await self._join():
                await self._pause(BETWEEN_SECONDS)
            else:
                self._declarations.changed.set()
                await self._pause(BUSY_SECONDS)

    async def _change(self) -> None:
        """Wait for a change, and for quiet after it; or until what could not be had is worth another try."""
        changed = self._declarations.changed
        try:
            async with asyncio.timeout(AGAIN_SECONDS if self._has_unavailable() else None):
                await changed.wait()
        except TimeoutError:
            return
        until = self._clock.monotonic() + MAX_WAIT_SECONDS
        while changed.is_set() and self._clock.monotonic() < until:
            changed.clear()
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    await changed.wait()
            except TimeoutError:
                return
        changed.clear()

    async def _join(self) -> bool:
        """False: the server is busy, to be asked again."""
        server = self._server()
        if server is None or not server.has_begun or server.spec_desk is None:
            return False
        self._known = tuple(self._declarations.current())
        if not self._has_failed:
            self._failures = 0
        self._has_failed = False
        try:
            self._keep()
            await server.spec_desk.join()
        except RetryLater:
            return False
        except (SwellError, OSError) as error:
            _log.exception("the resources could not be joined to the spec", extra={"reason": str(error)})
            self.failed()
        self._statuses.wake.set()
        return True

    def _has_unavailable(self) -> bool:
        wanted = self._wanted()
        return wanted is not None and any(each.reason == UNAVAILABLE for each in wanted.refusals.values())

    def _wanted(self) -> Wanted | None:
        server = self._server()
        return server.spec_desk.wanted if server is not None and server.spec_desk is not None else None

    # What became of them.

    async def _status_step(self, now: float) -> None:
        server, wanted = self._server(), self._wanted()
        if server is None or not server.has_begun or wanted is None:
            return
        items = self._declarations.current()
        progress = await self._progress(server, wanted)
        writes = 0
        for item in items:
            before = self._declarations.status_of(item)
            status = status_of(item, wanted, progress, self._decisions, before, self._clock.unix())
            if status is None or is_written(status, before) or status == self._shown.get(item.uid):
                continue
            if writes == MAX_WRITES:
                break
            writes += 1
            if await self._declarations.write_status(item, status):
                self._shown[item.uid] = status
        for uid in self._shown.keys() - {item.uid for item in items}:
            del self._shown[uid]

    async def _progress(self, server: Server, wanted: Wanted) -> dict[str, Progress]:
        served = {name for key, name in wanted.served.items() if key[0] == MODELS}
        counts = {model.name: model.replicas.max for model in wanted.spec.models if model.name in served}
        if not counts:
            return {}
        progress = progress_of(server.status(), counts)
        for name, here in progress.items():
            if self._told_wanted.get(name) != here.wanted:  # only then is there another decision
                lines: Sequence[DecisionRecord] = await server.decisions(name, LISTED_DECISIONS)
                if found := next((line for line in lines if not line.is_hold), None):
                    self._decisions[name] = found
                self._told_wanted[name] = here.wanted
        return progress

    # For when the cluster does not answer.

    def _keep(self) -> None:
        replace_private(self._kept, msgspec.json.encode(self._known))

    def _read_kept(self) -> tuple[Declared, ...] | None:
        try:
            return msgspec.json.decode(self._kept.read_bytes(), type=tuple[Declared, ...])
        except (OSError, msgspec.MsgspecError):
            return None
