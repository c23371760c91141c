"""Postgres stores for the tests that are marked `services`."""

from collections.abc import Callable, Iterator

import pytest

from swell.adapters.stores.postgres import PostgresStore, open_postgres
from swell.adapters.stores.postgres_location import locate
from swell.testing.postgres_server import MISSING, PostgresServer, find_programs

TEMPLATE = "template_of_tests"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One Postgres for the whole run, with a migrated database as TEMPLATE: copying it is quicker than migrating."""
    with _server() as server:
        server.run(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
        open_postgres(locate(server.url(TEMPLATE))).close()
        yield server


def _server() -> PostgresServer:
    if find_programs() is None:
        pytest.skip(MISSING)
    return PostgresServer()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a migrated, empty database."""
    name = postgres.new_database(TEMPLATE)
    yield name
    postgres.drop(name)


@pytest.fixture
def open_database(postgres: PostgresServer) -> Iterator[Callable[[str], PostgresStore]]:
    """Opens stores, and closes them at the test's end."""
    opened: list[PostgresStore] = []

    def open_one(name: str) -> PostgresStore:
        store = open_postgres(locate(postgres.url(name)))
        assert isinstance(store, PostgresStore)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()
