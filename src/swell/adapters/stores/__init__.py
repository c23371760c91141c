"""Stores: the default is one encrypted SQLite file; Postgres is `swell.adapters.stores.postgres`."""

from swell.adapters.stores.sqlite import open_store

__all__ = ["open_store"]
