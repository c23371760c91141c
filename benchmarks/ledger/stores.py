"""The two stores that are measured, filled by the shortest way that each knows: that is not what is measured."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import psycopg

from benchmarks.ledger.month import MONTH, Piece
from swell.adapters.stores.partitions import make_partitions
from swell.adapters.stores.postgres import PostgresStore, open_postgres
from swell.adapters.stores.postgres_location import locate
from swell.adapters.stores.sql_store import SqlStore
from swell.adapters.stores.sqlite import SqliteStore
from swell.adapters.stores.sqlite_database import SqliteDatabase
from swell.state.records import UsageChange
from swell.testing.postgres_server import PostgresServer

KEY = bytes(range(32))
STATEMENT_ROWS = 5_000
_COLUMNS = ", ".join(UsageChange._fields)


class Filled(Protocol):
    """A store that holds what is measured."""

    store: SqlStore

    def fill(self, pieces: Iterator[Piece], times: int = 1) -> tuple[int, int]:
        """Enter all pieces so many times; their requests that are not void, and nano-dollars."""

    def bytes(self) -> int:
        """On disk."""


class SqliteMonth:
    """The default store, one encrypted file."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "swell.db"
        self.store: SqlStore = SqliteStore(SqliteDatabase(self._path, KEY))

    def fill(self, pieces: Iterator[Piece], times: int = 1) -> tuple[int, int]:
        """In transactions of a piece, by INSERT."""
        if times != 1:
            raise ValueError("only Postgres multiplies")
        requests = charge = 0
        marks = ", ".join("?" * len(UsageChange._fields))
        statement = f"INSERT INTO usage ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 - constants
        for piece in pieces:
            rows = map(tuple, piece.rows())
            with self.store._database.writing() as connection:
                while some := list(islice(rows, STATEMENT_ROWS)):
                    connection.exec_driver_sql(statement, some)
            requests, charge = requests + piece.sums[0], charge + piece.sums[1]
        return requests, charge

    def bytes(self) -> int:
        return self._path.stat().st_size


class PostgresMonth:
    """A Postgres with its default settings, over a Unix socket."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._database = server.new_database()
        open_postgres(locate(server.url(self._database))).close()

    @property
    def store(self) -> SqlStore:
        return self._store

    def fill(self, pieces: Iterator[Piece], times: int = 1) -> tuple[int, int]:
        """By COPY into the month's partition, whose indexes are made afterwards; then ANALYZE, as autovacuum would.

        Every request is entered `times` times, each with an id of its own: Postgres copies faster than Python makes.
        """
        table = f"usage_{MONTH}"
        store = open_postgres(locate(self._server.url(self._database)))
        assert isinstance(store, PostgresStore)
        with store._database.writing() as connection:
            make_partitions(connection, [MONTH])
        store.close()
        with self._server.admin(self._database) as admin:
            indexes = "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = %s::regclass"
            definitions = [row[0] for row in admin.execute(indexes, [table])]
            bounds = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = %s"
            ((values,),) = admin.execute(bounds, [table]).fetchall()
            admin.execute(f"ALTER TABLE usage DETACH PARTITION {table}; DROP TABLE {table}")
            requests, charge = self._copy(admin, "made" if times > 1 else table, pieces)
            if times > 1:
                self._multiply(admin, table, times)
            for definition in definitions:
                admin.execute(definition)
            admin.execute(f"ALTER TABLE usage ATTACH PARTITION {table} {values}")
            admin.execute("VACUUM ANALYZE usage")
        return requests * times, charge * times

    def _copy(self, admin: "psycopg.Connection[Any]", table: str, pieces: Iterator[Piece]) -> tuple[int, int]:
        requests = charge = 0
        with admin.transaction():
            admin.execute(f"CREATE TABLE {table} (LIKE usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            with admin.cursor().copy(f"COPY {table} ({_COLUMNS}) FROM STDIN WITH (FREEZE)") as copy:
                for piece in pieces:
                    for some in _lines(piece):
                        copy.write(some)
                    requests, charge = requests + piece.sums[0], charge + piece.sums[1]
        return requests, charge

    def _multiply(self, admin: "psycopg.Connection[Any]", table: str, times: int) -> None:
        """As if there were so many times as many gateway workers; arrivals keep their order."""
        columns = _COLUMNS.replace("request_id", "overlay(request_id PLACING to_hex(16 + time) FROM 12 FOR 2)")
        copies = f"SELECT {columns} FROM made CROSS JOIN generate_series(0, {times - 1}) AS time"  # noqa: S608
        with self._server.admin(self._database) as reader, admin.transaction():
            admin.execute(f"CREATE TABLE {table} (LIKE usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
            with (
                reader.cursor().copy(f"COPY ({copies}) TO STDOUT WITH (FORMAT binary)") as source,
                admin.cursor().copy(f"COPY {table} ({_COLUMNS}) FROM STDIN WITH (FORMAT binary, FREEZE)") as target,
            ):
                some: list[bytes] = []
                for data in source:
                    some.append(bytes(data))
                    if len(some) == STATEMENT_ROWS:
                        target.write(b"".join(some))
                        some.clear()
                target.write(b"".join(some))
        admin.execute("DROP TABLE made")

    def restart(self) -> None:
        """As Postgres comes, for what is measured."""
        self._server.stop()
        self._server.options.clear()
        self._server.start()
        store = open_postgres(locate(self._server.url(self._database)))
        assert isinstance(store, PostgresStore)
        self._store = store

    def bytes(self) -> int:
        (row,) = self._server.run("SELECT pg_database_size(current_database())", self._database)
        return int(row[0])


def _lines(piece: Piece) -> Iterator[bytes]:
    rows = piece.rows()
    while some := list(islice(rows, STATEMENT_ROWS)):
        yield "".join(
            ["\t".join(["\\N" if value is None else str(value) for value in row]) + "\n" for row in some]
        ).encode()


@contextmanager
def sqlite_month(folder: Path) -> Iterator[SqliteMonth]:
    """An empty one, removed afterwards."""
    own = Path(tempfile.mkdtemp(prefix="swell-ledger-", dir=folder))
    try:
        month = SqliteMonth(own)
        yield month
        month.store.close()
    finally:
        shutil.rmtree(own)


@contextmanager
def postgres_month(folder: Path) -> Iterator[PostgresMonth]:
    """An empty one on a server of its own, removed afterwards. It is filled with settings that no user has."""
    quick = {"wal_level": "minimal", "max_wal_senders": "0", "maintenance_work_mem": "1GB", "autovacuum": "off"}
    with PostgresServer(folder, **quick) as server:
        month = PostgresMonth(server)
        yield month
        if hasattr(month, "_store"):
            month.store.close()
