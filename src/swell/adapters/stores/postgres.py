"""The store for more than one machine: a Postgres database, which others back up and keep available."""

import logging

from swell.adapters.stores.partitions import make_partitions, months_from
from swell.adapters.stores.postgres_database import PostgresDatabase
from swell.adapters.stores.postgres_location import PostgresLocation
from swell.adapters.stores.postgres_reader import PostgresReader
from swell.adapters.stores.sql_store import SqlStore
from swell.errors import AtCapacity
from swell.ports.store import Store

_log = logging.getLogger(__name__)


class PostgresStore(SqlStore):
    """`swell.ports.store.Store` on Postgres, for one server or command at a time."""

    def __init__(self, database: PostgresDatabase) -> None:
        """Raises StateError or AtCapacity where the database cannot be used."""
        super().__init__(database)
        self._postgres = database
        self._months: list[str] = []
        with database.reading() as connection:
            now = connection.exec_driver_sql("SELECT (extract(epoch FROM now()) * 1000)::bigint").scalar_one()
        self._prepare_months(now)

    def next_epoch(self) -> int:
        epoch = super().next_epoch()
        self._postgres.guard(epoch)
        return epoch

    def reader(self) -> PostgresReader:
        return PostgresReader(self._postgres.location)

    def roll_usage(self, now_unix_ms: int) -> bool:
        self._prepare_months(now_unix_ms)
        return super().roll_usage(now_unix_ms)

    def _prepare_months(self, now_unix_ms: int) -> None:
        months = months_from(now_unix_ms)
        if months == self._months:
            return
        try:
            with self._postgres.writing() as connection:
                make_partitions(connection, months)
        except AtCapacity as error:  # a backup locks every table for as long as it runs; there is a month or two left
            _log.warning("a partition of the ledger could not be made yet", extra={"reason": str(error)})
            return
        self._months = months


def open_postgres(location: PostgresLocation) -> Store:
    """Open the store, made on first use, for this process alone. Raises StateError or AtCapacity with a sentence."""
    return PostgresStore(PostgresDatabase(location))
