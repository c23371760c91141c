"""The alerts of the store in memory."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager

from msgspec.structs import replace

from swell.errors import StateError
from swell.ports.store import MAX_LISTED
from swell.state.alerts import Alert, AlertDelivery, AlertRecord


class MemoryAlerts:
    """`swell.ports.store.AlertStore` in a list, oldest first. `is_kept` tells whether a limit is still known."""

    def __init__(self, guarded: Callable[[], AbstractContextManager[None]], is_kept: Callable[[str], bool]) -> None:
        self._guards_alerts = guarded
        self._keeps_limit = is_kept
        self._alerts: list[AlertRecord] = []

    def add_alerts(self, made: Sequence[AlertRecord]) -> list[AlertRecord]:
        with self._guards_alerts():
            after, new = list(self._alerts), []
            for record in made:
                if any((known.limit_name, known.threshold) == (record.limit_name, record.threshold) for known in after):
                    continue
                if any(known.alert.alert_id == record.alert.alert_id for known in after):
                    raise StateError(f"the store already has the alert {record.alert.alert_id}; choose another id")
                ordered = tuple(sorted(record.deliveries, key=lambda delivery: delivery.sink))
                after.append(replace(record, deliveries=ordered))
                new.append(record)
            self._alerts = after
            return new

    def fired(self, limit_names: Collection[str]) -> dict[str, set[str]]:
        with self._guards_alerts():
            found: dict[str, set[str]] = {}
            for record in self._alerts:
                if record.limit_name in limit_names:
                    found.setdefault(record.limit_name, set()).add(record.threshold)
            return found

    def waiting_deliveries(self) -> list[tuple[Alert, AlertDelivery]]:
        with self._guards_alerts():
            return [
                (record.alert, delivery)
                for record in self._alerts
                for delivery in record.deliveries
                if delivery.delivered_at_unix is None and delivery.given_up is None
            ]

    def record_deliveries(self, deliveries: Sequence[AlertDelivery]) -> None:
        with self._guards_alerts():
            said = {(delivery.alert_id, delivery.sink): delivery for delivery in deliveries}
            self._alerts = [
                replace(
                    record,
                    deliveries=tuple(said.get((known.alert_id, known.sink), known) for known in record.deliveries),
                )
                for record in self._alerts
            ]

    def list_alerts(self, limit: int, kind: str | None = None) -> list[AlertRecord]:
        with self._guards_alerts():
            listed = [record for record in self._alerts[::-1] if kind in (None, record.alert.kind)]
            return listed[: min(limit, MAX_LISTED)]

    def latest_alerts(self, kind: str) -> list[AlertRecord]:
        with self._guards_alerts():
            of_kind = [record for record in self._alerts if record.alert.kind == kind]
            last = {record.alert.subject: record.alert.alert_id for record in of_kind}
            return [replace(each, deliveries=()) for each in of_kind if each.alert.alert_id in last.values()]

    def forget_alerts(self, before_unix: float) -> None:
        with self._guards_alerts():
            self._alerts = [
                record
                for record in self._alerts
                if record.alert.at_unix >= before_unix or self._keeps_limit(record.limit_name)
            ]
