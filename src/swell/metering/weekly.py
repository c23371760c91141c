"""What happens once a week, at an hour of a day of a time zone: which week it is, and when it was due.

Pure. A week lasts from one such moment to the next, so that what was missed can be made up for until then. It is named
by the ISO week that the moment lies in: moving the moment to another day does not make one week two.

Where the clocks jump over the hour, the moment is when they land; where the hour comes twice, it is the first one.
"""

import math
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Week:
    """It began when it was due, Unix seconds. `label` is such as 2026-W48."""

    due_unix: float
    label: str


def week_at(zone: ZoneInfo, weekday: int, hour: int, at_unix: float) -> Week:
    """The week that contains `at_unix`, Unix seconds. `weekday` is 0 for Monday; `hour` is from 0 to 23."""
    today = datetime.fromtimestamp(math.floor(at_unix), zone).date()
    monday = today - timedelta(days=today.weekday())
    this = _week(zone, monday, weekday, hour)
    return this if this.due_unix <= at_unix else _week(zone, monday - timedelta(days=7), weekday, hour)


def _week(zone: ZoneInfo, monday: date, weekday: int, hour: int) -> Week:
    day = monday + timedelta(days=weekday)
    due = datetime(day.year, day.month, day.day, hour, tzinfo=zone)  # fold 0: PEP 495 has both rules of the hour
    year, week, _ = monday.isocalendar()
    return Week(due.timestamp(), f"{year}-W{week:02d}")
