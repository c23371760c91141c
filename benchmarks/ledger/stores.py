"""The two stores that are measured, filled by the shortest way that each knows: that is not what is measured."""

# ruff: noqa: S608  statements of names that stand here

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import psycopg

from benchmarks.ledger.month import END_MS, HOUR_MS, MONTH, Piece
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
ROLLED_STEPS = 500
_COLUMNS = ", ".join(UsageChange._fields)


_SUMS = (
    "CREATE TABLE made_{kind} AS SELECT at - at % {length} AS start_unix_ms, key_id, tenant, model, endpoint, status,"
    " prompt_rate, completion_rate, {times} * count(*) AS requests, ({times} * sum(prompt_tokens))::bigint AS prompt,"
    " ({times} * sum(completion_tokens))::bigint AS completion, ({times} * sum(charge_usd_nanos))::bigint AS charge"
    " FROM (SELECT *, coalesce(reserved_at_unix_ms, settled_at_unix_ms) AS at FROM made) AS made"
    " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8"
)


class Filled(Protocol):
    """A store that holds what is measured."""

    store: SqlStore

    def fill(self, pieces: Iterator[Piece], times: int = 1) -> tuple[int, int]:
        """Enter all pieces so many times; their requests that are not void, and nano-dollars."""

    def sum_up(self) -> tuple[int, float]:
        """Have everything summed up; how many steps of it the store took by itself, and their seconds."""

    def cpu_seconds(self) -> float:
        """Of the processor so far, by whatever is the database."""

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
        statement = f"INSERT INTO usage ({_COLUMNS}) VALUES ({marks})"
        for piece in pieces:
            rows = map(tuple, piece.rows())
            with self.store._database.writing() as connection:
                while some := list(islice(rows, STATEMENT_ROWS)):
                    connection.exec_driver_sql(statement, some)
            requests, charge = requests + piece.sums[0], charge + piece.sums[1]
        return requests, charge

    def sum_up(self) -> tuple[int, float]:
        return _roll(self.store)

    def cpu_seconds(self) -> float:
        return time.process_time()

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

    def sum_up(self) -> tuple[int, float]:
        """The store begins; where requests were entered several times, the rest is taken from one of each."""
        with self._server.admin(self._database) as admin:
            (is_multiplied,) = admin.execute("SELECT to_regclass('made_hours') IS NOT NULL").fetchone() or (False,)
        if not is_multiplied:
            return _roll(self.store)
        begun = _roll(self.store, ROLLED_STEPS)
        with self.store._database.writing() as connection:
            for kind in ("hours", "days"):
                connection.exec_driver_sql(f"DELETE FROM usage_{kind}")
                connection.exec_driver_sql(f"INSERT INTO usage_{kind} SELECT * FROM made_{kind}")
            for counter in ("rolled_until_unix_ms", "days_until_unix_ms"):
                connection.exec_driver_sql("DELETE FROM counters WHERE name = %s", (counter,))
                connection.exec_driver_sql("INSERT INTO counters VALUES (%s, %s)", (counter, END_MS))
        return begun

    def cpu_seconds(self) -> float:
        first = self._server.pid
        known = [fields for fields in map(_fields, Path("/proc").glob("[0-9]*/stat")) if fields]
        own = [fields for fields in known if first in (int(fields[0]), int(fields[3]))]
        # With those of processes that have ended, which the first one has waited for.
        return sum(sum(map(int, fields[13:17])) for fields in own) / os.sysconf("SC_CLK_TCK")

    def _multiply(self, admin: "psycopg.Connection[Any]", table: str, times: int) -> None:
        """As if there were so many times as many gateway workers; arrivals keep their order."""
        columns = _COLUMNS.replace("request_id", "overlay(request_id PLACING to_hex(16 + time) FROM 12 FOR 2)")
        copies = f"SELECT {columns} FROM made CROSS JOIN generate_series(0, {times - 1}) AS time"
        with self._server.admin(self._database) as reader, admin.transaction():
            for kind, length in (("hours", HOUR_MS), ("days", 24 * HOUR_MS)):
                admin.execute(_SUMS.format(kind=kind, length=length, times=times))
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


def _roll(store: SqlStore, most: int | None = None) -> tuple[int, float]:
    begun = time.perf_counter()
    steps = iter(lambda: store.roll_usage(END_MS + HOUR_MS), False)
    count = sum(1 for _ in (steps if most is None else islice(steps, most)))
    return count, time.perf_counter() - begun


def _fields(stat: Path) -> list[str]:
    try:
        text = stat.read_text()
    except OSError:
        return []
    name_end = text.rindex(")")
    return [text.split()[0], "", *text[name_end + 2 :].split()]


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
