"""Children of a benchmark: pinned to a core, logged to a file, measured through /proc, ended with the run."""

import ctypes
import os
import resource
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTENDER_CORE = 0
LOAD_CORE = 1
READY_SECONDS = 90.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.05
OPEN_FILES = 1 << 16
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class BenchmarkError(Exception):
    """The run cannot go on; the message says what to do."""


def require_cores() -> None:
    """BenchmarkError where contender and load cannot have a core each."""
    if not {CONTENDER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise BenchmarkError("the benchmark pins to cores 0 and 1; give this process both (taskset -c 0,1)")


def raise_open_files() -> int:
    """Allow as many open files as may be; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(
    argv: Sequence[str | Path],
    *,
    core: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
) -> subprocess.Popen[str]:
    """Start a child whose threads and children all stay on `core`. Its output goes to `log`."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    with log.open("ab") as output:
        return subprocess.Popen(
            [str(part) for part in argv],
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            env={**os.environ, **(environment or {})},
            preexec_fn=prepare,  # noqa: PLW1509 - this process has one thread
            text=True,
        )


def stop(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL to what is left of its tree."""
    family = tree(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in family:
            _kill(pid)
        process.wait()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_http(url: str, process: subprocess.Popen[str], log: Path, seconds: float = READY_SECONDS) -> None:
    """Until `url` answers 200. BenchmarkError with the end of the log where it does not."""
    deadline = time.monotonic() + seconds
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the run's own certificate
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2, context=context) as answer:  # noqa: S310 - a loopback URL of our own
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(POLL_SECONDS)
    tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
    raise BenchmarkError(f"{url} does not answer; the end of {log}:\n{tail}")


def tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        current = todo.pop()
        found.append(current)
        todo.extend(children.get(current, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes with all their threads, living or ended."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def core_seconds(core: int) -> float:
    """User and system time that everybody together has spent on `core`."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *counts = line.split()
        if name == f"cpu{core}":
            return sum(int(count) for count in counts[:3]) / _TICKS_PER_SECOND
    raise BenchmarkError(f"/proc/stat does not know core {core}")


def wait_quiet(pids: Sequence[int], seconds: float = 10.0) -> float:
    """Until these processes have used almost no CPU for 0.3 s, so that work put off counts too. Their CPU time."""
    deadline = time.monotonic() + seconds
    before = cpu_seconds(pids)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = cpu_seconds(pids)
        if now - before <= 2 / _TICKS_PER_SECOND:
            return now
        before = now
    return before


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: resident, its proportional share of it, and the part that no file backs."""

    rss: int
    pss: int
    anonymous: int


def memory_bytes(pid: int) -> Memory:
    """What one process holds now."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        found[name] = int(value.split()[0]) * 1024
    return Memory(found["Rss"], found["Pss"], found["Anonymous"])
