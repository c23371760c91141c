"""Looking at a Postgres store that another server has: who that is, and whose it is. Nothing is locked or written.

One connection, made when it is first needed and again after it was lost. It waits in the event loop, so that whoever
waits can be told to end at any moment.
"""

from typing import Any

import psycopg

from swell.adapters.stores.postgres_connection import check_server, process_name
from swell.adapters.stores.postgres_database import HOLDER, holder_name
from swell.adapters.stores.postgres_errors import explain
from swell.adapters.stores.postgres_location import PostgresLocation
from swell.adapters.stores.sql_store import MARKED

LOOK_MS = 5_000  # for one answer
_SETTINGS = (
    f"SELECT set_config('statement_timeout', '{LOOK_MS}', false), set_config('lock_timeout', '{LOOK_MS}', false)"
)
_MARKS = "SELECT name, value FROM counters WHERE starts_with(name, %s)"


class PostgresWatch:
    """Use it from one event loop."""

    def __init__(self, location: PostgresLocation) -> None:
        self._location = location
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def look(self) -> tuple[str, dict[str, int]]:
        """Who has the store open, or nothing; and its marks. Raises AtCapacity where the database is away, StateError
        where it cannot be used."""
        is_connecting = self._connection is None
        try:
            connection = self._connection or await self._connect()
            rows = await (await connection.execute(HOLDER.encode())).fetchall()
            return holder_name(rows[0] if rows else None), await self._marks(connection)
        except psycopg.Error as error:
            await self.close()
            raise explain(error, self._location.shown, is_connecting=is_connecting) from error

    async def close(self) -> None:
        """Let go of the connection; twice is fine."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _connect(self) -> "psycopg.AsyncConnection[Any]":
        wanted: dict[str, Any] = {"target_session_attrs": "read-write", "application_name": f"{process_name()} waits"}
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **wanted | dict(self._location.parameters))
        self._connection = connection
        check_server(connection, self._location.shown)
        await connection.execute(_SETTINGS.encode())
        return connection

    async def _marks(self, connection: "psycopg.AsyncConnection[Any]") -> dict[str, int]:
        made = await (await connection.execute("SELECT to_regclass('counters') IS NOT NULL")).fetchone()
        if made is None or not made[0]:
            return {}
        rows = await (await connection.execute(_MARKS, (MARKED,))).fetchall()
        return {name.removeprefix(MARKED): value for name, value in rows}
