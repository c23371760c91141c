"""The store contract on a real Postgres."""

from collections.abc import Callable

import pytest

from swell.ports.store import Store
from swell.testing.alert_suite import AlertSuite
from swell.testing.budget_suite import BudgetSuite
from swell.testing.override_suite import OverrideSuite
from swell.testing.rate_suite import RateSuite
from swell.testing.run_suite import RunSuite
from swell.testing.store_suite import StoreSuite
from swell.testing.usage_group_suite import UsageGroupSuite

pytestmark = pytest.mark.services


class TestPostgresStore(StoreSuite, BudgetSuite, OverrideSuite, AlertSuite, UsageGroupSuite, RunSuite, RateSuite):
    @pytest.fixture
    def store(self, database: str, open_database: Callable[[str], Store]) -> Store:
        return open_database(database)
