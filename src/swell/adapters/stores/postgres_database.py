"""A Postgres database: one connection, its transactions, and what happens when it is lost.

Postgres is used like the file: one server at a time, one writer at a time. The first is a lock that belongs to the
connection, so that it ends with the process, or soon after its machine; the second is the row in which every
transaction that writes counts itself, whoever runs it. A lost connection is made anew by the next call. Before anything
is done with it,

- the lock is taken again, and the epoch must be this server's still: what a server has in memory of a store that
  another one has used meanwhile is worth nothing;
- a COMMIT that was never answered is looked up by its count, so that a call that raised has changed nothing. (Postgres
  remembers what became of a transaction's own number, but may give that number out again after a crash.)
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from swell.adapters.stores.postgres_connection import check_server, connected, engine_on, prepare, process_name
from swell.adapters.stores.postgres_errors import explain
from swell.adapters.stores.postgres_location import PostgresLocation
from swell.adapters.stores.schema import HEAD
from swell.clock import SystemClock
from swell.errors import StateError, StoreInUse, StoreLost, SwellError

DOUBT_SECONDS = 20.0  # for a database that crashed in a COMMIT to come back and say what became of it
DOUBT_POLL_SECONDS = 0.1
_SERVER, _MIGRATION = 0x5E11, 0x5E12  # the two locks, each beside a number for the schema
_COUNT = (
    "INSERT INTO counters VALUES (%s, 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value"
)
_EPOCH = "SELECT value FROM counters WHERE name = 'epoch'"
_WRITES, _SESSIONS = "writes", "sessions"  # counters: transactions that wrote, processes that opened the store
_SCHEMA = "hashtext(coalesce(current_schema(), ''))"
# What was acknowledged must be on a disk. Who asks for even more than that gets it.
_DURABLE = (
    "SELECT set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,"
    " false)"
)
HOLDER = (
    "SELECT a.application_name, host(a.client_addr) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"  # noqa: S608
    f" WHERE l.locktype = 'advisory' AND l.granted AND l.classid = {_SERVER} AND l.objid = {_SCHEMA}::oid"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


class PostgresDatabase:
    """`swell.adapters.stores.database.Database` on Postgres, for one server or one command alone."""

    def __init__(self, location: PostgresLocation) -> None:
        """Connect, take the lock, and migrate. Raises StateError or AtCapacity."""
        self._location = location
        self._epoch: int | None = None
        self._session = 0
        self._doubtful: int | None = None  # the count of the transaction whose COMMIT was not answered
        self._is_asking = False  # somebody waits for what became of it
        self._was_done = False
        self._fence: StoreLost | None = None  # why nothing may be done with the store any more
        self._engine: Engine | None = engine_on(self._connect, "READ COMMITTED")
        try:
            with self.reading() as connection:
                revision = _revision(connection)
            if revision != HEAD:
                self._migrate()
            with self.writing() as connection:
                self._session = connection.exec_driver_sql(_COUNT, (_SESSIONS,)).scalar_one()
                epoch = connection.exec_driver_sql(_EPOCH).scalar()
            self.guard(epoch or 0)  # what is read from now on is worth nothing either, once another server begins
        except BaseException:
            self.close()
            raise

    @property
    def location(self) -> PostgresLocation:
        """Where it is, for a further connection."""
        return self._location

    @property
    def shown(self) -> str:
        """Where it is, without any secret."""
        return self._location.shown

    def close(self) -> None:
        """Let go of the connection, and with it of the lock; twice is fine."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def guard(self, epoch: int) -> None:
        """From now on refuse to work once another server has used the store, which raises the epoch."""
        self._epoch = epoch

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that commits at the end, or changes nothing. Nobody else writes meanwhile."""
        with self._translated(), self._open_engine().connect() as connection:
            transaction = connection.begin()
            try:
                count: int = connection.exec_driver_sql(_COUNT, (_WRITES,)).scalar_one()
                yield connection
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                if not error.connection_invalidated or not self._was_committed(count):
                    raise

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view that does not keep another process from writing."""
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with self._translated(), self._open_engine().connect().execution_options(**options) as connection:
            yield connection

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise StateError(f"the store at {self.shown} was closed; open it again")
        return self._engine

    def _migrate(self) -> None:
        from swell.adapters.stores.migrate import migrate  # alembic takes 100 ms to import; a migrated store skips it

        with self._translated(), self._open_engine().begin() as connection:
            # A new index over a large ledger takes as long as it takes.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION}, {_SCHEMA})")
            migrate(connection, f"at {self.shown}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            is_connecting = error.statement is None and not error.connection_invalidated  # a COMMIT has none either
            raise explain(error.orig, self.shown, is_connecting=is_connecting) from error.orig

    def _was_committed(self, count: int) -> bool:
        """What became of a transaction whose COMMIT was not answered. Raises AtCapacity where nobody can tell yet."""
        clock = SystemClock()
        deadline = clock.monotonic() + DOUBT_SECONDS
        self._doubtful, self._is_asking, self._was_done = count, True, False
        try:
            while self._doubtful is not None:
                try:
                    self._open_engine().connect().close()
                except (DBAPIError, SwellError):
                    if self._fence is not None or clock.monotonic() >= deadline:
                        raise
                    time.sleep(DOUBT_POLL_SECONDS)
        finally:
            self._is_asking = False
        return self._was_done

    def _connect(self) -> "psycopg.Connection[Any]":
        """A connection that holds the lock. Raises what psycopg does, StateError or AtCapacity."""
        if self._fence is not None:
            raise self._fence
        connection = connected(self._location, process_name())
        try:
            prepare(connection, self.shown)
            connection.execute(_DURABLE)
            self._lock(connection)
            self._clear_doubt(connection)
            self._require_own_epoch(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _lock(self, connection: "psycopg.Connection[Any]") -> None:
        try:
            connection.execute(f"SELECT pg_advisory_lock({_SERVER}, {_SCHEMA})".encode())
        except psycopg.errors.LockNotAvailable as error:
            self._require_own_epoch(connection)  # a server that leads by now is no command that is soon done
            holder = _holder(connection) or "another server"
            raise StoreInUse(
                f"the store at {self.shown} is in use by {holder}: one server or command at a time; stop it there with "
                "swell down, ask that server instead, or give this one a database of its own"
            ) from error

    def _clear_doubt(self, connection: "psycopg.Connection[Any]") -> None:
        if self._doubtful is None:
            return
        known = dict(connection.execute("SELECT name, value FROM counters").fetchall())
        self._was_done = known.get(_WRITES, 0) >= self._doubtful
        is_known = known.get(_SESSIONS) == self._session  # nobody else can have counted on
        self._doubtful = None
        if not is_known or (self._was_done and not self._is_asking):  # who stored it was told that it was not
            self._fence = StoreLost(
                f"the store at {self.shown} was lost at the end of a transaction and may have kept it after all; stop "
                "this server with swell down and start it again, so that it reads what is stored"
            )
            raise self._fence

    def _require_own_epoch(self, connection: "psycopg.Connection[Any]") -> None:
        if self._epoch is None:
            return
        row = connection.execute(_EPOCH.encode()).fetchone()
        if (0 if row is None else row[0]) != self._epoch:
            self._fence = StoreLost(
                f"another server has used the store at {self.shown} meanwhile, so what this process knows is worth "
                "nothing; end it and start it again"
            )
            raise self._fence


def examine(location: PostgresLocation) -> tuple[str, str]:
    """What Postgres it is and how it is reached; who has the store open, or nothing. Changes nothing, takes no lock.

    Raises StateError or AtCapacity where it cannot be used.
    """
    try:
        with connected(location, "swell doctor") as connection:
            check_server(connection, location.shown)
            is_encrypted = "TLS" if connection.pgconn.ssl_in_use else "no TLS"
            holder = _holder(connection)
            version = connection.info.parameter_status("server_version") or ""
    except psycopg.Error as error:
        raise explain(error, location.shown, is_connecting=True) from error
    return f"Postgres {version.split()[0]} at {location.shown}, {is_encrypted}", holder


def _holder(connection: "psycopg.Connection[Any]") -> str:
    return holder_name(connection.execute(HOLDER.encode()).fetchone())


def holder_name(row: Sequence[Any] | None) -> str:
    """What a row of HOLDER stands for; nothing where there is none."""
    return "" if row is None else f"{row[0] or 'another server'} ({row[1] or 'this machine'})"


def _revision(connection: Connection) -> str | None:
    if connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar() is None:
        return None
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return None if row is None else str(row[0])
