"""The default store: one encrypted SQLite file."""

from pathlib import Path

from swell.adapters.stores.sql_store import SqlStore
from swell.adapters.stores.sqlite_database import SqliteDatabase
from swell.ports.store import Store


class SqliteStore(SqlStore):
    """`swell.ports.store.Store` on an encrypted SQLite file."""


def open_store(path: Path, key: bytes) -> Store:
    """Open or create the store at `path` with its raw 32-byte key. Raises StateError or AtCapacity with a sentence."""
    return SqliteStore(SqliteDatabase(path, key))
