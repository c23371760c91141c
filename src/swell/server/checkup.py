"""What `swell doctor` looks at: each check is a small function that returns one finding."""

import importlib.util
import os
import platform
import resource
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from swell.errors import RetryLater, UserError
from swell.server.spending import infrastructure_budgets
from swell.server.state_directory import StateDirectory
from swell.server.unserved import budgets_too_small
from swell.spec import Spec, default_spec, load_spec

NEEDED_PYTHON = (3, 11)
GOOD_MEMORY_BYTES = 2 * 1024**3
NEEDED_DISK_BYTES = 1024**3
GOOD_DESCRIPTORS = 8192
NEEDED_DESCRIPTORS = 512
_RELEASED_UNIX = 1_735_689_600  # 2025-01-01: a clock before it cannot be right
_LOOPBACK = "127.0.0.1"


class Verdict(StrEnum):
    """How bad a finding is."""

    FINE = "fine"
    ADVICE = "advice"  # works, could be better
    WRONG = "wrong"  # keeps Swell, or a part of it that was asked for, from working


@dataclass(frozen=True)
class Finding:
    """One check's outcome: what was found, and what to do where it is not fine."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """For machines."""
        return {"check": self.check, "verdict": self.verdict.value, "found": self.found, "advice": self.advice}


def examine(state: StateDirectory, file: Path | None, port: int | None = None) -> list[Finding]:
    """Every check, in order of how early it would stop `swell up` with this file and, instead of its own, this port."""
    spec, in_file = _file(file)
    checks: list[Callable[[], Finding]] = [
        _python,
        _cores,
        _memory,
        lambda: _disk(state.root),
        _descriptors,
        _clock,
        _store_library,
        lambda: _database(state),
        _engine,
        lambda: _permissions(state),
        lambda: _server(state),
        lambda: _port(state, port or spec.server.port),
        lambda: _leftovers(state),
        lambda: in_file,
    ]
    return [*(check() for check in checks), *_infrastructure_budgets(spec), *_places(state)]


def _file(file: Path | None) -> tuple[Spec, Finding]:
    if file is None:
        return default_spec(), Finding("file", Verdict.FINE, "none: a small default model is served")
    try:
        return load_spec(file), Finding("file", Verdict.FINE, str(file))
    except UserError as error:
        return default_spec(), Finding("file", Verdict.WRONG, error.message, f"correct {file}; see: swell schema")


def _infrastructure_budgets(spec: Spec) -> list[Finding]:
    from swell.server import assembly

    sentences = budgets_too_small(spec, infrastructure_budgets(spec), assembly.stop_grace_seconds)
    said = [sentence.rpartition("; ") for sentence in sentences]
    return [Finding("infrastructure budget", Verdict.WRONG, found, advice) for found, _, advice in said]


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info < NEEDED_PYTHON:
        return Finding("python", Verdict.WRONG, found, "install Python 3.11 or newer and make the environment anew")
    return Finding("python", Verdict.FINE, found)


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0))
    if count < 2:
        return Finding("cores", Verdict.ADVICE, "1 core", "give Swell two cores: one for the gateway, one for engines")
    return Finding("cores", Verdict.FINE, f"{count} cores")


def _memory() -> Finding:
    available = _available_memory_bytes()
    found = f"{available / 1024**3:.1f} GiB available"
    if available < GOOD_MEMORY_BYTES:
        return Finding("memory", Verdict.ADVICE, found, "free some memory before serving models from this machine")
    return Finding("memory", Verdict.FINE, found)


def _available_memory_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux: the total is the best there is
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _disk(root: Path) -> Finding:
    folder = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    found = f"{free / 1024**3:.1f} GiB free for {root}"
    if free < NEEDED_DISK_BYTES:
        return Finding("disk", Verdict.WRONG, found, "free at least 1 GiB, or choose another place with --state")
    return Finding("disk", Verdict.FINE, found)


def _descriptors() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} open files (at most {'any number' if hard == resource.RLIM_INFINITY else hard})"
    if soft < NEEDED_DESCRIPTORS:
        return Finding("open files", Verdict.WRONG, found, f"run: ulimit -n {GOOD_DESCRIPTORS}")
    if soft < GOOD_DESCRIPTORS:
        return Finding("open files", Verdict.ADVICE, found, f"for many clients run: ulimit -n {GOOD_DESCRIPTORS}")
    return Finding("open files", Verdict.FINE, found)


def _clock() -> Finding:
    now = time.time()
    found = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < _RELEASED_UNIX:
        return Finding("clock", Verdict.WRONG, found, "set the clock: expiry of keys and certificates depends on it")
    return Finding("clock", Verdict.FINE, found)


def _store_library() -> Finding:
    if importlib.util.find_spec("sqlcipher3") is None:
        return Finding("store", Verdict.WRONG, "sqlcipher3 is missing", "run: pip install sqlcipher3")
    from swell.server import assembly

    version = assembly.sqlite_version()
    found = f"SQLite {'.'.join(map(str, version))}, encrypted"
    if assembly.is_unsafe_sqlite(version):
        return Finding("store", Verdict.WRONG, found, "run: pip install --upgrade 'sqlcipher3>=0.6.4'")
    return Finding("store", Verdict.FINE, found)


def _database(state: StateDirectory) -> Finding:
    from swell.server import assembly

    try:
        found = assembly.examine_database(state)
    except (UserError, RetryLater) as error:
        problem, _, advice = str(error).rpartition("; ")
        return Finding("database", Verdict.WRONG, problem or advice, advice)
    if found is None:
        return Finding("database", Verdict.FINE, "none: the store is a file in the state directory")
    what, holder = found
    return Finding("database", Verdict.FINE, f"{what}, {f'open in {holder}' if holder else 'nobody has it open'}")


def _engine() -> Finding:
    if importlib.util.find_spec("xllamacpp") is None:
        advice = "to serve GGUF models from this machine run: pip install 'swell[local]'"
        return Finding("llama.cpp", Verdict.ADVICE, "xllamacpp is not installed", advice)
    return Finding("llama.cpp", Verdict.FINE, "xllamacpp is installed")


def _places(state: StateDirectory) -> list[Finding]:
    from swell.server import assembly

    findings = []
    try:
        places = assembly.examine_places(state)
    except UserError as error:
        return [Finding("providers", Verdict.WRONG, error.message, "see what is said of it")]
    for name, found, is_well in places:
        problem, _, advice = ("", "", "") if is_well else found.rpartition("; ")
        verdict = Verdict.FINE if is_well else Verdict.WRONG
        findings.append(Finding(f"provider {name}", verdict, problem or found, advice))
    return findings


def _permissions(state: StateDirectory) -> Finding:
    root = state.root
    if not root.exists():
        parent = next(path for path in root.parents if path.exists())
        if not os.access(parent, os.W_OK):
            advice = "choose another place with --state"
            return Finding("state directory", Verdict.WRONG, f"{root} cannot be made", advice)
        return Finding("state directory", Verdict.FINE, f"{root} will be made")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return Finding("state directory", Verdict.WRONG, f"{root} cannot be written", f"run: sudo chown $USER {root}")
    readable = [path.name for path in (root, *root.glob("secrets/*")) if path.stat().st_mode & 0o077]
    if readable:
        advice = f"run: chmod -R go-rwx {root}"
        return Finding("state directory", Verdict.WRONG, f"others may read {', '.join(readable)}", advice)
    return Finding("state directory", Verdict.FINE, str(root))


def _server(state: StateDirectory) -> Finding:
    if state.is_locked():
        return Finding("server", Verdict.FINE, f"process {state.holder()} holds {state.root}")
    return Finding("server", Verdict.FINE, "none runs")


def _port(state: StateDirectory, port: int) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, port))
        except OSError as error:
            if state.is_locked():
                return Finding("port", Verdict.FINE, f"{port} is taken, and a server runs on this state directory")
            advice = "end what listens there, or choose another with --port"
            return Finding("port", Verdict.WRONG, f"{port}: {error.strerror}", advice)
    return Finding("port", Verdict.FINE, f"{port} is free")


def _leftovers(state: StateDirectory) -> Finding:
    workers = len(list(state.workers.glob("*.json")))
    if workers and not state.is_locked():
        advice = f"run: swell up --state {state.root} (adopts it) or swell down --state {state.root} (ends it)"
        return Finding("leftovers", Verdict.ADVICE, f"a server ended without stopping {workers} worker(s)", advice)
    return Finding("leftovers", Verdict.FINE, "none")
