"""A real Postgres for tests: started here in a folder of its own, killed, started again, never left behind."""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from swell_process import choose_free_port, wait_until

USER, PASSWORD = "swell", "a-p@ss/word"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
TEMPLATE = "template_of_tests"
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)
_MISSING = (
    "Postgres is not installed: run `make test-services` as root, or install it (Debian: apt-get install postgresql)"
)
# A power cut is nobody's subject here, and what is written survives a killed process without waiting for the disk.
_OPTIONS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": "40"}


def find_programs() -> Path:
    """The folder of the newest Postgres that is installed; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("postgres")
    if program is None:
        pytest.skip(_MISSING)
    return Path(program).parent


class PostgresServer:
    """One server. Its Unix socket lets its owner in without a password, its loopback port asks for one."""

    def __init__(self, **options: str) -> None:
        self.programs = find_programs()
        self.port = choose_free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="swell-postgres-"))
        self._options = _OPTIONS | options
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._as_whom: dict[str, Any] = {}
        if os.geteuid() == 0:  # Postgres refuses to be run by root
            other = pwd.getpwnam("postgres" if _is_user("postgres") else "nobody")
            self._as_whom = {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}
            os.chown(self.folder, other.pw_uid, other.pw_gid)

    def __enter__(self) -> "PostgresServer":
        try:
            secret = self.folder / "password"
            secret.write_text(PASSWORD)
            secret.chmod(0o644)  # in a folder that only its owner may enter
            command = [str(self.programs / "initdb"), "-D", str(self.folder / "data"), "-U", USER, "-E", "UTF8"]
            command += ["--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"]
            made = subprocess.run(
                [*command, f"--pwfile={secret}"], capture_output=True, cwd="/", check=False, timeout=60, **self._as_whom
            )
            assert made.returncode == 0, made.stderr.decode()
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
        options = [word for name, value in (settings | self._options).items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.programs / "postgres"), "-D", str(self.folder / "data"), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                preexec_fn=_end_with_the_tests,  # noqa: PLW1509 - nothing of this process runs in threads that lock
                **self._as_whom,
            )  # fmt: skip
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it answers, after it was started or has lost one of its processes."""
        wait_until(self._answers, seconds=START_SECONDS, what=f"Postgres answers; see {self.folder / 'log'}")

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
        children = psutil.Process(self._process.pid).children()
        self._process.kill()
        self._process.wait(STOP_SECONDS)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        _, left = psutil.wait_procs(children, timeout=STOP_SECONDS)
        assert not left, "a new server would find the old one's memory in use"

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
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
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
