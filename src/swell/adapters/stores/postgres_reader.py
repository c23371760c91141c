"""Reports on Postgres: a second connection that only reads, so that the server's own is free while a long one runs.

Postgres shows each transaction what was committed when it began, and no reader keeps a writer waiting, so the two
connections need not know of each other. This one has no lock and counts nothing: it cannot write. It is made when it is
first needed and kept.

What it may take is bounded: one statement at a time, WORKERS processes beside it, STATEMENT_SECONDS each.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from swell.adapters.stores.postgres_connection import connected, engine_on, prepare, process_name
from swell.adapters.stores.postgres_errors import RETRY_SECONDS, explain
from swell.adapters.stores.postgres_location import PostgresLocation
from swell.adapters.stores.usage_reads import UsageReadRows
from swell.errors import AtCapacity, StateError

WORKERS = 2  # processes of Postgres that help with a report, at most; it comes with as many
INTERRUPT_SECONDS = 5.0  # for Postgres to take note that a statement shall end
_CANCELLED = "57014"
_SETTINGS = (
    "SELECT set_config('default_transaction_read_only', 'on', false), set_config('max_parallel_workers_per_gather',"
    f" least({WORKERS}, current_setting('max_parallel_workers_per_gather')::int)::text, false)"
)


class PostgresReading:
    """`swell.adapters.stores.database.Readable` on a connection of its own."""

    def __init__(self, location: PostgresLocation) -> None:
        self._location = location
        self._engine: Engine | None = engine_on(self._connect, "REPEATABLE READ")
        self._lock = threading.Lock()
        self._running: psycopg.Connection[Any] | None = None
        self._is_interrupted = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view, as of the last commit before it began."""
        if self._engine is None:
            raise StateError(f"the reader of the store at {self._location.shown} was closed; open the store again")
        try:
            with self._engine.connect() as connection:
                with self._lock:
                    self._running, self._is_interrupted = connection.connection.driver_connection, False
                try:
                    yield connection
                finally:
                    with self._lock:
                        self._running = None
        except DBAPIError as error:
            raise self._explained(error) from error.orig

    def interrupt(self) -> None:
        """From any thread: end the statement that runs, if one does."""
        with self._lock:
            if self._running is not None:
                self._is_interrupted = True
                self._running.cancel_safe(timeout=INTERRUPT_SECONDS)

    def close(self) -> None:
        """Let go of the connection; twice is fine."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def _connect(self) -> "psycopg.Connection[Any]":
        connection = connected(self._location, f"{process_name()} reports")
        try:
            prepare(connection, self._location.shown)
            connection.execute(_SETTINGS.encode())
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise
        return connection

    def _explained(self, error: DBAPIError) -> Exception:
        if self._is_interrupted and getattr(error.orig, "sqlstate", None) == _CANCELLED:
            return AtCapacity("the report was ended before it was done; ask again", retry_after_seconds=RETRY_SECONDS)
        is_connecting = error.statement is None and not error.connection_invalidated
        return explain(error.orig, self._location.shown, is_connecting=is_connecting)


class PostgresReader(UsageReadRows):
    """`swell.ports.store.UsageReader` on Postgres."""

    def __init__(self, location: PostgresLocation) -> None:
        self._reading = PostgresReading(location)
        super().__init__(self._reading)

    def interrupt(self) -> None:
        self._reading.interrupt()

    def close(self) -> None:
        self._reading.close()
