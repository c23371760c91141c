"""A command of this machine, run without a shell, with the alert as JSON on its standard input.

Exit code 0: delivered. 64, 77, 78 (sysexits: usage, no permission, bad configuration), 126 and 127 (cannot be run, not
found): refused. Anything else, a signal and the time limit included: worth trying again. Whatever it started in its
process group is killed when it has ended, at its time limit, and when delivery is cancelled.

It gets a small environment of its own, so that it inherits none of the server's secrets.
"""

import asyncio
import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress

import msgspec

from swell.adapters.sinks.surroundings import Surroundings
from swell.adapters.sinks.wording import presentable, reply
from swell.errors import RetryLater
from swell.ports.alert_sink import RETRY_SECONDS, SinkRefusedError
from swell.spec.alerts import CommandSpec
from swell.state.alerts import Alert

MAX_OUTPUT_BYTES = 4096  # kept: the last ones, where the reason of a failure stands
READ_BYTES = 65_536
MAX_LEFTOVER_READS = 64  # of what is in the pipe when the command has ended
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
REFUSING_EXITS = frozenset({64, 77, 78, 126, 127})

_INHERITED = ("PATH", "HOME", "LANG", "TZ")
_NO_ROOM = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})


class CommandSink:
    """Runs `argv` once per delivery."""

    def __init__(self, name: str, argv: Sequence[str], *, timeout_seconds: float, environ: Mapping[str, str]) -> None:
        self.name = name
        self._argv = list(argv)
        self._timeout_seconds = timeout_seconds
        self._environ = {"PATH": DEFAULT_PATH} | {key: environ[key] for key in _INHERITED if key in environ}

    @classmethod
    def open(cls, spec: CommandSpec, surroundings: Surroundings) -> "CommandSink":
        """Never fails: whether the command can be run is seen when it is."""
        return cls(spec.name, spec.argv, timeout_seconds=spec.timeout_seconds, environ=surroundings.environ)

    async def deliver(self, alert: Alert) -> None:
        process, output = self._start(presentable(alert))
        try:
            tail = await _Run(process, output).until_ended(self._timeout_seconds)
        except TimeoutError as error:
            problem = f"did not end within {self._timeout_seconds:g} s and was killed; make it faster or raise the time"
            raise self._later(f"{problem} (timeout_seconds)") from error
        except OSError as error:  # no descriptor left
            raise self._later(f"could not be watched ({error.strerror})") from error
        code = process.returncode
        if code in REFUSING_EXITS:
            raise SinkRefusedError(
                f"alert sink {self.name}: {self._argv[0]} ended with {code}{reply(tail)}; correct it"
            )
        if code != 0:
            raise self._later(f"ended with {code}{reply(tail)}")

    async def close(self) -> None:
        """Nothing is kept open."""

    def _start(self, alert: Alert) -> tuple[subprocess.Popen[bytes], int]:
        """The process, and the end of a pipe that its output comes from."""
        output, its_output = os.pipe()
        try:
            # A file and not a pipe: nobody has to feed it, and a command that does not read its input may end.
            with tempfile.TemporaryFile() as its_input:
                its_input.write(msgspec.json.encode(alert))
                its_input.seek(0)
                process = subprocess.Popen(  # noqa: S603 - the user's own command, no shell
                    self._argv,
                    stdin=its_input,
                    stdout=its_output,
                    stderr=its_output,
                    cwd="/",
                    env={**self._environ, **_described(alert)},
                    close_fds=True,
                    start_new_session=True,
                )
        except OSError as error:
            os.close(output)
            if error.errno in _NO_ROOM:
                raise self._later(f"could not be started ({error.strerror})") from error
            problem = f"cannot be started ({error.strerror}); correct argv"
            raise SinkRefusedError(f"alert sink {self.name}: {self._argv[0]} {problem}") from error
        finally:
            os.close(its_output)
        return process, output

    def _later(self, what: str) -> RetryLater:
        return RetryLater(f"alert sink {self.name}: {self._argv[0]} {what}", retry_after_seconds=RETRY_SECONDS)


def _described(alert: Alert) -> dict[str, str]:
    return {
        "SWELL_ALERT_ID": alert.alert_id,
        "SWELL_ALERT_KIND": alert.kind,
        "SWELL_ALERT_SEVERITY": alert.severity,
        "SWELL_ALERT_TITLE": alert.title,
        "SWELL_ALERT_SUBJECT": alert.subject,
    }


class _Run:
    """Waits for one process and reads its output meanwhile. A pidfd tells its end before its pid is given up, so
    that the group that is killed then is certainly its own."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self._process = process
        self._output = output
        self._tail = b""
        os.set_blocking(output, False)

    async def until_ended(self, timeout_seconds: float) -> bytes:
        """The end of its output. TimeoutError where it does not end; it is ended or killed after this."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = -1
        try:
            descriptor = os.pidfd_open(self._process.pid)
            loop.add_reader(descriptor, ended.set)
            loop.add_reader(self._output, self._read)
            async with asyncio.timeout(timeout_seconds):
                await ended.wait()
        finally:
            if descriptor >= 0:
                loop.remove_reader(descriptor)
                os.close(descriptor)
            loop.remove_reader(self._output)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if ended.is_set():
                self._process.wait()  # collects it, does not wait
            else:  # killed just now, and it may take its time to go: nobody needs to see it
                loop.run_in_executor(None, self._process.wait)
            for _ in range(MAX_LEFTOVER_READS):
                if not self._read():
                    break
            os.close(self._output)
        return self._tail

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            piece = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return False
        if not piece:  # all writers have closed it; a reader that stays would be called again and again
            asyncio.get_running_loop().remove_reader(self._output)
        self._tail = (self._tail + piece)[-MAX_OUTPUT_BYTES:]
        return bool(piece)
