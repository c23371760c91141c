"""Children as processes of this machine (Linux).

Each has a session of its own, /dev/null as its input and a file as its output, so that nothing ties it to the process
that started it. Ends are told by pidfd, which works for adopted children as well as for our own.
"""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from swell.adapters.providers import logs, proc
from swell.errors import AtCapacity, LaunchFailed
from swell.ports.provider import MARKER, Binding, ChildHandle, ChildSpec, ChildStatus, Presence

CAPACITY_RETRY_SECONDS = 5.0
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


@dataclass
class _Child:
    handle: ChildHandle
    descriptor: int  # pidfd, -1 when closed
    process: subprocess.Popen[bytes] | None  # None: adopted
    exit_code: int | None = None
    gone: bool = False
    kill_at: float | None = None  # on the event loop's clock
    kill_timer: asyncio.TimerHandle | None = None
    cleanup: asyncio.Task[None] | None = field(default=None, repr=False)


class ProcessProvider:
    """Runs children on this machine. Use it from one event loop; `close` leaves the children running.

    `on_exit` is called with a child's id when it is gone, so that a loop can look at once.
    """

    def __init__(self, on_exit: Callable[[str], None] | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._children: dict[str, _Child] = {}
        self._on_exit = on_exit
        self._environ = dict(os.environ if environ is None else environ)

    @property
    def binding(self) -> Binding:
        """A free port of this machine's loopback."""
        return Binding()

    async def start(self, child: ChildSpec) -> ChildHandle:
        known = self._children.get(child.child_id)
        if known is not None and not known.gone:
            return known.handle
        process = self._spawn(child)  # takes about 2 ms; without an await, two starts cannot interleave
        identity = proc.identity_of(process.pid)
        # None: it has ended already; its pid stays taken until we collect it, so the pidfd is still its own.
        start_time = identity.start_time if identity is not None else 0.0
        handle = ChildHandle(child.child_id, child.log_path, process.pid, start_time)
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError as error:  # no descriptor left: what cannot be watched must not run
            process.kill()
            await asyncio.to_thread(process.wait)
            raise _start_error(f"cannot watch {child.argv[0]}", error) from error
        self._watch(_Child(handle, descriptor, process))
        return handle

    def _spawn(self, child: ChildSpec) -> subprocess.Popen[bytes]:
        environ = {**self._environ, **child.env, MARKER: child.child_id}
        try:
            log = logs.open_log(child.log_path, child.child_id)
            try:
                return subprocess.Popen(  # noqa: S603  the caller's own command, no shell
                    child.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environ,
                    close_fds=True,
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            raise _start_error(f"cannot start {child.argv[0]}", error) from error
        except ValueError as error:  # a NUL in an argument
            raise LaunchFailed(f"cannot start {child.child_id}: {error}") from error

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        present = self._children.get(child_id)
        if present is not None and not present.gone:
            return present.handle
        identity = await asyncio.to_thread(_find, child_id, known)
        if identity is None:
            await asyncio.to_thread(proc.kill_marked, child_id)  # its own children may have outlived it
            return None
        try:
            descriptor = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return None
        if proc.identity_of(identity.pid) != identity:
            os.close(descriptor)
            return None
        handle = ChildHandle(child_id, log_path, identity.pid, identity.start_time)
        self._watch(_Child(handle, descriptor, None))
        return handle

    def status(self, handle: ChildHandle) -> ChildStatus:
        child = self._children.get(handle.child_id)
        if child is None:
            return ChildStatus(Presence.GONE)
        return ChildStatus(Presence.GONE if child.gone else Presence.RUNNING, child.exit_code)

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        child = self._children.get(handle.child_id)
        if child is None or child.descriptor < 0:
            return
        loop = asyncio.get_running_loop()
        if grace_seconds <= 0:
            self._signal(child, signal.SIGKILL)
            return
        kill_at = loop.time() + grace_seconds
        if child.kill_at is None:
            self._signal(child, signal.SIGTERM)
        elif child.kill_at <= kill_at:
            return
        if child.kill_timer is not None:
            child.kill_timer.cancel()
        child.kill_at = kill_at
        child.kill_timer = loop.call_at(kill_at, self._signal, child, signal.SIGKILL)

    async def end_orphans(self) -> None:
        """Nothing: every child has a stored intent, and one that was not adopted was killed then."""

    async def log_tail(self, log_path: Path) -> str:
        return await asyncio.to_thread(logs.read_tail, log_path)

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        await asyncio.to_thread(logs.rotate, log_path, max_bytes=max_bytes, files=files)

    async def forget(self, handle: ChildHandle) -> None:
        child = self._children.get(handle.child_id)
        if child is not None and child.gone:
            del self._children[handle.child_id]

    async def close(self) -> None:
        """Stop watching. Children go on; a later provider adopts them."""
        for child in self._children.values():
            self._unwatch(child)
            if child.cleanup is not None:
                await child.cleanup
            if child.process is not None and child.process.returncode is None:
                child.process.returncode = (
                    0  # it is meant to outlive us: no warning about it, and nobody to wait for it
                )
        self._children.clear()

    def _watch(self, child: _Child) -> None:
        self._children[child.handle.child_id] = child
        asyncio.get_running_loop().add_reader(child.descriptor, self._leader_ended, child)

    def _unwatch(self, child: _Child) -> None:
        if child.kill_timer is not None:
            child.kill_timer.cancel()
        if child.descriptor >= 0:
            asyncio.get_running_loop().remove_reader(child.descriptor)
            os.close(child.descriptor)
            child.descriptor = -1

    def _leader_ended(self, child: _Child) -> None:
        self._unwatch(child)
        if child.process is not None:
            child.exit_code = child.process.wait()  # ended already: collects it, does not wait
        child.cleanup = asyncio.get_running_loop().create_task(self._clean_up(child))

    async def _clean_up(self, child: _Child) -> None:
        await asyncio.to_thread(proc.kill_marked, child.handle.child_id)
        child.gone = True
        if self._on_exit is not None:
            self._on_exit(child.handle.child_id)

    def _signal(self, child: _Child, number: signal.Signals) -> None:
        """To the whole process group, while its leader, watched through the pidfd, keeps the group's number taken."""
        if child.descriptor < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.descriptor, 0)
            os.killpg(child.handle.pid, number)


def _start_error(what: str, error: OSError) -> AtCapacity | LaunchFailed:
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        message = f"{what}: {reason}; free memory, processes, open files or disk"
        return AtCapacity(message, retry_after_seconds=CAPACITY_RETRY_SECONDS)
    return LaunchFailed(f"{what}: {reason}; check that it is installed and may be run")


def _find(child_id: str, known: ChildHandle | None) -> proc.Identity | None:
    if known is not None:
        identity = proc.identity_of(known.pid)
        if identity is not None and identity.start_time == known.start_time and proc.carries(known.pid, child_id):
            return identity
    leaders = (identity for identity in proc.find_marked(child_id) if identity.pid == identity.session)
    return min(leaders, key=lambda identity: identity.start_time, default=None)
