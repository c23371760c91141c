"""A real Postgres for tests and benchmarks: in a folder of its own, killed, started again, never left behind."""

# ruff: noqa: S603  programs and statements of our own

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg

from swell.errors import StateError

USER, PASSWORD = "swell", "a-p@ss/word"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)
MISSING = (
    "Postgres is not installed: run make test-services as root, or install it (Debian: apt-get install postgresql)"
)
# A power cut is nobody's subject here, and what is written survives a killed process without waiting for the disk.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "40"}


def find_programs() -> Path | None:
    """The folder of the newest Postgres that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    return Path(program).parent if program else None


class PostgresServer:
    """One server. Its Unix socket lets its owner in without a password, its loopback port asks for one."""

    def __init__(self, folder: Path | None = None, **options: str) -> None:
        """`options` are Postgres's settings; where to keep everything is a new folder in `folder`.

        Raises StateError where Postgres is not installed.
        """
        programs = find_programs()
        if programs is None:
            raise StateError(MISSING)
        self.programs = programs
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.folder = Path(tempfile.mkdtemp(prefix="swell-postgres-", dir=folder))
        self.options = {**QUICK, **options}
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as_whom: dict[str, Any] = {}
        if os.geteuid() == 0:  # Postgres refuses to be run by root
            other = pwd.getpwnam("postgres" if _is_user("postgres") else "nobody")
            self._as_whom = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self.folder, other.pw_uid, other.pw_gid)

    def __enter__(self) -> Self:
        try:
            secret = self.folder / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)  # in a folder that only its owner may enter
            command = [str(self.programs / "initdb"), "-D", str(self.folder / "data"), "-U", USER, "-E", "UTF8"]
            command += ["--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]
            made = subprocess.run(
                [*command, f"--pwfile={secret}"], capture_output=True, cwd="/", check=False, timeout=60, **self._as_whom
            )
            if made.returncode != 0:
                raise StateError(f"initdb failed: {made.stderr.decode()}")
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, again where it was stopped or killed, and wait until it answers."""
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        options = [word for name, value in (settings | self.options).items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - nothing of this process runs in threads that lock
                **self._as_whom,
            )  # fmt: skip
        self.wait_ready()

    @property
    def pid(self) -> int:
        """Of its first process; 0 where it does not run."""
        return 0 if self._process is None else self._process.pid

    def wait_ready(self) -> None:
        """Wait until it answers, after it was started or has lost one of its processes."""
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise StateError(f"Postgres does not answer: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it as an administrator would who does not wait for clients."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
            self.kill()

    def kill(self) -> None:
        """SIGKILL for all of its processes: the first, then those that it had started."""
        if self._process is None or self._process.poll() is not None:
            return
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        deadline = time.monotonic() + STOP_SECONDS
        for pid in map(int, listed.split()):  # a new server would find the old one's memory in use
            with contextlib.suppress(ProcessLookupError):
                while time.monotonic() < deadline:
                    os.kill(pid, signal.SIGKILL)
                    time.sleep(POLL_SECONDS)

    @contextlib.contextmanager
    def admin(self, database: str = "postgres") -> Iterator["psycopg.Connection[Any]"]:
        """A connection of the administrator, every statement its own transaction."""
        with psycopg.connect(host=str(self.folder), port=self.port, user=USER, dbname=database, autocommit=True) as it:
            yield it

    def run(self, statement: str, database: str = "postgres", **values: object) -> list[tuple[Any, ...]]:
        """One statement; what it returned."""
        with self.admin(database) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def new_database(self, template: str = "template0") -> str:
        """Make a database that nobody else uses; its name."""
        self._databases += 1
        name = f"t{self._databases}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.run(f"DROP DATABASE {database} WITH (FORCE)")

    def url(self, database: str) -> str:
        """Over the Unix socket."""
        return f"postgresql:///{database}?host={self.folder}&port={self.port}&user={USER}"

    def url_of_port(self, database: str) -> str:
        """Over the loopback port, without the password."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def end_sessions(self, database: str) -> int:
        """Have the server close every connection to a database; how many there were."""
        ended = self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %(name)s", name=database
        )
        return len(ended)

    def session_pids(self, database: str) -> list[int]:
        """The server's processes that serve connections to a database."""
        rows = self.run("SELECT pid FROM pg_stat_activity WHERE datname = %(name)s", name=database)
        return [row[0] for row in rows]

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise StateError(f"Postgres has ended: {(self.folder / 'log').read_text()[-2000:]}")
        with contextlib.suppress(psycopg.OperationalError):
            return self.run("SELECT 1") == [(1,)]
        return False


def _is_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _end_with_the_tests() -> None:
    """In the child: have the kernel send SIGINT, which ends Postgres at once, when the test process dies."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGINT)
