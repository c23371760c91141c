"""Alerts and their deliveries as rows."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, delete, func, select, update

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import alert_deliveries, alerts, budgets
from swell.ports.store import MAX_LISTED
from swell.state.alerts import Alert, AlertDelivery, AlertRecord, AlertValue

_PIECE = 1_000  # names in one statement, of which SQLite takes 32,766 values
_encode = msgspec.json.Encoder().encode
_decode_values = msgspec.json.Decoder(dict[str, AlertValue]).decode
_WAITING = and_(alert_deliveries.c.delivered_at_unix.is_(None), alert_deliveries.c.given_up.is_(None))


class AlertRows:
    """`swell.ports.store.AlertStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_alerts(self, made: Sequence[AlertRecord]) -> list[AlertRecord]:
        if not made:
            return []
        with self._database.writing() as connection:
            new = [record for record in made if _insert(connection, record)]
            deliveries = [msgspec.structs.asdict(delivery) for record in new for delivery in record.deliveries]
            if deliveries:
                connection.execute(insert(connection, alert_deliveries), deliveries)
        return new

    def fired(self, limit_names: Collection[str]) -> dict[str, set[str]]:
        names, found = list(limit_names), dict[str, set[str]]()
        with self._database.reading() as connection:
            for start in range(0, len(names), _PIECE):
                query = select(alerts.c.limit_name, alerts.c.threshold)
                query = query.where(alerts.c.limit_name.in_(names[start : start + _PIECE]))
                for limit_name, threshold in connection.execute(query):
                    found.setdefault(limit_name, set()).add(threshold)
        return found

    def waiting_deliveries(self) -> list[tuple[Alert, AlertDelivery]]:
        waiting = select(alert_deliveries).where(_WAITING)
        query = select(alerts).where(alerts.c.alert_id.in_(select(alert_deliveries.c.alert_id).where(_WAITING)))
        with self._database.reading() as connection:
            deliveries = _by_alert(connection, waiting)
            known = [_to_alert(row) for row in connection.execute(query.order_by(alerts.c.entry))]
        return [(alert, delivery) for alert in known for delivery in deliveries.get(alert.alert_id, ())]

    def record_deliveries(self, deliveries: Sequence[AlertDelivery]) -> None:
        if not deliveries:
            return
        place = and_(alert_deliveries.c.alert_id == bindparam("at_alert"), alert_deliveries.c.sink == bindparam("at"))
        rows = []
        for delivery in deliveries:
            values = msgspec.structs.asdict(delivery)
            rows.append(values | {"at_alert": values.pop("alert_id"), "at": values.pop("sink")})
        with self._database.writing() as connection:
            connection.execute(update(alert_deliveries).where(place), rows)

    def list_alerts(self, limit: int, kind: str | None = None) -> list[AlertRecord]:
        newest = select(alerts).order_by(alerts.c.entry.desc()).limit(min(limit, MAX_LISTED))
        if kind is not None:
            newest = newest.where(alerts.c.kind == kind)
        ids = select(newest.subquery().c.alert_id)
        with self._database.reading() as connection:
            deliveries = _by_alert(connection, select(alert_deliveries).where(alert_deliveries.c.alert_id.in_(ids)))
            return [_to_record(row, deliveries.get(row.alert_id, ())) for row in connection.execute(newest)]

    def latest_alerts(self, kind: str) -> list[AlertRecord]:
        last = select(func.max(alerts.c.entry)).where(alerts.c.kind == kind).group_by(alerts.c.subject)
        query = select(alerts).where(alerts.c.entry.in_(last)).order_by(alerts.c.entry)
        with self._database.reading() as connection:
            return [_to_record(row) for row in connection.execute(query)]

    def forget_alerts(self, before_unix: float) -> None:
        over = and_(alerts.c.at_unix < before_unix, alerts.c.limit_name.not_in(select(budgets.c.limit_name)))
        with self._database.writing() as connection:
            ids = select(alerts.c.alert_id).where(over)
            connection.execute(delete(alert_deliveries).where(alert_deliveries.c.alert_id.in_(ids)))
            connection.execute(delete(alerts).where(over))


def _insert(connection: Connection, record: AlertRecord) -> bool:
    values = msgspec.structs.asdict(record.alert)
    values |= {"values": _encode(record.alert.values).decode()}
    values |= {"limit_name": record.limit_name, "threshold": record.threshold}
    statement = insert(connection, alerts).values(values)
    statement = statement.on_conflict_do_nothing(index_elements=["limit_name", "threshold"])
    return connection.execute(statement.returning(alerts.c.entry)).first() is not None


def _by_alert(connection: Connection, query: Any) -> dict[str, list[AlertDelivery]]:
    found: dict[str, list[AlertDelivery]] = {}
    for row in connection.execute(query.order_by(alert_deliveries.c.sink)):
        found.setdefault(row.alert_id, []).append(AlertDelivery(**row._mapping))
    return found


def _to_record(row: Row[Any], deliveries: Sequence[AlertDelivery] = ()) -> AlertRecord:
    return AlertRecord(
        alert=_to_alert(row), limit_name=row.limit_name, threshold=row.threshold, deliveries=tuple(deliveries)
    )


def _to_alert(row: Row[Any]) -> Alert:
    fields = dict(row._mapping)
    del fields["entry"], fields["limit_name"], fields["threshold"]
    return Alert(**fields | {"values": _decode_values(fields["values"])})
