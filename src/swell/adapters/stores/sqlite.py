"""The default store: one encrypted SQLite file."""

from pathlib import Path

from sqlalchemy.dialects.sqlite import insert

from swell.adapters.stores.alert_rows import AlertRows
from swell.adapters.stores.audit_rows import AuditRows
from swell.adapters.stores.budget_rows import BudgetRows
from swell.adapters.stores.database import Database
from swell.adapters.stores.decision_rows import DecisionRows
from swell.adapters.stores.key_rows import KeyRows
from swell.adapters.stores.process_rows import ProcessRows
from swell.adapters.stores.rate_rows import RateRows
from swell.adapters.stores.run_rows import RunRows
from swell.adapters.stores.schema import counters
from swell.adapters.stores.usage_groups import UsageGroupRows
from swell.adapters.stores.usage_rows import UsageRows
from swell.ports.store import Store


class SqliteStore(
    KeyRows, UsageRows, UsageGroupRows, BudgetRows, AlertRows, ProcessRows, RunRows, RateRows, DecisionRows, AuditRows
):
    """`swell.ports.store.Store` on an encrypted SQLite file."""

    def next_epoch(self) -> int:
        statement = insert(counters).values(name="epoch", value=1)
        statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
        with self._database.writing() as connection:
            return int(connection.execute(statement.returning(counters.c.value)).scalar_one())

    def close(self) -> None:
        self._database.close()


def open_store(path: Path, key: bytes) -> Store:
    """Open or create the store at `path` with its raw 32-byte key. Raises StateError or AtCapacity with a sentence."""
    return SqliteStore(Database(path, key))
