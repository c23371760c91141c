"""A gateway on another machine than its server: workers as children, their spools' way up, and an orderly end (RFC 7).

`swell gateway`, or `python -m swell.server.gateway_host` where only a gateway is installed. Lean like a worker. A
worker ends with this process; what it wrote stays in the state directory, and whoever runs there next sends it up.
"""

import asyncio
import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from swell import __version__
from swell.errors import RetryLater, SwellError, UserError
from swell.metering.ingest import SpoolReader
from swell.security.control_tls import GATEWAY, control_client_context
from swell.security.private_files import replace_private
from swell.server.gateway_session import GatewaySession
from swell.server.port import require_free_port
from swell.server.remote_usage import RemoteUsage
from swell.server.state_directory import StateDirectory
from swell.state.gateway_messages import MAX_NAME_CHARS, GatewayHello, GatewaySettings
from swell.state.usage import LOCK_NAME, SEGMENT_SUFFIX
from swell.state.worker import LEAVE_SIGNAL, ControlServer, WorkerSettings

READ_SECONDS = 0.25  # between two looks at the spools
READ_RETRY_MAX_SECONDS = 5.0
BACKOFF_SECONDS = 0.2  # before a worker that ended is started again; doubles up to
BACKOFF_MAX_SECONDS = 10.0
OVERLAP_SECONDS = 2.0  # a worker with settings of before goes on so long beside its successor
STOP_MARGIN_SECONDS = 5.0  # beyond a worker's own drain, before it is killed
LAST_USAGE_SECONDS = 15.0  # at the end, for the server to take what is left
MAX_WANTED = 64  # reports that wait for what the spools have; older ones have given up
_INCARNATION_BYTES = 6
_RUN_BYTES = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GatewayWishes:
    """What the command line says."""

    control: ControlServer
    state: Path
    name: str
    host: str
    port: int | None = None  # None: as the server says
    workers: int | None = None
    certificate_file: str = ""  # for clients; empty: plaintext
    private_key_file: str = ""
    leave_seconds: float = 0.0  # after SIGTERM it goes on accepting for so long, until balancers know


def run_gateway(wishes: GatewayWishes) -> None:
    """Serve until SIGTERM. Raises UserError or StateError where it cannot begin."""
    if len(wishes.name) > MAX_NAME_CHARS:
        raise UserError(f"a gateway's name has at most {MAX_NAME_CHARS} characters; choose another with --name")
    control_client_context(wishes.control, GATEWAY)
    state = StateDirectory(wishes.state.absolute())
    state.create()
    with state.locked(advice="end it first, with SIGTERM"):
        if wishes.port is not None and not _living_before(state):
            require_free_port(wishes.host, wishes.port)
        uvloop.run(GatewayHost(wishes, state).run())


