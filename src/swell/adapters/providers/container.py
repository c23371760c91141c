"""Children as containers of one daemon, through the Docker API.

What runs is known from the daemon alone: a container bears its child's id as its name and in its labels. One stream of
events tells what ends; the list of containers is read when that stream begins, soon again, and then once a minute.
Nothing here waits for a pull, and for a daemon that does not answer only as long as `container_api` says. While it is
away nothing is taken to have ended.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swell.adapters.providers import container_logs, logs
from swell.adapters.providers.container_api import DockerApi, RefusedError, launch_error
from swell.adapters.providers.container_body import (
    PORT,
    ContainerPlace,
    Seen,
    container_name,
    create_body,
    seen_alone,
)
from swell.adapters.providers.container_images import Images
from swell.adapters.providers.container_rooms import Room
from swell.adapters.providers.container_watch import Watch
from swell.errors import LaunchFailed, SwellError
from swell.ports.engine import Address
from swell.ports.provider import Binding, ChildHandle, ChildSpec, ChildStatus, Confirm, Presence, unquestioned

ACCEPT_SECONDS = 0.5  # that a start waits to hear whether its container can be made
LOG_SETTLE_SECONDS = 2.0  # after an end, for its last words
MAX_LAUNCHES = 4  # at once; a daemon makes them one after the other anyway
MAX_DISOWNED = 10_000
CLOSE_SECONDS = 5.0
_GONE = 404
_CONFLICT = 409
_TERM, _KILL = "SIGTERM", "SIGKILL"

_log = logging.getLogger(__name__)


@dataclass
class _Child:
    handle: ChildHandle
    container: str
    accepted: asyncio.Future[None] = field(repr=False)
    devices: tuple[str, ...] = ()
    memory_bytes: int = 0
    image: str = ""
    waiting: str = ""
    address: Address | None = None
    exit_code: int | None = None
    gone: bool = False
    ending: bool = False
    launch: asyncio.Task[None] | None = field(default=None, repr=False)
    log: container_logs.FollowedLog | None = field(default=None, repr=False)
    follower: asyncio.Task[None] | None = field(default=None, repr=False)
    kill_at: float | None = None  # on the event loop's clock
    kill_timer: asyncio.TimerHandle | None = None

    @property
    def is_made(self) -> bool:
        """Whether its container has been started, by us or before."""
        return self.launch is None or self.launch.done()


class ContainerProvider:
    """Runs children in containers. Use it from one event loop; `close` leaves the containers running.

    `on_exit` is called with a child's id when it is gone, so that a loop can look at once.
    """

    def __init__(
        self,
        place: ContainerPlace,
        on_exit: Callable[[str], None] | None = None,
        confirm: Confirm = unquestioned,
    ) -> None:
        self._place = place
        self._on_exit = on_exit
        self._api = DockerApi(place.socket, confirm)
        self._images = Images(self._api)
        self._room = Room(place, self._api)
        self._watch = Watch(place, self._api, died=self._died, listed=self._listed)
        self._children: dict[str, _Child] = {}
        self._adopted = False  # whether all have been found that an earlier server started
        self._disowned: set[str] = set()  # names of containers that shall not be there, until they are not
        self._launching = asyncio.Semaphore(MAX_LAUNCHES)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def binding(self) -> Binding:
        """One port, in a network of its own."""
        return Binding("0.0.0.0", PORT)  # noqa: S104  all of a container's network, which is its own

    async def start(self, child: ChildSpec) -> ChildHandle:
        known = self._children.get(child.child_id)
        if known is not None and not known.gone:
            return known.handle
        if not child.needs.image:
            raise LaunchFailed(f"{child.workload or child.child_id} has no image; name one in providers[].images")
        self._watch.begin()
        handle = ChildHandle(child.child_id, child.log_path, 0, 0.0)
        await self._room.learn(child.needs)
        devices = self._room.reserve(child.needs, [other for other in self._children.values() if not other.gone])
        made = self._know(handle)
        made.image, made.memory_bytes, made.devices = child.needs.image, child.needs.memory_bytes, devices
        made.waiting = "its container is made"
        made.launch = asyncio.get_running_loop().create_task(self._bring_up(made, child))
        await asyncio.wait([made.accepted], timeout=ACCEPT_SECONDS)
        if not made.accepted.done():
            made.accepted.set_result(None)  # from now on its status tells
        elif (refused := made.accepted.exception()) is not None:
            del self._children[child.child_id]
            raise refused
        return handle

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        present = self._children.get(child_id)
        if present is not None and not present.gone:
            return present.handle
        self._watch.begin()
        name = container_name(child_id)
        try:
            seen = await self._inspect(name)
        except SwellError as away:
            child = self._know(ChildHandle(child_id, log_path, 0, 0.0))
            child.waiting = str(away)  # whether it runs is told once the daemon is back
            return child.handle
        if seen is None or seen.child_id != child_id:
            return None
        if not seen.runs:
            self._disown(name)
            return None
        child = self._know(ChildHandle(child_id, log_path, 0, 0.0))
        self._see(child, seen)
        return child.handle

    def status(self, handle: ChildHandle) -> ChildStatus:
        child = self._children.get(handle.child_id)
        if child is None:
            return ChildStatus(Presence.GONE)
        if child.gone:
            return ChildStatus(Presence.GONE, child.exit_code)
        waiting = child.waiting or ("" if child.is_made else self._images.waiting(child.image))
        return ChildStatus(Presence.RUNNING, address=child.address, waiting=waiting)

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        child = self._children.get(handle.child_id)
        if child is None or child.gone:
            return
        loop = asyncio.get_running_loop()
        kill_at = loop.time() + max(0.0, grace_seconds)
        if child.kill_at is not None and child.kill_at <= kill_at:
            return
        asked, child.kill_at = child.kill_at is not None, kill_at
        if child.kill_timer is not None:
            child.kill_timer.cancel()
        if grace_seconds <= 0:
            self._spawn(self._end(child, _KILL))
            return
        if not asked:
            self._spawn(self._end(child, _TERM))
        child.kill_timer = loop.call_at(kill_at, lambda: self._spawn(self._end(child, _KILL)))

    async def end_orphans(self) -> None:
        """One whose intent was lost with a store is removed, here or as soon as its daemon answers."""
        self._adopted = True
        self._spawn(self._sweep())

    async def _sweep(self) -> None:
        with suppress(SwellError, RefusedError):  # a daemon that nobody asks for anything may well be away
            await self._listed(self._watch.find)

    async def log_tail(self, log_path: Path) -> str:
        return await asyncio.to_thread(logs.read_tail, log_path)

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        await asyncio.to_thread(logs.rotate, log_path, max_bytes=max_bytes, files=files)

    async def forget(self, handle: ChildHandle) -> None:
        child = self._children.get(handle.child_id)
        if child is not None and child.gone:
            del self._children[handle.child_id]
            self._disown(child.container)

    async def close(self) -> None:
        """Stop watching. Containers go on; a later provider adopts them."""
        await self._watch.close()
        running = list(self._tasks)
        for child in self._children.values():
            if child.kill_timer is not None:
                child.kill_timer.cancel()
            running += [task for task in (child.launch, child.follower) if task is not None]
        if self._tasks:  # what removes a container is let finish
            await asyncio.wait(list(self._tasks), timeout=CLOSE_SECONDS)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._images.close()
        await self._api.close()
        self._children.clear()

    def _know(self, handle: ChildHandle) -> _Child:
        accepted = asyncio.get_running_loop().create_future()
        child = _Child(handle, container_name(handle.child_id), accepted)
        self._children[handle.child_id] = child
        return child

    async def _bring_up(self, child: _Child, spec: ChildSpec) -> None:
        """Make and start the container. What goes wrong the waiting start raises, or the log tells."""
        try:
            body = create_body(self._place, spec, child.devices)
            await asyncio.to_thread(container_logs.begin_chapter, spec.log_path, spec.child_id)
            if not await self._create(child, body):
                self._accept(child)
                child.waiting = ""  # the pull tells
                await self._images.pull(child.image)
                if not await self._create(child, body):
                    raise LaunchFailed(f"image {child.image} was pulled and is not there; is somebody removing it?")
            self._accept(child)
            child.waiting = "its container is started"
            async with self._launching:
                await self._api.call("POST", f"/containers/{child.container}/start")
            seen = await self._inspect(child.container)
        except RefusedError as refused:
            self._refuse(child, launch_error(refused, f"cannot start a container of {child.image}"))
        except SwellError as error:
            self._refuse(child, error)
        except OSError as error:
            self._refuse(child, LaunchFailed(f"cannot write {spec.log_path}: {error.strerror}"))
        else:
            if seen is None:
                self._ended(child, None)
            else:
                self._see(child, seen)

    async def _create(self, child: _Child, body: dict[str, Any]) -> bool:
        """Make the container; False where its image is not here."""
        try:
            await self._api.call("POST", "/containers/create", {"name": child.container}, body)
        except RefusedError as refused:
            if refused.status == _GONE and "image" in refused.message.lower():
                return False
            if refused.status != _CONFLICT:
                raise
            there = await self._inspect(child.container)
            if there is None or there.child_id != child.handle.child_id:
                raise
        return True

    def _accept(self, child: _Child) -> None:
        if not child.accepted.done():
            child.accepted.set_result(None)

    def _refuse(self, child: _Child, error: SwellError) -> None:
        if child.kill_at is not None:
            return  # it was ended meanwhile
        self._disown(child.container)
        if child.accepted.done():
            self._spawn(self._give_up(child, str(error)))
        else:
            child.accepted.set_exception(error)

    async def _give_up(self, child: _Child, reason: str) -> None:
        with suppress(OSError):  # a full disk cannot say why either
            await asyncio.to_thread(container_logs.note, child.handle.log_path, reason)
        self._is_gone(child)

    async def _inspect(self, name: str) -> Seen | None:
        try:
            return seen_alone(await self._api.call("GET", f"/containers/{name}/json"), self._place)
        except RefusedError as refused:
            if refused.status == _GONE:
                return None
            raise launch_error(refused, f"cannot look at container {name}") from refused

    def _see(self, child: _Child, seen: Seen) -> None:
        """What the daemon says of a child that was started."""
        if not seen.runs:
            self._ended(child, seen.exit_code)
            return
        child.waiting, child.address = "", seen.address
        child.devices, child.memory_bytes = seen.devices, seen.memory_bytes
        self._follow(child)

    def _ended(self, child: _Child, exit_code: int | None) -> None:
        if not child.ending:
            child.ending, child.exit_code = True, exit_code
            self._spawn(self._hear_out(child))

    async def _hear_out(self, child: _Child) -> None:
        """Its last words are in its log before it is gone."""
        if child.launch is not None:
            await asyncio.wait([child.launch], timeout=LOG_SETTLE_SECONDS)
        await asyncio.wait([child.follower or self._follow(child)], timeout=LOG_SETTLE_SECONDS)
        self._is_gone(child)

    def _follow(self, child: _Child) -> asyncio.Task[None]:
        """Copy its output, from where an earlier server left off."""
        if child.log is None:
            path = child.handle.log_path
            since = container_logs.last_written(path) if child.launch is None else 0
            child.log = container_logs.FollowedLog(self._api, child.container, path, since)
        if child.follower is None or child.follower.done():
            child.follower = asyncio.get_running_loop().create_task(child.log.follow())
        return child.follower

    def _is_gone(self, child: _Child) -> None:
        if child.kill_timer is not None:
            child.kill_timer.cancel()
        if child.follower is not None:
            child.follower.cancel()
        child.gone = True
        if self._on_exit is not None:
            self._on_exit(child.handle.child_id)

    async def _end(self, child: _Child, signal: str) -> None:
        """Signal a container; one that is not started yet is removed instead."""
        if not child.is_made:
            assert child.launch is not None  # noqa: S101  what has none is made
            child.launch.cancel()
            await asyncio.wait([child.launch])
            if await self._remove(child.container):
                self._is_gone(child)
            return  # else: whatever there is of it is ended when its daemon answers again
        try:
            await self._api.call("POST", f"/containers/{child.container}/kill", {"signal": signal})
        except RefusedError:  # it does not run: look how it ended
            with suppress(SwellError):
                seen = await self._inspect(child.container)
                if seen is None:
                    self._ended(child, None)
                else:
                    self._see(child, seen)
        except SwellError as away:
            _log.warning("a container cannot be stopped yet", extra={"reason": str(away)})

    def _died(self, child_id: str, exit_code: int | None) -> None:
        child = self._children.get(child_id)
        if child is not None and not child.gone:
            self._ended(child, exit_code)

    async def _listed(self, found: Callable[[], Awaitable[list[Seen]]]) -> None:
        """Compare with all that the daemon has. What is started while it is asked is left out."""
        expected = [child for child in self._children.values() if child.is_made and not child.gone]
        there = {seen.child_id: seen for seen in await found()}
        for child in expected:
            seen = there.get(child.handle.child_id)
            if seen is None:
                self._ended(child, None)
            elif seen.runs:
                self._see(child, seen)
                self._insist(child)
            else:
                ended = await self._inspect(child.container)
                self._ended(child, ended.exit_code if ended is not None else None)
        for seen in there.values():
            is_ours = seen.child_id in self._children
            if seen.name in self._disowned or not (is_ours or (seen.runs and not self._adopted)):
                self._disown(seen.name)

    def _insist(self, child: _Child) -> None:
        """Ask again what the daemon may not have heard."""
        if child.kill_at is not None:
            late = asyncio.get_running_loop().time() >= child.kill_at
            self._spawn(self._end(child, _KILL if late else _TERM))

    def _disown(self, name: str) -> None:
        if len(self._disowned) < MAX_DISOWNED:
            self._disowned.add(name)
        self._spawn(self._clear_away(name))

    async def _clear_away(self, name: str) -> None:
        if await self._remove(name):
            self._disowned.discard(name)

    async def _remove(self, name: str) -> bool:
        """Remove a container, running or not, with its anonymous volumes; False where it could not be done."""
        try:
            await self._api.call("DELETE", f"/containers/{name}", {"force": "1", "v": "1"})
        except RefusedError as refused:
            return refused.status == _GONE
        except SwellError:
            return False
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
