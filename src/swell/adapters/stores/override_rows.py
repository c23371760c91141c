"""Raises of budgets as rows."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Row, insert, select, update

from swell.adapters.stores.audit_rows import insert_audit
from swell.adapters.stores.database import Database
from swell.adapters.stores.schema import budget_overrides
from swell.ports.store import MAX_LISTED
from swell.state.overrides import BudgetOverride
from swell.state.records import AuditEntry

_NAMES = BudgetOverride.__struct_fields__
_COLUMNS = [budget_overrides.c[name] for name in _NAMES]


class OverrideRows:
    """`swell.ports.store.OverrideStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_override(self, override: BudgetOverride, audit: AuditEntry) -> None:
        with self._database.writing() as connection:
            connection.execute(insert(budget_overrides).values(asdict(override)))
            insert_audit(connection, audit)

    def end_override(self, override_id: str, at_unix: float, audit: AuditEntry) -> BudgetOverride | None:
        table = budget_overrides
        in_force = (
            (table.c.override_id == override_id) & table.c.ended_at_unix.is_(None) & (table.c.until_unix > at_unix)
        )
        with self._database.writing() as connection:
            if connection.execute(update(table).where(in_force).values(ended_at_unix=at_unix)).rowcount == 0:
                return None
            insert_audit(connection, audit)
            row = connection.execute(select(*_COLUMNS).where(table.c.override_id == override_id)).one()
            return _override(row)

    def list_overrides(self, limit: int) -> list[BudgetOverride]:
        query = select(*_COLUMNS).order_by(budget_overrides.c.entry.desc()).limit(min(limit, MAX_LISTED))
        with self._database.reading() as connection:
            return list(map(_override, connection.execute(query)))

    def overrides_in_force(self, at_unix: float) -> Sequence[BudgetOverride]:
        table = budget_overrides
        query = select(*_COLUMNS).where(table.c.ended_at_unix.is_(None), table.c.until_unix > at_unix)
        with self._database.reading() as connection:
            return list(map(_override, connection.execute(query.order_by(table.c.entry))))


def _override(row: Row[Any]) -> BudgetOverride:
    return BudgetOverride(**row._mapping)
