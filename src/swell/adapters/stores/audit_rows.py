"""The audit log as rows that can only be added; triggers in the database refuse to change or delete one."""

import msgspec
from sqlalchemy import Connection, insert, select

from swell.adapters.stores.database import Database
from swell.adapters.stores.schema import audit
from swell.ports.store import MAX_LISTED
from swell.state.records import AuditEntry

_encode = msgspec.json.Encoder().encode


class AuditRows:
    """The audit part of `swell.ports.store.Store` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append_audit(self, entry: AuditEntry) -> None:
        with self._database.writing() as connection:
            insert_audit(connection, entry)

    def list_audit(self, limit: int) -> list[AuditEntry]:
        query = select(audit).order_by(audit.c.entry.desc()).limit(min(limit, MAX_LISTED))
        with self._database.reading() as connection:
            return [
                AuditEntry(
                    at_unix=row.at_unix,
                    principal=row.principal,
                    action=row.action,
                    subject=row.subject,
                    detail=msgspec.json.decode(row.detail),
                )
                for row in connection.execute(query)
            ]


def insert_audit(connection: Connection, entry: AuditEntry) -> None:
    """Add `entry` inside the caller's transaction."""
    values = msgspec.structs.asdict(entry) | {"detail": _encode(entry.detail).decode()}
    connection.execute(insert(audit).values(values))
