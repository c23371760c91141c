"""Calendar periods of a budget: hours, days, weeks, months, quarters and years in a time zone, or one without an end.

Pure: times are passed in as Unix seconds; what is read is the time zone database alone.

Periods of a kind tile time: each begins where the one before ends, and every instant is in exactly one. Two rules hold
where a zone changes its offset:

- A day begins at the first instant whose local time is at or past its midnight, and so do weeks, months, quarters and
  years. So days have 23 or 25 hours around daylight saving. A midnight that the clocks jump over (Beirut, Cairo, Sao
  Paulo until 2018) makes the day begin where they land. Where they are set back across midnight (St. John's until 2011,
  at 00:01), the day before does not come back. A day that a zone left out (Apia, 30 December 2011) has no period.
- An hour is one hour of the clock on the wall under one offset. The hour that comes twice when clocks are set back is
  two periods, told apart by their offsets. A zone at +05:30 or +05:45 begins its hours at half or a quarter past those
  of UTC. Where clocks move by half an hour (Lord Howe), or in the middle of one, what is left of that hour is short.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, Literal, get_args
from zoneinfo import ZoneInfo

from swell.clock import zone_of as zone_of

PeriodKind = Literal["hour", "day", "week", "month", "quarter", "year", "once"]
HOUR: Final = "hour"
DAY: Final = "day"
WEEK: Final = "week"  # of ISO 8601: from Monday
MONTH: Final = "month"
QUARTER: Final = "quarter"
YEAR: Final = "year"
ONCE: Final = "once"
KINDS: tuple[str, ...] = get_args(PeriodKind)

_LAST_YEAR = 9997  # the calendar of `datetime` ends with 9999; the next period's end must still be in it
_TOO_LATE_UNIX = datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
_HOUR_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Period:
    """From `start_unix` on, before `end_unix`: whole Unix seconds. No end: None. `label` is for people.

    Labels are such as 2026-11-29T14+01:00, 2026-11-29, 2026-W48, 2026-11, 2026-Q4, 2026, once.
    """

    start_unix: float
    end_unix: float | None
    label: str


def period_at(kind: str, zone: ZoneInfo, at_unix: float) -> Period:
    """The period of `kind` (one of KINDS) in `zone` that contains `at_unix`, Unix seconds.

    ValueError for another kind, and for a time before 1970 or after 9997.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of period; there are {', '.join(KINDS)}")
    if not 0 <= at_unix < _TOO_LATE_UNIX:  # also false for what is not a number
        raise ValueError(f"{at_unix} is no Unix time of the years 1970 to {_LAST_YEAR}")
    if kind == ONCE:
        return Period(0.0, None, ONCE)
    # Offsets change at whole seconds, so the fraction never decides.
    second = math.floor(at_unix)
    return _hour_at(zone, second) if kind == HOUR else _days_at(kind, zone, second)


def following(kind: str, zone: ZoneInfo, period: Period) -> Period | None:
    """The period after `period`, which came from `period_at` with the same kind and zone. None after `once`.

    ValueError as for `period_at`.
    """
    return None if period.end_unix is None else period_at(kind, zone, period.end_unix)


def _days_at(kind: str, zone: ZoneInfo, second: int) -> Period:
    first = _first_day(kind, datetime.fromtimestamp(second, zone).date())
    start = _day_start(zone, first)
    while True:
        next_first = _next_first_day(kind, first)
        end = _day_start(zone, next_first)
        if second < end:
            return Period(float(start), float(end), _label(kind, first))
        first, start = next_first, end  # clocks were set back into a day that is over


def _first_day(kind: str, day: date) -> date:
    if kind == WEEK:
        return day - timedelta(days=day.weekday())
    if kind == MONTH:
        return day.replace(day=1)
    if kind == QUARTER:
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    return day.replace(month=1, day=1) if kind == YEAR else day


def _next_first_day(kind: str, first: date) -> date:
    if kind == WEEK:
        return first + timedelta(days=7)
    if kind == MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    if kind == QUARTER:
        return (first + timedelta(days=92)).replace(day=1)  # the longest; the shortest, of 90, is followed by April
    return first.replace(year=first.year + 1) if kind == YEAR else first + timedelta(days=1)


def _label(kind: str, first: date) -> str:
    if kind == WEEK:
        year, week, _ = first.isocalendar()  # the week's year: 2027-01-01 is in 2026-W53
        return f"{year}-W{week:02d}"
    if kind == MONTH:
        return f"{first.year}-{first.month:02d}"
    if kind == QUARTER:
        return f"{first.year}-Q{(first.month + 2) // 3}"
    return str(first.year) if kind == YEAR else first.isoformat()


def _day_start(zone: ZoneInfo, day: date) -> int:
    """The first Unix second at which the local time is at or past the day's midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first = int(midnight.timestamp())
    second = int(midnight.replace(fold=1).timestamp())
    # A midnight that comes twice has its earlier instant first. One that is jumped over has, by PEP 495, an instant
    # past the jump first and one before it second.
    return first if first <= second else _offset_change(zone, second, first)


def _hour_at(zone: ZoneInfo, second: int) -> Period:
    offset = _offset(zone, second)
    start = second - (second + offset) % _HOUR_SECONDS
    end = _offset_change(zone, second, start + _HOUR_SECONDS)
    if _offset(zone, start) != offset:
        start = _offset_change(zone, start, second)
    return Period(float(start), float(end), datetime.fromtimestamp(start, zone).isoformat(timespec="hours"))


def _offset_change(zone: ZoneInfo, low: int, high: int) -> int:
    """The first second after `low` with another offset than it has; `high` if none before that.

    Right while there is at most one change between them. Since 1970 no zone had two within four days.
    """
    before = _offset(zone, low)
    return low + 1 + bisect_left(range(low + 1, high), True, key=lambda second: _offset(zone, second) != before)


def _offset(zone: ZoneInfo, second: int) -> int:
    """Seconds by which local time is ahead of UTC."""
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds())