class GatewayHost:
    """One gateway, from its first step to its last."""

    def __init__(self, wishes: GatewayWishes, state: StateDirectory) -> None:
        self._wishes = wishes
        self._state = state
        hello = GatewayHello(state.installation(), wishes.name, __version__, secrets.token_hex(_RUN_BYTES))
        self._usage = RemoteUsage(wishes.control, hello)
        self._reader = SpoolReader(state.spool, self._usage)
        self._session = GatewaySession(
            wishes.control, hello, living=self._living, told=self._told, wanted=self._usage_wanted
        )
        self._before = _living_before(state)  # workers of a run that was killed; they end by themselves
        self._workers: dict[str, asyncio.subprocess.Process | None] = {}
        self._settings: GatewaySettings | None = None
        self._changed = asyncio.Event()  # other settings, or the end
        self._wanted: list[int] = []  # the ledger is waited for
        self._reading = asyncio.Event()  # the spools shall be looked at now
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def run(self) -> None:
        """Serve until told to stop, and until what was served is told."""
        loop = asyncio.get_running_loop()
        for folder in self._state.spool.iterdir():  # of workers that were killed before they could write anything
            if folder.is_dir() and folder.name not in self._before:
                _remove_unused(folder)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        session = loop.create_task(self._session.run())
        with ThreadPoolExecutor(1, thread_name_prefix="spools") as thread:
            reading = loop.create_task(self._read_spools(thread))
            try:
                await self._serve()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                await self._send_the_rest(thread)
            finally:
                session.cancel()
                await asyncio.gather(session, return_exceptions=True)
                self._usage.close()

    # Workers.

    async def _serve(self) -> None:
        """Keep workers as the server says, one generation after another, until told to stop."""
        tasks: list[asyncio.Task[None]] = []
        end = asyncio.Event()
        while not self._stop.is_set():
            await self._changed.wait()
            self._changed.clear()
            settings = self._settings
            if settings is None or self._stop.is_set():
                continue
            tasks = [task for task in tasks if not task.done()]
            tasks.append(asyncio.create_task(self._retire(end)))
            end = asyncio.Event()
            tasks += [asyncio.create_task(self._keep(each, settings, end)) for each in range(settings.workers)]
        self._leave()
        await self._wait(self._wishes.leave_seconds)
        end.set()
        await asyncio.gather(*tasks)

    def _leave(self) -> None:
        """Balancers are told, and clients one by one with their answers, so that none sends into what is closed."""
        for process in self._workers.values():
            if process is not None:
                with suppress(ProcessLookupError):
                    process.send_signal(LEAVE_SIGNAL)

    async def _retire(self, end: asyncio.Event) -> None:
        """Have the workers of before go, once their successors surely listen."""
        await self._wait(OVERLAP_SECONDS)
        end.set()

    async def _keep(self, ordinal: int, settings: GatewaySettings, end: asyncio.Event) -> None:
        """One worker after another, until `end`."""
        pause = BACKOFF_SECONDS
        while not end.is_set():
            begun = time.monotonic()
            try:
                code = await self._run_worker(ordinal, settings, end)
            except (OSError, SwellError):  # a full disk, no more processes: it passes, and then there is a worker again
                _log.exception("a worker could not be started and is tried again", extra={"worker_id": ordinal})
            else:
                if not end.is_set():
                    _log.warning("a worker ended and is started again", extra={"worker_id": ordinal, "exit_code": code})
            pause = BACKOFF_SECONDS if time.monotonic() - begun > BACKOFF_MAX_SECONDS else pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):  # `wait_for` may forget a cancellation
                    await end.wait()
            pause = min(2 * pause, BACKOFF_MAX_SECONDS)

    async def _run_worker(self, ordinal: int, settings: GatewaySettings, end: asyncio.Event) -> int | None:
        """Start one, and have it drain and end when `end` is set; its exit code. Raises OSError or StateError."""
        incarnation = secrets.token_hex(_INCARNATION_BYTES)
        folder, path = self._state.spool / incarnation, self._state.workers / f"{incarnation}.json"
        try:
            folder.mkdir(mode=0o700)  # a spool that is known has a folder, or its position would be forgotten
            replace_private(path, msgspec.json.encode(self._worker_settings(ordinal, incarnation, settings)))
            self._workers[incarnation] = None
            self._session.news.set()  # before it speaks to the server, which turns away whom it does not know
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(path), start_new_session=True
            )
            self._workers[incarnation] = process
            ended, told = asyncio.ensure_future(process.wait()), asyncio.ensure_future(end.wait())
            try:
                await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
                if not ended.done():
                    await self._end_worker(process, settings.timeouts.drain_seconds + STOP_MARGIN_SECONDS)
                return await ended
            finally:
                told.cancel()
        finally:
            self._workers.pop(incarnation, None)
            self._session.news.set()
            with suppress(OSError):
                path.unlink(missing_ok=True)
            _remove_unused(folder)

    async def _end_worker(self, process: asyncio.subprocess.Process, seconds: float) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        ended, hurried = asyncio.ensure_future(process.wait()), asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait((ended, hurried), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()

    def _worker_settings(self, ordinal: int, incarnation: str, settings: GatewaySettings) -> WorkerSettings:
        wishes = self._wishes
        return WorkerSettings(
            worker_id=ordinal,
            incarnation=incarnation,
            host=wishes.host,
            port=settings.port,
            control_socket="",
            spool_dir=str(self._state.spool / incarnation),
            pepper_file=str(self._pepper_file),
            certificate_file=wishes.certificate_file,
            private_key_file=wishes.private_key_file,
            spool_sync_seconds=settings.spool_sync_seconds,
            queue_seconds=settings.queue_seconds,
            timeouts=settings.timeouts,
            bounds=settings.bounds,
            control=wishes.control,
            parent_pid=os.getpid(),
        )

    @property
    def _pepper_file(self) -> Path:
        return self._state.secrets / "pepper"

    def _living(self) -> tuple[str, ...]:
        self._before = {spool for spool in self._before if _is_locked(self._state.spool / spool)}
        return (*self._workers, *self._before)

    def _told(self, settings: GatewaySettings) -> None:
        """What the server says at the beginning of each connection, and again after each change of its spec."""
        self._reading.set()  # a server is there again
        wishes = self._wishes  # what the command line says goes first, and then the server's word changes nothing
        settings = msgspec.structs.replace(
            settings, port=wishes.port or settings.port, workers=wishes.workers or settings.workers
        )
        if settings == self._settings:
            return
        _log.info("the server has said how to serve", extra={"host": wishes.host, "port": settings.port})
        replace_private(self._pepper_file, settings.pepper)
        self._settings = settings
        self._changed.set()

    # Usage.

    async def _read_spools(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        pause, problem = READ_SECONDS, ""
        while True:
            self._reading.clear()
            wanted, self._wanted = self._wanted, []
            try:
                done = await loop.run_in_executor(thread, self._reader.step)
                pause, problem = READ_SECONDS, ""
                if done.folders_with_more:
                    pause = 0.0
                else:
                    while wanted:
                        self._session.usage_sent(wanted.pop())
            except RetryLater as error:
                pause = min(max(2 * pause, error.retry_after_seconds), READ_RETRY_MAX_SECONDS)
                if str(error) != problem:  # the same again says nothing new
                    _log.info("usage waits", extra={"reason": str(error)})
                problem = str(error)
            except Exception:  # whatever it was, what is written goes up once it is over
                pause = READ_RETRY_MAX_SECONDS
                _log.exception("usage could not be sent up")
            self._wanted = [*wanted, *self._wanted][-MAX_WANTED:]
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):  # `wait_for` may forget a cancellation
                    await self._reading.wait()

    def _usage_wanted(self, token: int) -> None:
        self._wanted = [*self._wanted, token][-MAX_WANTED:]
        self._reading.set()

    async def _send_the_rest(self, thread: ThreadPoolExecutor) -> None:
        """What the workers wrote last. What the server does not take by then stays for whoever runs here next."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + LAST_USAGE_SECONDS
        while any(entry.is_dir() for entry in self._state.spool.iterdir()):
            try:
                done = await loop.run_in_executor(thread, self._reader.step)
                pause = 0.0 if done.folders_with_more or done.spools_finished else READ_SECONDS
            except (SwellError, OSError):
                pause = READ_SECONDS
            if loop.time() >= deadline or self._hurry.is_set():
                _log.warning("usage is left here; a gateway that runs here again sends it up")
                return
            await asyncio.sleep(pause)

    # Ending.

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        _log.info("the gateway was told to stop")
        self._stop.set()
        self._changed.set()

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # `wait_for` may forget a cancellation
                await self._hurry.wait()


def _living_before(state: StateDirectory) -> set[str]:
    return {folder.name for folder in state.spool.iterdir() if folder.is_dir() and _is_locked(folder)}


def _is_locked(folder: Path) -> bool:
    """Whether a worker lives that writes there."""
    try:
        with _opened(folder / LOCK_NAME) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _remove_unused(folder: Path) -> None:
    """A worker that wrote nothing leaves a folder that no reader would take for a spool."""
    with suppress(OSError):
        if not any(path.suffix == SEGMENT_SUFFIX for path in folder.iterdir()):
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
