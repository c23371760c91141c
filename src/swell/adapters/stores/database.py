"""What the row modules need of a database: its transactions, and the one statement that is not the same everywhere."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Connection, Table


class Readable(Protocol):
    """A connection that is only read. One thread at a time; which one does not matter.

    Contexts raise what `swell.ports.store` says, with the vendor's error as the cause.
    """

    def reading(self) -> AbstractContextManager[Connection]:
        """One consistent view that does not keep another process from writing."""


class Database(Readable, Protocol):
    """A connection and its transactions. One thread at a time; which one does not matter."""

    def writing(self) -> AbstractContextManager[Connection]:
        """One transaction that commits at the end, or changes nothing. Nobody else writes meanwhile."""

    def close(self) -> None:
        """Let go of the database; twice is fine."""


def insert(connection: Connection, table: Table) -> Any:
    """An INSERT that can be given `on_conflict_do_update` and `on_conflict_do_nothing`.

    Both dialects spell these alike, and SQLAlchemy has a class for each nevertheless.
    """
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_into
    else:
        from sqlalchemy.dialects.sqlite import insert as insert_into  # type: ignore[assignment]  # the same shape
    return insert_into(table)
