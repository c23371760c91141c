"""Which alerts of a budget are due, and what will have been spent when its period ends. Pure: no clock, no memory.

A threshold (`swell.spec.thresholds`) is a share of the budget's amount, of what was spent or will have been. It is
due once a period: the caller hands back the texts of those that fired in it, which it keeps with the alerts.

The forecast is an estimate, not an account: money comes in and goes out as integers, statistics in between are floats.
Its model is that each hour's spend is the usual one of its hour of day, plus a deviation that is independent of the
others. What is to come is the sum of the usual over the time that is left; its variance is that of as many deviations,
plus that of the usual itself, which is a mean of few hours. The interval is Student's t around the sum.

One hour may be anything, a test run or a hole: the largest total counts as the second largest and the smallest as the
second smallest (a winsorised mean). Deviations are then too small by about (n - 1) / (n - 3), and are scaled by that,
with n - 3 degrees of freedom (Dixon and Tukey 1968). The price: of few hours that are all unlike, the mean is low.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from swell.spec.thresholds import Threshold

LEAST_HOURS = 6  # whole hours of history without which nothing is said
MOST_HOURS = 336  # of them that are looked at: two weeks, so that each day of the week counts as often
SEASONAL_DAYS = 2  # whole days of history from which on hours of the day are told apart
INTERVAL = 0.8  # of all outcomes lie between `low` and `high`
_HOUR_SECONDS = 3600
_DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Forecast:
    """Spend by the end of the period, with what has been spent: expected, and the bounds of an 80 % interval."""

    expected_usd_nanos: int
    low_usd_nanos: int
    high_usd_nanos: int


def due(
    thresholds: Iterable[Threshold],
    cap_usd_nanos: int,
    spent_usd_nanos: int,
    forecast: Forecast | None,
    fired: Collection[str],
) -> tuple[Threshold, ...]:
    """The thresholds to alert about now, each once, in rising order, actual before forecast ones of the same share.

    `fired` are the texts of those that did in this period; they are never due again, also if the cap was raised since.
    Forecast ones go by the expected amount, and wait while there is no forecast. A cap of 0 is exceeded, and all its
    thresholds are reached, by the first nano-dollar; before that none is, lest an unused budget alert every period.
    """

    def is_due(threshold: Threshold) -> bool:
        if threshold.text in fired:
            return False
        if not threshold.is_forecast:
            return threshold.is_reached(cap_usd_nanos, spent_usd_nanos)
        return forecast is not None and threshold.is_reached(cap_usd_nanos, forecast.expected_usd_nanos)

    return tuple(sorted(filter(is_due, set(thresholds))))


def forecast_spend(
    hourly_usd_nanos: Sequence[int], elapsed_seconds: float, period_seconds: float, spent_usd_nanos: int
) -> Forecast | None:
    """Spend by the end of a period of `period_seconds` (finite), of which `elapsed_seconds` are over.

    `hourly_usd_nanos` are the last hours' totals, oldest first and without gaps; they may reach back before the period.
    They are hours from the period's start on. The last is the running one, or one that begins now: it is not over, so
    it says nothing about hours and is left out; what is to come of it is forecast like the rest. What was spent in it
    is in `spent_usd_nanos`, the period's spend so far, beneath which no part of a forecast lies.

    Of a day or more, the last whole days count. From SEASONAL_DAYS on, hours of the day have means of their own;
    daylight saving shifts them by one for as long as days before the change are in the history.

    None with fewer than LEAST_HOURS whole hours, or with spend in fewer than two of them: one could be an accident.
    Also None where a part of a day would have to tell of more hours than it has: a working day's morning, taken for
    the month, would fire a threshold falsely, and so keep it from firing when it is true.
    """
    history = hourly_usd_nanos[:-1][-MOST_HOURS:]
    left = min(max(period_seconds - elapsed_seconds, 0.0), period_seconds) / _HOUR_SECONDS
    days = len(history) // _DAY_HOURS
    if days:
        history = history[-days * _DAY_HOURS :]
    elif len(history) < max(LEAST_HOURS, left):
        return None
    values = _winsorised(history)
    if not any(values):
        return None
    cycle = _DAY_HOURS if days >= SEASONAL_DAYS else 1
    repeats = len(values) // cycle
    usual = [fmean(values[phase::cycle]) for phase in range(cycle)]
    weights = _weights(cycle, max(elapsed_seconds, 0.0) / _HOUR_SECONDS % 1.0, left)

    count = len(values)
    squares = sum((value - usual[index % cycle]) ** 2 for index, value in enumerate(values))
    deviation = math.sqrt(squares / (count - cycle)) * (count - 1) / (count - 3)
    spread = deviation * math.sqrt(left + sum(weight * weight for weight in weights) / repeats)
    coming = sum(weight * mean for weight, mean in zip(weights, usual, strict=True))
    half = spread * _student_quantile((1 + INTERVAL) / 2, count - cycle - 2)
    return Forecast(
        spent_usd_nanos + round(coming),
        spent_usd_nanos + round(max(0.0, coming - half)),
        spent_usd_nanos + round(coming + half),
    )


def _winsorised(values: Sequence[int]) -> list[int]:
    ordered = sorted(values)
    return [min(max(value, ordered[1]), ordered[-2]) for value in values]


def _weights(cycle: int, into_hour: float, left_hours: float) -> list[float]:
    """How many hours of each phase are in the next `left_hours`, which begin `into_hour` of phase 0.

    The history ends with the last hour of a cycle, so the running hour is of phase 0.
    """
    whole, rest = divmod(left_hours, cycle)
    weights = [whole] * cycle
    phase, room = 0, 1.0 - into_hour
    while rest > 0:
        weights[phase % cycle] += min(room, rest)
        phase, rest, room = phase + 1, rest - room, 1.0
    return weights


def _student_quantile(share: float, freedom: int) -> float:
    """Student's t by its expansion around the normal quantile: within 1 % from 3 degrees of freedom on, at 0.9."""
    z = NormalDist().inv_cdf(share)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
