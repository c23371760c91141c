"""One encrypted SQLite file: opening it, its transactions, and what its errors mean.

The key is a raw 256-bit key, so that opening costs no key derivation. WAL with `synchronous=FULL`: what was committed
survives a power cut. Every write transaction begins IMMEDIATE, so that waiting for another process happens once, at
the start, with a bound, and never turns into a deadlock half-way.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, StaticPool, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlcipher3 import dbapi2  # type: ignore[import-untyped]  # ships no types

from swell.adapters.stores.schema import HEAD
from swell.errors import AtCapacity, StateError, SwellError
from swell.ports.store import BUSY_TIMEOUT_SECONDS

KEY_BYTES = 32
RETRY_SECONDS = 1.0  # what AtCapacity suggests
CACHE_KIBIBYTES = 8 * 1024
CHECKPOINT_PAGES = 400  # the default of 1,000 keeps the disk and a core busy for tens of milliseconds at a time
JOURNAL_BYTES = 64 * 1024 * 1024  # the write-ahead log is cut back to this at a checkpoint

_PRAGMAS = (
    "PRAGMA cipher_log_level = NONE",  # a wrong key is reported as an error, not on stderr
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
    f"PRAGMA cache_size = -{CACHE_KIBIBYTES}",
    f"PRAGMA journal_size_limit = {JOURNAL_BYTES}",
    "PRAGMA recursive_triggers = ON",  # else REPLACE would slip past the audit table's DELETE trigger
    "PRAGMA temp_store = MEMORY",  # temporary files would not be encrypted
)
_READ_ONLY = {"swell_read_only": True}


def has_wal_reset_bug(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can lose committed writes after its write-ahead log was reset, or predates what we need.

    Fixed in 3.51.3, and in the 3.50 and 3.44 branches from 3.50.7 and 3.44.6.
    """
    if version >= (3, 51, 3):
        return False
    return not any(fixed <= version < (3, fixed[1] + 1, 0) for fixed in ((3, 50, 7), (3, 44, 6)))


class SqliteDatabase:
    """A connection and its transactions. One thread at a time; which one does not matter."""

    def __init__(self, path: Path, key: bytes) -> None:
        """Open or create, and migrate. Raises StateError or AtCapacity."""
        self._path = path
        _check_library(dbapi2.sqlite_version_info)
        if len(key) != KEY_BYTES:
            raise StateError(f"the store key has {len(key)} bytes instead of {KEY_BYTES}; restore the right key file")
        self._engine: Engine | None = None
        engine = _make_engine(path, key)
        try:
            with self._translated():
                path.touch(mode=0o600)
                with engine.connect().execution_options(**_READ_ONLY) as connection:
                    revision = _revision(connection)
                if revision != HEAD:
                    self._migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        self._engine = engine

    def close(self) -> None:
        """Let go of the file; twice is fine."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that commits at the end, or changes nothing."""
        with self._translated(), self._open_engine().begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view that does not keep another process from writing."""
        with self._translated(), self._open_engine().connect().execution_options(**_READ_ONLY) as connection:
            yield connection

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise StateError(f"the store {self._path} was closed; open it again")
        return self._engine

    def _migrate(self, engine: Engine) -> None:
        from swell.adapters.stores.migrate import migrate  # alembic takes 100 ms to import; a migrated store skips it

        with engine.begin() as connection:
            migrate(connection, self._path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _explain(str(error.orig), self._path) from error.orig
        except dbapi2.Error as error:
            raise _explain(str(error), self._path) from error
        except OSError as error:
            raise StateError(f"the store {self._path} cannot be opened: {error.strerror or error}") from error


def _check_library(version: tuple[int, int, int]) -> None:
    if has_wal_reset_bug(version):
        text = ".".join(map(str, version))
        raise StateError(
            f"SQLite {text} can lose committed writes; install sqlcipher3 0.6.4 or newer, which brings a fixed one"
        )


def _make_engine(path: Path, key: bytes) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlcipher", password=f"x'{key.hex()}'", database=os.fspath(path)),
        module=dbapi2,
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_SECONDS},
        hide_parameters=True,  # an error's text must not carry key digests
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        for pragma in _PRAGMAS:
            connection.execute(pragma).fetchall()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("swell_read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _revision(connection: Connection) -> str | None:
    known = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").first()
    if known is None:
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])


def _explain(problem: str, path: Path) -> SwellError:
    """The vendor's sentence as one of ours. SQLite's texts are stable; the driver does not hand out its codes."""
    if "locked" in problem:
        return AtCapacity(
            f"the store {path} was locked by another process for {BUSY_TIMEOUT_SECONDS:g} s; "
            "end the other program that has it open",
            retry_after_seconds=RETRY_SECONDS,
        )
    if "full" in problem:
        return AtCapacity(
            f"the disk that holds the store {path} is full; free some space", retry_after_seconds=RETRY_SECONDS
        )
    if "not a database" in problem or "malformed" in problem or "hmac" in problem:
        return StateError(
            f"the store {path} cannot be read with this store key: bring back the key file that belongs to it, "
            "or restore the database from a backup, or move it away to begin anew"
        )
    if "unable to open" in problem or "readonly" in problem or "read-only" in problem:
        return StateError(f"the store {path} cannot be opened for writing ({problem}); check its folder's permissions")
    if "UNIQUE constraint failed" in problem:
        return StateError(f"the store already has this entry ({problem}); choose another id")
    return StateError(f"the store {path} failed: {problem}; run `swell doctor`")
