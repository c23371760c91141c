"""What Swell tells people and their machines: something happened, and what to do about it.

An alert is a value. It is stored before it is delivered, and it may be delivered more than once; `alert_id` is the
same each time, so that whoever receives it can tell.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from swell.units import usd_text

AlertKind = Literal["budget", "objective", "capacity", "replicas", "spot_loss", "review", "test"]
Severity = Literal["info", "warning", "critical"]
AlertValue = str | int | list[dict[str, str | int]]
"""A fact for machines; a list has one mapping for each of several alike."""

MAX_ALERT_ID_LENGTH = 255  # characters
MAX_AT_UNIX = 2**33  # the year 2242; a moment beyond it is milliseconds taken for seconds

_ALERT_ID = re.compile(rf"[\x21-\x7e]{{1,{MAX_ALERT_ID_LENGTH}}}")


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened. `title`, `text` and `subject` may hold any characters; sinks make them fit.

    `alert_id` is unique, and stands in headers: printable ASCII without spaces. `text` is plain sentences: what
    happened and what to do. `subject` is what it is about, such as "tenant search". `values` are for machines; a sum
    of money is there twice (see `money_values`). ValueError for an id or a moment that no sink could send.
    """

    alert_id: str
    kind: AlertKind
    severity: Severity
    title: str
    text: str
    subject: str
    at_unix: float
    values: Mapping[str, AlertValue] = {}  # msgspec copies it for each alert

    def __post_init__(self) -> None:
        if not _ALERT_ID.fullmatch(self.alert_id):
            raise ValueError(f"alert_id must be 1 to {MAX_ALERT_ID_LENGTH} printable ASCII characters without spaces")
        if not 0 <= self.at_unix <= MAX_AT_UNIX:
            raise ValueError("at_unix must be seconds since 1970")


def money_values(name: str, nanos: int) -> dict[str, str | int]:
    """A sum for `Alert.values`, as text and as an integer: JSON readers with floats lose digits of large integers.

    >>> money_values("spent", 1_250_000_000_000)
    {'spent_usd': '1250.00', 'spent_usd_nanos': 1250000000000}
    """
    return {f"{name}_usd": usd_text(nanos).replace("$", "").replace(",", ""), f"{name}_usd_nanos": nanos}


class AlertDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one alert at one sink. It waits for its next try unless it was delivered or given up."""

    alert_id: str
    sink: str
    attempts: int = 0
    next_try_unix: float = 0.0
    delivered_at_unix: float | None = None
    given_up: str | None = None  # why
    problem: str = ""  # what the sink said at the last try that failed


class AlertRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An alert as it is stored. A limit has each threshold once, ever: `limit_name` begins anew with each period."""

    alert: Alert
    limit_name: str
    threshold: str
    deliveries: tuple[AlertDelivery, ...] = ()  # by the sink's name
