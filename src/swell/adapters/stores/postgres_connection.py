"""A connection to Postgres as Swell wants it: to the primary, in UTF-8, and with a bound on every wait."""

import os
import socket
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine.interfaces import IsolationLevel

from swell.adapters.stores.postgres_errors import STATEMENT_SECONDS
from swell.adapters.stores.postgres_location import PostgresLocation
from swell.errors import StateError
from swell.ports.store import BUSY_TIMEOUT_SECONDS

OLDEST_VERSION = 14  # older ones do not notice during a statement that their client is gone
GONE_CHECK_MS = 2_000  # how soon a statement ends whose client has died, and its lock with it
# Postgres's own side of a connection whose client's machine is gone: it ends after half a minute, and with it the lock.
# Without these the operating system would take two hours. A Unix socket needs none.
_GONE_MACHINE = (
    "SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '25000', false)"
)
_SETTINGS = (
    "SELECT set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false),"
    " set_config('client_connection_check_interval', %s, false)"
)


def engine_on(connect: "Callable[[], psycopg.Connection[Any]]", isolation: IsolationLevel) -> Engine:
    """SQLAlchemy on one connection of that kind, made anew where it was lost."""
    return create_engine(
        "postgresql+psycopg://",
        creator=connect,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        isolation_level=isolation,
        hide_parameters=True,  # an error's text must not carry key digests, nor what was asked for
    )


def process_name() -> str:
    """What Postgres and `swell doctor` call this process."""
    return f"swell {socket.gethostname()[:30]} {os.getpid()}"


def connected(location: PostgresLocation, name: str) -> "psycopg.Connection[Any]":
    """A connection that commits each statement. Raises what psycopg does."""
    wanted: dict[str, Any] = {"target_session_attrs": "read-write", "application_name": name}
    return psycopg.connect(autocommit=True, **wanted | dict(location.parameters))


def prepare(connection: "psycopg.Connection[Any]", shown: str) -> None:
    """Bound its waits and statements. Raises StateError where the server is none that Swell can use."""
    check_server(connection, shown)
    milliseconds = (round(BUSY_TIMEOUT_SECONDS * 1000), STATEMENT_SECONDS * 1000, GONE_CHECK_MS)
    connection.execute(_SETTINGS, tuple(map(str, milliseconds)))
    connection.execute(_GONE_MACHINE.encode())


def check_server(connection: "psycopg.Connection[Any] | psycopg.AsyncConnection[Any]", shown: str) -> None:
    """Raises StateError where it is too old, or keeps text in another encoding."""
    version = connection.info.server_version // 10_000
    if version < OLDEST_VERSION:
        raise StateError(f"the store at {shown} is Postgres {version}; Swell needs {OLDEST_VERSION} or newer")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StateError(f"the store at {shown} keeps text as {encoding}; make its database anew with ENCODING 'UTF8'")
