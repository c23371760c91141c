"""Whether so many requests miss a model's objective that somebody should know. Pure: `now` is passed in.

The misses that an objective allows are a budget: with an attainment of 99 %, one request in a hundred. A burn rate is
how many times as many miss. A rule holds where the rate is reached over a long window, so that it matters, and over a
short one, so that it is not over already: multi-window, multi-burn-rate alerts, of which `RULES` are the two fast ones
(Beyer et al., The Site Reliability Workbook, O'Reilly 2018, chapter 5, table 5-8). At 14.4 times, an hour takes 2 % of
what thirty days may miss; at 6 times, six hours take 5 %.

Where much may be missed, no rate could be so high: of 0.9, ten times is everything. So a rule holds as well where a
share of the requests that should attain (`share_of_attaining`) misses in both windows.

Few requests say little, and those of one burst are one event: a rule needs LEAST_REQUESTS, LEAST_MISSES and misses in
LEAST_MINUTES in its long window. An episode is over when no
more than what is allowed was missed for CALM_SECONDS, which is far from what begins one.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

BUCKET_SECONDS = 60  # what a log tells apart; a window is up to so much shorter than it says
CALM_SECONDS = 1800  # an episode is over when this long no more was missed than is allowed
LEAST_REQUESTS = 20  # in the long window
LEAST_MISSES = 5  # of them
LEAST_MINUTES = 3  # in which some missed: a cold start is over sooner


@dataclass(frozen=True, slots=True)
class BurnRule:
    """What holds where both windows burn at `rate` times what is allowed, or miss `share_of_attaining` beyond it."""

    severity: Literal["critical", "warning"]
    rate: float  # times the allowed share of misses
    long_seconds: int
    short_seconds: int
    share_of_attaining: float  # of the requests that should attain

    def share(self, attainment: float) -> float:
        """The share of requests that must miss, in both windows."""
        allowed = 1 - attainment
        return min(self.rate * allowed, allowed + self.share_of_attaining * attainment)


RULES = (
    BurnRule("critical", 14.4, 3600, 300, 0.5),
    BurnRule("warning", 6.0, 21_600, 1800, 0.25),
)
"""The most severe first."""

KEPT_BUCKETS = max(rule.long_seconds for rule in RULES) // BUCKET_SECONDS


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests of which it is known whether they attained, and those that did not."""

    judged: int = 0
    missed: int = 0
    minutes: int = 0  # in which some missed

    @property
    def miss_share(self) -> float:
        """0 where there were none."""
        return self.missed / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class Burn:
    """A rule that holds, and what it saw."""

    rule: BurnRule
    long: Counts
    short: Counts


class MissLog:
    """Counts of one model by the minute, of the longest window: at most KEPT_BUCKETS. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int, int]] = deque(maxlen=KEPT_BUCKETS)  # minute, judged, missed; rising

    def add(self, now: float, judged: int, missed: int) -> None:
        """Note requests that were judged by now. What comes with an earlier time than before counts as of that."""
        if judged <= 0:
            return
        minute = int(now // BUCKET_SECONDS)
        if self._buckets and self._buckets[-1][0] >= minute:
            last, before, missed_before = self._buckets.pop()
            self._buckets.append((last, before + judged, missed_before + missed))
        else:
            self._buckets.append((minute, judged, missed))

    def counts(self, now: float, seconds: int) -> Counts:
        """Of the last `seconds`, by whole buckets with the running one."""
        first = int(now // BUCKET_SECONDS) - seconds // BUCKET_SECONDS
        judged = missed = minutes = 0
        for minute, of_it, missed_of_it in reversed(self._buckets):
            if minute <= first:
                break
            judged, missed, minutes = judged + of_it, missed + missed_of_it, minutes + (missed_of_it > 0)
        return Counts(judged, missed, minutes)

    def kept(self, now: float) -> list[tuple[float, int, int]]:
        """To be stored: the age of each bucket in seconds, judged, missed; oldest first."""
        return [(now - minute * BUCKET_SECONDS, judged, missed) for minute, judged, missed in self._buckets]

    def restore(self, kept: list[tuple[float, int, int]], now: float) -> None:
        """Take up what was kept, with ages as of now."""
        for age, judged, missed in kept:
            self.add(now - max(0.0, age), judged, missed)


def burning(attainment: float, log: MissLog, now: float) -> Burn | None:
    """The most severe rule that holds."""
    for rule in RULES:
        short = log.counts(now, rule.short_seconds)
        if not _reaches(rule, attainment, short):
            continue
        long = log.counts(now, rule.long_seconds)
        if _says_much(long) and _reaches(rule, attainment, long):
            return Burn(rule, long, short)
    return None


def _says_much(counts: Counts) -> bool:
    return counts.judged >= LEAST_REQUESTS and counts.missed >= LEAST_MISSES and counts.minutes >= LEAST_MINUTES


def is_calm(attainment: float, log: MissLog, now: float) -> bool:
    """Whether no more was missed in the last CALM_SECONDS than the objective allows. So it is without requests."""
    counts = log.counts(now, CALM_SECONDS)
    return counts.missed <= (1 - attainment) * counts.judged + _ROUNDING


_ROUNDING = 1e-9


def _reaches(rule: BurnRule, attainment: float, counts: Counts) -> bool:
    return counts.missed > 0 and counts.missed + _ROUNDING >= rule.share(attainment) * counts.judged
