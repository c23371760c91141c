"""API keys as rows."""

from typing import Any

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from swell.adapters.stores.audit_rows import insert_audit
from swell.adapters.stores.database import Database
from swell.adapters.stores.schema import keys
from swell.state.records import AuditEntry, KeyRecord
from swell.state.snapshot import Limits

_encode_limits = msgspec.json.Encoder().encode
_decode_limits = msgspec.json.Decoder(Limits).decode


class KeyRows:
    """`swell.ports.store.KeyStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def insert_key(self, key: KeyRecord, audit: AuditEntry) -> None:
        values = msgspec.structs.asdict(key) | {"limits": _encode_limits(key.limits).decode()}
        with self._database.writing() as connection:
            connection.execute(insert(keys).values(values))
            insert_audit(connection, audit)

    def get_key(self, key_id: str) -> KeyRecord | None:
        with self._database.reading() as connection:
            return _get(connection, key_id)

    def list_keys(self) -> list[KeyRecord]:
        with self._database.reading() as connection:
            rows = connection.execute(select(keys).order_by(keys.c.created_at_unix, keys.c.key_id))
            return [_to_key(row) for row in rows]

    def rotate_key(
        self, key_id: str, digest: bytes, previous_expires_at_unix: float, audit: AuditEntry
    ) -> KeyRecord | None:
        return self._change(
            key_id,
            audit,
            previous_digest=keys.c.digest,
            previous_expires_at_unix=previous_expires_at_unix,
            digest=digest,
        )

    def expire_key(self, key_id: str, expires_at_unix: float | None, audit: AuditEntry) -> KeyRecord | None:
        return self._change(key_id, audit, expires_at_unix=expires_at_unix)

    def revoke_key(self, key_id: str, revoked_at_unix: float, audit: AuditEntry) -> KeyRecord | None:
        return self._change(key_id, audit, revoked_at_unix=revoked_at_unix)

    def _change(self, key_id: str, audit: AuditEntry, **values: Any) -> KeyRecord | None:
        with self._database.writing() as connection:
            unrevoked = (keys.c.key_id == key_id) & keys.c.revoked_at_unix.is_(None)
            if connection.execute(update(keys).where(unrevoked).values(values)).rowcount == 0:
                return None
            insert_audit(connection, audit)
            return _get(connection, key_id)


def _get(connection: Connection, key_id: str) -> KeyRecord | None:
    row = connection.execute(select(keys).where(keys.c.key_id == key_id)).first()
    return None if row is None else _to_key(row)


def _to_key(row: Row[Any]) -> KeyRecord:
    fields = dict(row._mapping)
    return KeyRecord(**fields | {"limits": _decode_limits(fields["limits"])})
