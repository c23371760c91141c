"""Fixtures that several areas share: ports, polling, a scripted upstream, a real `swell up`.

Everything started here is ended here: `swell_up` finds what its server left behind by the state directory in a command
line or environment, and kills it. Hypothesis has no deadline (shared machines stall) and prints what reproduces a
failure. Under CI a skip whose reason SWELL_ALLOWED_SKIPS does not list fails the run.
"""

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from scripted_upstream import UpstreamThread
from swell.errors import SourceError
from swell_process import SwellProcess, SwellUp, choose_free_port, wait_until

if TYPE_CHECKING:
    from swell.testing.postgres_server import PostgresServer

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it, and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("swell", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("swell")


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    return choose_free_port()


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """`eventually(condition, seconds=…)`: polls, for what other processes do; in-process tests wait for events."""
    return wait_until


@pytest.fixture(scope="session")
def model_file() -> Path:
    """SmolLM2 135M Instruct as GGUF, through Swell's own cache: fetched once, then offline."""
    from swell.adapters.sources import SOURCES, ModelCache, default_cache_folder
    from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE

    try:
        cache = ModelCache(default_cache_folder(os.environ), SOURCES)
        return cache.ensure(DEFAULT_SOURCE, sha256=DEFAULT_SHA256).path
    except SourceError as error:
        pytest.skip(f"the small model is not here and cannot be fetched; connect once and run this again ({error})")


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[UpstreamThread]:
    """A scripted upstream with a journal."""
    with UpstreamThread(tmp_path / "upstream.jsonl") as running:
        yield running


@pytest.fixture(scope="module")
def shared_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamThread]:
    """One scripted upstream for a whole file."""
    with UpstreamThread(tmp_path_factory.mktemp("upstream") / "upstream.jsonl") as running:
        yield running


@pytest.fixture
def own_postgres() -> "Iterator[PostgresServer]":
    """A Postgres that may be killed, for tests marked `services`."""
    from swell.testing.postgres_server import MISSING, PostgresServer, find_programs

    if find_programs() is None:
        pytest.skip(MISSING)
    with PostgresServer() as server:
        yield server


@pytest.fixture
def swell_up() -> Iterator[SwellUp]:
    """A factory of running servers, ended with the test."""
    with _Servers() as servers:
        yield servers.up


@pytest.fixture(scope="module")
def shared_swell_up() -> Iterator[SwellUp]:
    """The same for a whole file."""
    with _Servers() as servers:
        yield servers.up


@pytest.fixture(scope="session")
def session_swell_up() -> Iterator[SwellUp]:
    """The same for the whole run."""
    with _Servers() as servers:
        yield servers.up


class _Servers:
    """The servers of one fixture. State directories get short paths, since a Unix socket's has at most 107 bytes."""

    def __init__(self) -> None:
        self._running: list[SwellProcess] = []
        self._folders: list[Path] = []

    def __enter__(self) -> "_Servers":
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._running:
            server.end()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def up(
        self,
        spec: str | None,
        *arguments: str,
        workers: int = 1,
        ready: bool = True,
        environment: dict[str, str] | None = None,
        program: tuple[str, ...] | None = None,
    ) -> SwellProcess:
        folder = Path(tempfile.mkdtemp(prefix="swell-"))
        self._folders.append(folder)
        state, port = folder / "state", choose_free_port()
        options = ["--port", str(port), "--workers", str(workers), "--state", str(state), *arguments]
        if spec is not None:
            (folder / "swell.yaml").write_text(spec)
            options += ["-f", str(folder / "swell.yaml")]
        marked = {**os.environ, "COLUMNS": "200", "SWELL_TEST_STATE": str(state), **(environment or {})}
        server = SwellProcess(state, port, options, marked)
        if program is not None:
            server.program = program
        self._running.append(server)
        server.start()
        if ready:
            server.wait_ready()
            server.create_key()
        return server


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Under CI, name the skips that nobody allowed."""
    for reason in _unexpected_skips(terminalreporter):
        terminalreporter.write_line(f"UNEXPECTED SKIP: {reason}", red=True)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Under CI, fail where something was skipped for a reason that nobody allowed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and exitstatus == pytest.ExitCode.OK and _unexpected_skips(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _unexpected_skips(reporter: pytest.TerminalReporter) -> list[str]:
    listing = os.environ.get("SWELL_ALLOWED_SKIPS")
    if not listing:
        return []
    lines = (line.strip() for line in Path(listing).read_text().splitlines())
    allowed = [re.compile(line) for line in lines if line and not line.startswith("#")]
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])}
    return sorted(reason for reason in reasons if not any(pattern.search(reason) for pattern in allowed))
