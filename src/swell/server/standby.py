"""A server that waits: it looks who has the store, and opens it once nobody does (RFC 7).

Until then it does nothing that anybody could notice, and answers commands with who leads. It may be told to end at any
moment. A database that is away is waited for as well.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from swell import __version__
from swell.errors import AtCapacity, StoreInUse
from swell.ports.store import Store
from swell.server.ending import Way

LOOK_SECONDS = 0.5  # between two looks; as long as nobody leads after a server has ended
ANSWER_SECONDS = 10.0  # for the admin socket to close

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class StoreWatch(Protocol):
    """Looks at a store that another server has."""

    async def look(self) -> tuple[str, Mapping[str, int]]:
        """Who has it open, or nothing; and its marks. Raises AtCapacity where nobody can tell now, StateError."""

    async def close(self) -> None:
        """Let go of it; twice is fine."""


class Audience(Protocol):
    """Who is told how it goes."""

    def waiting(self, leader: str) -> None:
        """Another server leads, and this one will once that one has ended."""

    def trouble(self, sentence: str) -> None:
        """Something failed and is tried again."""


class Standby:
    """Waits once. `check` refuses a store that this server could not use, `opening` opens one that nobody has.

    Commands find it at `socket` once there is something to wait for.
    """

    def __init__(
        self,
        watch: StoreWatch,
        check: Callable[[Mapping[str, int]], None],
        opening: Callable[[], Store],
        audience: Audience,
        socket: Path,
        *,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._watch = watch
        self._check = check
        self._opening = opening
        self._audience = audience
        self._socket = socket
        self._look_seconds = look_seconds
        self._leader = ""
        self._is_away = False
        self.told = asyncio.Event()  # to end

    def listen(self) -> None:
        """Take signals from now on, instead of whoever did before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self.told.set)

    def status(self) -> dict[str, Any]:
        """For `swell status`."""
        leader = self._leader or "nobody that is known"
        return {"version": __version__, "pid": os.getpid(), "waiting": True, "leader": leader}

    def told_how(self) -> Way | None:
        """How who leads by now shall end, where that was said while it waited."""
        return Way.LEAVE if self.told.is_set() else None

    async def wait(self, pause_seconds: float = 0.0) -> Store | None:
        """The store, once it is this process's own, after a pause; None where it was told to end.

        Raises StateError for a store that it could not use.
        """
        await self._unless_told(asyncio.sleep(pause_seconds))
        async with AsyncExitStack() as answers:
            answers.push_async_callback(self._watch.close)
            is_answering = False
            while not self.told.is_set():
                store = await self._unless_told(self._look())
                if store is not None:
                    return store
                if not is_answering:
                    await answers.enter_async_context(self._answering())
                    is_answering = True
                await self._unless_told(asyncio.sleep(self._look_seconds))
        return None

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        from swell.server.admin import AdminServer, waiting_application  # late: a server that leads at once is quicker

        admin = AdminServer(waiting_application(self.status, self.told.set), self._socket)
        task = asyncio.ensure_future(admin.run_on_socket())
        try:
            yield
        finally:
            admin.should_exit = True
            await asyncio.wait([task], timeout=ANSWER_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _look(self) -> Store | None:
        try:
            leader, marks = await self._watch.look()
            self._check(marks)
            self._is_away = False
            if not leader:
                return await asyncio.get_running_loop().run_in_executor(None, self._opening)
            self._is_led_by(leader)
        except StoreInUse as error:  # somebody was quicker: the next look tells who
            _log.info("the store was taken by another one", extra={"reason": str(error)})
        except AtCapacity as away:
            if not self._is_away:
                self._audience.trouble(f"Waiting for the store: {away}")
                _log.warning("the store is away", extra={"reason": str(away)})
            self._is_away = True
        return None

    def _is_led_by(self, leader: str) -> None:
        if leader == self._leader:
            return
        if not self._leader:
            self._audience.waiting(leader)
        self._leader = leader
        _log.info("another server leads", extra={"reason": leader})

    async def _unless_told(self, work: Coroutine[Any, Any, _Result]) -> _Result | None:
        """What it comes to; None where it is told to end, and then nothing is left of the work."""
        task, told = asyncio.ensure_future(work), asyncio.ensure_future(self.told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return None
            return task.result()
        finally:
            for each in (task, told):
                each.cancel()
            await asyncio.gather(task, told, return_exceptions=True)
