"""Rolling windows as they are written: `rolling 24h`, `30d rolling`. Whole hours or days.

Kept with the spec so that there is one grammar, and one name for each length.
"""

import re

MIN_WINDOW_HOURS = 1
MAX_WINDOW_HOURS = 366 * 24
ROLLING = "rolling "  # what the name of every rolling window begins with

_DAY_HOURS = 24
_LENGTH = r"([0-9]{1,9})\s*(h|hours?|d|days?)"
_WINDOW = re.compile(rf"rolling\s+{_LENGTH}|{_LENGTH}\s+rolling", re.IGNORECASE)


def is_rolling(text: str) -> bool:
    """Whether it is meant to be a rolling window, right or wrong."""
    return "rolling" in text.lower()


def window_hours(text: str) -> int:
    """The length of a rolling window in hours. ValueError with a sentence, without the name of the field."""
    found = _WINDOW.fullmatch(text.strip())
    if found is None:
        raise ValueError("is no rolling window; write whole hours or days, such as rolling 24h or rolling 30d")
    number, unit = int(found[1] or found[3]), (found[2] or found[4]).lower()
    hours = number * (_DAY_HOURS if unit.startswith("d") else 1)
    if not MIN_WINDOW_HOURS <= hours <= MAX_WINDOW_HOURS:
        raise ValueError(f"must be from {MIN_WINDOW_HOURS}h to {MAX_WINDOW_HOURS // _DAY_HOURS}d long")
    return hours


def window_name(hours: int) -> str:
    """The one name of that length: in days from two whole days on, such as `rolling 24h` and `rolling 30d`."""
    days, rest = divmod(hours, _DAY_HOURS)
    return f"{ROLLING}{days}d" if days > 1 and not rest else f"{ROLLING}{hours}h"
