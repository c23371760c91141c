"""Stored alerts, for people and scripts."""

from collections.abc import Sequence
from typing import Any

import msgspec

from swell.state.alerts import AlertDelivery, AlertRecord


def alert_rows(records: Sequence[AlertRecord]) -> list[dict[str, Any]]:
    """Alerts for people and scripts, each with its deliveries."""
    return [
        {
            **msgspec.to_builtins(record.alert),
            "threshold": record.threshold,
            "deliveries": [
                {**msgspec.to_builtins(delivery), "state": delivery_state(delivery)} for delivery in record.deliveries
            ],
        }
        for record in records
    ]


def delivery_state(delivery: AlertDelivery) -> str:
    """`delivered`, `given up` or `waiting`."""
    if delivery.delivered_at_unix is not None:
        return "delivered"
    return "waiting" if delivery.given_up is None else "given up"
