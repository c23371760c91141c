"""`swell.ports.store.Store` on any database that the row modules know."""

from sqlalchemy import select

from swell.adapters.stores.alert_rows import AlertRows
from swell.adapters.stores.audit_rows import AuditRows
from swell.adapters.stores.budget_rows import BudgetRows
from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.decision_rows import DecisionRows
from swell.adapters.stores.key_rows import KeyRows
from swell.adapters.stores.override_rows import OverrideRows
from swell.adapters.stores.process_rows import ProcessRows
from swell.adapters.stores.rate_rows import RateRows
from swell.adapters.stores.run_rows import RunRows
from swell.adapters.stores.schema import counters
from swell.adapters.stores.usage_rows import UsageRows

EPOCH = "epoch"  # the counter's name
MARKED = "mark "  # with which the names of marks begin, which are among the counters and do not count


class SqlStore(
    KeyRows,
    UsageRows,
    BudgetRows,
    OverrideRows,
    AlertRows,
    ProcessRows,
    RunRows,
    RateRows,
    DecisionRows,
    AuditRows,
):
    """Every part over one database."""

    _database: Database  # what reads asks for less of it

    def next_epoch(self) -> int:
        with self._database.writing() as connection:
            statement = insert(connection, counters).values(name=EPOCH, value=1)
            statement = statement.on_conflict_do_update(index_elements=["name"], set_={"value": counters.c.value + 1})
            return int(connection.execute(statement.returning(counters.c.value)).scalar_one())

    def mark(self, name: str) -> int | None:
        query = select(counters.c.value).where(counters.c.name == f"{MARKED}{name}")
        with self._database.reading() as connection:
            value = connection.execute(query).scalar()
            return None if value is None else int(value)

    def set_mark(self, name: str, value: int) -> int:
        named = f"{MARKED}{name}"
        with self._database.writing() as connection:
            connection.execute(insert(connection, counters).values(name=named, value=value).on_conflict_do_nothing())
            return int(connection.execute(select(counters.c.value).where(counters.c.name == named)).scalar_one())

    def confirm(self) -> None:
        with self._database.reading() as connection:
            connection.exec_driver_sql("SELECT 1")

    def close(self) -> None:
        self._database.close()
