"""The store contract, on the encrypted SQLite file and on the fake."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from swell.adapters.stores import open_store
from swell.ports.store import Store
from swell.testing.alert_suite import AlertSuite
from swell.testing.budget_suite import BudgetSuite
from swell.testing.memory_store import MemoryStore
from swell.testing.override_suite import OverrideSuite
from swell.testing.rate_suite import RateSuite
from swell.testing.run_suite import RunSuite
from swell.testing.store_suite import StoreSuite
from swell.testing.usage_group_suite import UsageGroupSuite

KEY = bytes(range(32))


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database: migrating takes 200 ms, copying none."""
    path = tmp_path_factory.mktemp("empty") / "swell.db"
    open_store(path, KEY).close()
    return path


class TestSqliteStore(StoreSuite, BudgetSuite, OverrideSuite, AlertSuite, UsageGroupSuite, RunSuite, RateSuite):
    @pytest.fixture
    def store(self, tmp_path: Path, empty_database: Path) -> Iterator[Store]:
        store = open_store(Path(shutil.copy(empty_database, tmp_path)), KEY)
        yield store
        store.close()


class TestMemoryStore(StoreSuite, BudgetSuite, OverrideSuite, AlertSuite, UsageGroupSuite, RunSuite, RateSuite):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(has_reader=True)
