"""Scripted upstreams as processes that can be killed, stopped and started again, each with one journal for ever."""

import asyncio
import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swell.testing.upstream_journal import Line, read_journal
from swell_process import choose_free_port, wait_until

PR_SET_PDEATHSIG = 1  # linux/prctl.h
IN_MODIFY = 2  # linux/inotify.h
_EVENT_BYTES = 4096
_LIBC = ctypes.CDLL(None, use_errno=True)


class UpstreamProcess:
    """`python -m swell.testing.upstream` on a port of its own."""

    def __init__(self, folder: Path, name: str, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self.host, self.port = host, port or choose_free_port()
        self.journal_path = folder / f"{name}.jsonl"
        self.journal_path.touch()
        self._output = folder / f"{name}.output"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        """Start it (again) without waiting for it."""
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "swell.testing.upstream", "--host", self.host, "--port", str(self.port),
                 "--journal", str(self.journal_path)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=end_with_the_tests,  # noqa: PLW1509 - no threads
            )  # fmt: skip

    def wait_ready(self) -> None:
        """Wait until it answers."""
        wait_until(lambda: self.stats() is not None, what=f"{self.name} answers: {self._output.read_text()}")

    def stats(self) -> dict[str, Any] | None:
        """Its own counts since it was started; None where it does not answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/_upstream/stats")
            counts: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException):
            return None
        else:
            return counts
        finally:
            connection.close()

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """It does not outlive the test."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def journal(self) -> list[Line]:
        """Every line of all its lives."""
        return read_journal(self.journal_path)


class JournalWatch:
    """Tells, the moment it happens, that journals have grown, and by how many bytes."""

    def __init__(self, upstreams: list[UpstreamProcess], grown: Callable[[int], None]) -> None:
        self._paths = [upstream.journal_path for upstream in upstreams]
        self._grown = grown
        self._size = self._measure()
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for path in self._paths:
            added = _LIBC.inotify_add_watch(self._descriptor, str(path).encode(), IN_MODIFY)
            assert added >= 0, f"inotify: {os.strerror(ctypes.get_errno())}"
        asyncio.get_running_loop().add_reader(self._descriptor, self._look)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _measure(self) -> int:
        return sum(path.stat().st_size for path in self._paths)

    def _look(self) -> None:
        os.read(self._descriptor, _EVENT_BYTES)
        before, self._size = self._size, self._measure()
        if self._size > before:
            self._grown(self._size - before)


def end_with_the_tests() -> None:
    """In the child: have the kernel end it when the test process dies, however it dies."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pidfd_kill(pid: int) -> Callable[[], None]:
    """What kills exactly the process that has `pid` now, later."""
    descriptor = os.pidfd_open(pid)

    def kill() -> None:
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    return kill
