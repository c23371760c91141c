"""What a change saves, and how sure that is.

Costs are those of two replays of the same traffic. The interval is a bootstrap over whole days of the replay, or whole
hours where there are fewer than three days: units are drawn with replacement, each with its own difference of spend,
and 95 % of the sums lie inside. Neighbouring hours are alike, so an interval of hours is narrower than the truth;
what next month brings that these days did not is in none. Confidence says how much was seen:

    high     a week or more, and the interval is on one side of zero
    medium   a day or more, likewise
    low      less than a day, no interval, or one with zero in it
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swell.simulator.result import Timeline
from swell.units import NANOS_PER_USD

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3600.0
MONTH_SECONDS = 30.44 * DAY_SECONDS
_FEWEST_UNITS = 3
_DRAWS = 2000
_PERCENTILES = (2.5, 97.5)
_WEEK_DAYS = 7


@dataclass(frozen=True, slots=True)
class Saving:
    """Nano-dollars that a change saves over the replayed time; negative where it costs more."""

    usd_nanos: int
    usd_nanos_per_month: int
    interval: tuple[int, int] | None  # 95 %, of the replayed time; None: too little was replayed to tell
    unit: str  # what the interval was drawn from: day or hour; empty without one
    confidence: str  # high, medium or low

    @property
    def is_sure(self) -> bool:
        """Whether it is a saving as far as can be told."""
        return self.usd_nanos > 0 and (self.interval is None or self.interval[0] > 0)


def nanos(simulated_usd: float) -> int:
    """A simulated cost, to the nearest nano-dollar; from here on amounts are exact."""
    return round(simulated_usd * NANOS_PER_USD)


def hourly_usd(timeline: Timeline, seconds: float) -> tuple[float, ...]:
    """What was spent in each whole hour of a replay of so many seconds."""
    hours = int(seconds // HOUR_SECONDS)
    spent = timeline.usd_per_hour * np.diff(timeline.seconds, prepend=0.0) / HOUR_SECONDS
    hour = np.ceil(timeline.seconds / HOUR_SECONDS - 1e-9).astype(np.int64) - 1  # a mark ends its interval
    inside = (hour >= 0) & (hour < hours)
    return tuple(np.bincount(hour[inside], weights=spent[inside], minlength=hours).tolist())


def saving(
    before_usd_nanos: int, after_usd_nanos: int, before: Sequence[float], after: Sequence[float], seconds: float
) -> Saving:
    """From the two costs and their spend by the hour, of a replay that lasted so many seconds."""
    saved = before_usd_nanos - after_usd_nanos
    differences = np.array(before) - np.array(after)
    days = len(differences) // 24
    unit = "day" if days >= _FEWEST_UNITS else "hour" if len(differences) >= _FEWEST_UNITS else ""
    interval = None
    if unit:
        per_unit = differences[: days * 24].reshape(days, 24).sum(axis=1) if unit == "day" else differences
        length = DAY_SECONDS if unit == "day" else HOUR_SECONDS
        interval = _interval(saved, per_unit, seconds / length)
    month = round(saved * MONTH_SECONDS / max(seconds, 1.0))
    return Saving(saved, month, interval, unit, _confidence(interval, seconds))


def _interval(
    saved: int, per_unit: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]", units: float
) -> tuple[int, int]:
    """Around what was saved: the units' own mean leaves out what is no whole one."""
    dice = np.random.default_rng(1)
    means = per_unit[dice.integers(0, len(per_unit), (_DRAWS, len(per_unit)))].mean(axis=1)
    low, high = np.percentile(means - per_unit.mean(), _PERCENTILES) * units
    return saved + nanos(float(low)), saved + nanos(float(high))


def _confidence(interval: tuple[int, int] | None, seconds: float) -> str:
    if interval is None or seconds < DAY_SECONDS or interval[0] <= 0 <= interval[1]:
        return "low"
    return "high" if seconds >= _WEEK_DAYS * DAY_SECONDS else "medium"
