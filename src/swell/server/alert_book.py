"""Alerts as they are raised: stored first, each once, then told and handed on to the sinks."""

import logging
import secrets
from collections.abc import Callable, Sequence

from swell.ports.store import Store
from swell.server.alert_deliveries import AlertDeliveries
from swell.server.writer import Writer
from swell.spec.alerts import SinkSpec
from swell.state.alerts import Alert, AlertDelivery, AlertKind, AlertRecord, Severity

RANKS = {"info": 0, "warning": 1, "critical": 2}
MAX_TOLD = 10  # of one turn's alerts on the terminal

_log = logging.getLogger(__name__)


class AlertBook:
    """The one way from an alert to the store and the sinks. `say` reaches the person who started the server."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        deliveries: AlertDeliveries,
        say: Callable[[str], None],
        sinks: Sequence[SinkSpec] = (),
    ) -> None:
        """`sinks` say what each leaves out; of one that is not among them, nothing is."""
        self._specs = {sink.name: sink for sink in sinks}
        self._store = store
        self._writer = writer
        self._deliveries = deliveries
        self._say = say

    def record(self, alert: Alert, limit_name: str, threshold: str, severity: Severity | None = None) -> AlertRecord:
        """The alert as it is to be stored, for the sinks that want it.

        They go by `severity`, if not by the alert's own: who heard of something critical hears that it is over.
        """
        sinks = self.takers(alert.kind, severity or alert.severity)
        deliveries = tuple(AlertDelivery(alert_id=alert.alert_id, sink=sink) for sink in sinks)
        return AlertRecord(alert=alert, limit_name=limit_name, threshold=threshold, deliveries=deliveries)

    def takers(self, kind: AlertKind, severity: Severity) -> list[str]:
        """The sinks that want such an alert, by name."""
        return sorted(name for name in self._deliveries.sink_names if self._wants(name, kind, severity))

    def require_sinks(self) -> None:
        """UserError where there is no sink at all."""
        self._deliveries.require_sinks()

    async def has_fired(self, limit_name: str) -> bool:
        """Whether the store has an alert of that limit."""
        return bool(await self._writer.call(lambda: self._store.fired([limit_name])))

    def _wants(self, sink: str, kind: AlertKind, severity: Severity) -> bool:
        spec = self._specs.get(sink)
        return spec is None or (kind in spec.kinds and RANKS[severity] >= RANKS[spec.min_severity])

    async def latest(self, kind: AlertKind) -> list[AlertRecord]:
        """The last alert of each subject."""
        return await self._writer.call(lambda: self._store.latest_alerts(kind))

    async def add(self, records: Sequence[AlertRecord]) -> None:
        """Store alerts, and tell of those that are new. Where the store does not take them, nothing has happened."""
        new = await self._writer.call(lambda: self._store.add_alerts(records))
        self._deliveries.add(new)
        for record in new:
            _log.warning("an alert fired", extra={"alert_id": record.alert.alert_id, "reason": record.alert.title})
        for record in new[:MAX_TOLD]:
            self._say(f"Alert ({record.alert.severity}): {record.alert.title} (see: swell alerts)")
        if len(new) > MAX_TOLD:
            self._say(f"{len(new) - MAX_TOLD} more alerts fired (see: swell alerts)")


def new_alert_id() -> str:
    """Of an alert that is made now."""
    return f"alert-{secrets.token_hex(12)}"
