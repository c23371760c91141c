"""An alert's text, made to fit: printable, bounded, and for humans in the same words in every medium."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from swell.state.alerts import Alert, AlertValue

MAX_TITLE_LENGTH = 200  # characters, as all below
MAX_TEXT_LENGTH = 8_000
MAX_VALUES = 64
MAX_ROWS = 20  # of a value that is a list
MAX_VALUE_LENGTH = 500
MAX_REPLY_LENGTH = 200  # of what the other side said, in an error

# Control characters but the newline, line separators, what reverses the direction of text, and lone surrogates, which
# no encoding has.
_UNPRINTABLE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def lines(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, without any that cannot be shown or sent."""
    return shortened(_UNPRINTABLE.sub(" ", text.replace("\r\n", "\n")), limit)


def one_line(text: str, limit: int) -> str:
    """As `lines`, with any run of white space as one space."""
    return shortened(" ".join(_UNPRINTABLE.sub(" ", text).split()), limit)


def shortened(text: str, limit: int) -> str:
    """`text`, or the beginning of it that has `limit` characters with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def presentable(alert: Alert) -> Alert:
    """The alert as it can be sent anywhere. Id, kind, severity and moment stay as they are."""
    values: dict[str, AlertValue] = {
        one_line(name, MAX_VALUE_LENGTH): [_presentable(row) for row in value[:MAX_ROWS]]
        if isinstance(value, list)
        else _one(value)
        for name, value in list(alert.values.items())[:MAX_VALUES]
    }
    return msgspec.structs.replace(
        alert,
        title=one_line(alert.title, MAX_TITLE_LENGTH),
        text=lines(alert.text, MAX_TEXT_LENGTH),
        subject=one_line(alert.subject, MAX_TITLE_LENGTH),
        values=values,
    )


def _presentable(row: Mapping[str, str | int]) -> dict[str, str | int]:
    return {one_line(name, MAX_VALUE_LENGTH): _one(value) for name, value in list(row.items())[:MAX_VALUES]}


def _one(value: str | int) -> str | int:
    return value if _is_number(value) else one_line(str(value), MAX_VALUE_LENGTH)


def _is_number(value: str | int) -> bool:
    """Whether JSON carries it as a number: no writer has integers of more than 64 bits."""
    return isinstance(value, int) and -(2**63) <= value < 2**63


def headline(alert: Alert) -> str:
    """Severity and title, such as `Critical: the budget of tenant search is spent`."""
    return one_line(f"{alert.severity.capitalize()}: {alert.title}", MAX_TITLE_LENGTH + 20)


def moment(alert: Alert) -> str:
    """When it happened, such as `2026-03-01T12:00:00Z`."""
    return datetime.fromtimestamp(int(alert.at_unix), UTC).isoformat().replace("+00:00", "Z")


def readable_values(alert: Alert) -> list[tuple[str, str]]:
    """The values as people read them; sums of money once, in dollars. What is a list, the text says in sentences."""
    shown = []
    for name, value in alert.values.items():
        if name.endswith("_usd_nanos") or isinstance(value, list):
            continue
        is_money = name.endswith("_usd")
        label = name.removesuffix("_usd").replace("_", " ")
        shown.append((label, f"${value}" if is_money else str(value)))
    return shown


def reply(text: str | bytes) -> str:
    """What the other side said, for an error: in parentheses with a space before, or nothing."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    said = one_line(text, MAX_REPLY_LENGTH)
    return f" ({said})" if said else ""
