"""Demand over the time that a start takes, as a quantile. Pure: memory in, memory out.

Demand is in replicas. Five forecasters run side by side:

- level: the mean of the last minutes goes on;
- revert: what is beyond the last half hour's mean goes on in part, F = M + r·(L - M), with r from an online regression:
  fluctuations of minutes mostly pass before a start is over, and whoever follows them is late both ways;
- trend: the straight line through the last quarter of an hour goes on, as far as it is certain;
- season: what the same time of day (and of the week) did before, scaled to today's;
- peak: the highest of the last ten minutes comes again.

Each keeps what it was wrong by during the last day, e = (came - F) / sqrt(F·G). F is its forecast, G the usual demand,
and what came is the highest demand around the time that F was for, since that is what must be carried. The spread of
a sum of many clients grows with the root of its mean. The quantile of demand is then F + e_q·sqrt(F·G), with e_q the
empirical quantile of those errors (split conformal prediction, Vovk 2005). So burstiness needs no parameter of its
own. Since their margins give all of them the same coverage, the one wins whose quantiles were lowest on average: the
cheapest; ties go to the simplest.

Which quantile: a replica more is worth its price where the chance that it is needed is at least its price over that of
the misses it saves, at every moment the same ratio (newsvendor). So one quantile over all times costs least for a given
attainment, and not one multiple of the forecast.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log, sqrt

from swell.policy.scaling.demand import Demand

LEVEL_SECONDS = 120.0
PEAK_SECONDS = 600.0
TARGET_SECONDS = 15.0  # what a forecast is for: the highest demand in so long a time around when it is due
TREND_SECONDS = 900.0
MEAN_SECONDS = 1800.0  # over which M is smoothed
REGRESSION_MEMORY = 0.9995  # per learning step
REGRESSION_PRIOR = 0.02  # weight of r = 1 before anything was seen, in squares of the usual demand
MOST_REVERSION = 1.2
ERRORS_KEPT = 2_880  # a day of them, one every half minute
USUAL_SECONDS = 86_400.0  # over which the usual demand is smoothed
BODY, TAIL = 0.8, 0.96  # shares of errors
LOSS_MEMORY = 0.999  # per learning step
LEAST_SHARE = 0.04  # of the usual demand, below which no forecast counts as surer
# What is assumed before anything was seen: errors like these, as many as there are here.
_FIRST_ERRORS = (-0.4, -0.25, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
SEASON_BIN_SECONDS = 600.0
DAY_SECONDS = 86_400.0
WEEK_SECONDS = 7 * DAY_SECONDS
SEASON_MEMORY = 0.5  # how much of the old value a bin keeps when it is seen again
TREND_CERTAINTY = 2.0  # standard errors at which half of a slope is believed
NAMES = ("level", "revert", "trend", "season", "peak")


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one forecaster was wrong by: in order of time, and in order of size."""

    errors: tuple[float, ...] = ()
    ordered: tuple[float, ...] = _FIRST_ERRORS
    loss: float = 0.0
    weight: float = 0.0  # of the losses in `loss`

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight if self.weight else 0.0

    def quantile(self, q: float) -> float:
        """The error that the share `q` of all stays under: as seen up to TAIL, beyond with an exponential tail.

        The largest errors of a day are too few to be counted; their fall from BODY to TAIL tells how they go on.
        """
        if q <= TAIL:
            return self._seen(q)
        tail = self._seen(TAIL)
        decay = (tail - self._seen(BODY)) / log((1 - BODY) / (1 - TAIL))
        return tail + decay * log((1 - TAIL) / max(1 - q, 1e-12))

    def _seen(self, q: float) -> float:
        place = q * (len(self.ordered) - 1)
        low = min(int(place), len(self.ordered) - 2)
        return self.ordered[low] + (self.ordered[low + 1] - self.ordered[low]) * (place - low)


@dataclass(frozen=True, slots=True)
class Pending:
    """A forecast that has not come true yet: for the highest demand around `due`."""

    due: float
    values: tuple[float, ...]  # by forecaster, without margin
    usual: float
    mean: float
    beyond: float  # of the level over the mean


@dataclass(frozen=True, slots=True)
class ForecastMemory:
    """Samples of (time, mean demand, highest demand), latest last, what was learnt, and the seasons."""

    samples: tuple[tuple[float, float, float], ...] = ()
    learnt: tuple[Learnt, ...] = (Learnt(),) * len(NAMES)
    pending: tuple[Pending, ...] = ()
    day: tuple[float, ...] = ()  # mean demand by time of day; -1 where unknown
    week: tuple[float, ...] = ()
    bin_sum: float = 0.0
    bin_count: int = 0
    bin_index: int = -1
    usual: float = -1.0
    mean: float = 0.0
    watched_seconds: float = 0.0
    sxx: float = 0.0
    sxy: float = 0.0
    grain: float = 0.0  # the demand of one request: what is finer is noise, and no measure of errors
    slope: float = 0.0  # of demand, a second; computed when there is something to learn, since it moves slowly


@dataclass(frozen=True, slots=True)
class Forecast:
    """The quantile of demand over the horizon, in the unit of the samples."""

    value: float
    winner: str
    level: float  # demand now
    margin: float  # of the value over the forecast itself
    by_name: tuple[tuple[str, float], ...]  # every forecaster's quantile
    plain: float = 0.0  # the winner's forecast without any margin


def observe(memory: ForecastMemory, now: float, seen: Demand, quantile: float) -> ForecastMemory:
    """Add a sample of demand at `now`; forecasts that come due are learnt from."""
    demand = seen.mean
    samples, oldest, first = memory.samples, now - TREND_SECONDS, 0
    while first < len(samples) and samples[first][0] <= oldest:
        first += 1
    usual, mean, watched = demand, demand, memory.watched_seconds
    if memory.usual >= 0 and samples:
        passed = now - samples[-1][0]
        watched += passed
        usual = memory.usual + (demand - memory.usual) * min(1.0, passed / min(USUAL_SECONDS, watched))
        mean = memory.mean + (demand - memory.mean) * min(1.0, passed / min(MEAN_SECONDS, watched))
    samples = (*samples[first:], (now, demand, seen.peak))
    memory = replace(memory, samples=samples, usual=usual, mean=mean, watched_seconds=watched)
    due = [pending for pending in memory.pending if pending.due <= now]
    if due:
        actual = _peak_since(samples, now - TARGET_SECONDS)
        learnt = memory.learnt
        for pending in due:
            learnt = tuple(
                _learn(each, value, _scale(value, pending.usual, memory.grain), actual, quantile, pending.usual)
                for each, value in zip(learnt, pending.values, strict=True)
            )
        memory = _regress(memory, due, _mean_since(samples, now - LEVEL_SECONDS / 2))
        memory = replace(memory, learnt=learnt, pending=memory.pending[len(due) :])
    return memory


def rescaled(memory: ForecastMemory, factor: float) -> ForecastMemory:
    """What was seen, in another unit: `factor` times as many of the new as of the old."""
    return replace(
        memory,
        samples=tuple((at, demand * factor, peak * factor) for at, demand, peak in memory.samples),
        usual=memory.usual * factor if memory.usual >= 0 else memory.usual,
        mean=memory.mean * factor,
    )


def observe_season(memory: ForecastMemory, clock: float, demand: float) -> ForecastMemory:
    """Add a sample to the seasons; `clock` is seconds since some Monday 00:00, of whatever calendar is known."""
    index = int(clock % WEEK_SECONDS // SEASON_BIN_SECONDS)
    if index == memory.bin_index:
        return replace(memory, bin_sum=memory.bin_sum + demand, bin_count=memory.bin_count + 1)
    if memory.bin_count:
        mean = memory.bin_sum / memory.bin_count
        memory = replace(
            memory,
            day=_put(memory.day, int(DAY_SECONDS // SEASON_BIN_SECONDS), memory.bin_index, mean),
            week=_put(memory.week, int(WEEK_SECONDS // SEASON_BIN_SECONDS), memory.bin_index, mean),
        )
    return replace(memory, bin_index=index, bin_sum=demand, bin_count=1)


def forecast(
    memory: ForecastMemory, now: float, horizon_seconds: float, clock: float, quantile: float, *, pend: bool
) -> tuple[Forecast, ForecastMemory]:
    """The highest demand to be expected until `now + horizon_seconds`; `pend` to learn from it later."""
    if pend:
        memory = replace(memory, slope=_slope(memory.samples))
    level = _mean_since(memory.samples, now - LEVEL_SECONDS)
    beyond = level - memory.mean
    reverting = max(0.0, memory.mean + _reversion(memory) * beyond)
    values = (
        level,
        reverting,
        max(level, level + memory.slope * horizon_seconds),
        reverting * _season_ratio(memory, clock, horizon_seconds),
        _peak_since(memory.samples, now - PEAK_SECONDS),
    )
    learnt = memory.learnt
    margins = tuple(
        _scale(v, memory.usual, memory.grain) * each.quantile(quantile) for v, each in zip(values, learnt, strict=True)
    )
    best = min(range(len(NAMES)), key=lambda i: (round(learnt[i].mean_loss, 4), i))
    quantiles = tuple((name, max(0.0, values[i] + margins[i])) for i, name in enumerate(NAMES))
    if pend and memory.watched_seconds >= LEVEL_SECONDS:  # what was said of a service just met is no measure
        memory = replace(
            memory, pending=(*memory.pending, Pending(now + horizon_seconds, values, memory.usual, memory.mean, beyond))
        )
    return Forecast(quantiles[best][1], NAMES[best], level, margins[best], quantiles, values[best]), memory


def at_quantile(memory: ForecastMemory, expected: Forecast, quantile: float) -> float:
    """What the winner of a forecast says of another quantile."""
    learnt = memory.learnt[NAMES.index(expected.winner)]
    return max(0.0, expected.plain + _scale(expected.plain, memory.usual, memory.grain) * learnt.quantile(quantile))


def _regress(memory: ForecastMemory, due: Sequence[Pending], actual: float) -> ForecastMemory:
    sxx, sxy = memory.sxx, memory.sxy
    for pending in due:
        unit = max(pending.usual, 1e-9) ** 2
        sxx = sxx * REGRESSION_MEMORY + pending.beyond**2 / unit
        sxy = sxy * REGRESSION_MEMORY + pending.beyond * (actual - pending.mean) / unit
    return replace(memory, sxx=sxx, sxy=sxy)


def _reversion(memory: ForecastMemory) -> float:
    """r of F = M + r·(L - M)."""
    return min(MOST_REVERSION, max(0.0, (memory.sxy + REGRESSION_PRIOR) / (memory.sxx + REGRESSION_PRIOR)))


def _scale(value: float, usual: float, grain: float) -> float:
    """What errors are measured in, sqrt(F·G): not less than what a few requests more or less make of it."""
    return sqrt(max(value, LEAST_SHARE * usual, grain) * max(usual, grain))


def _learn(learnt: Learnt, value: float, scale: float, actual: float, quantile: float, usual: float) -> Learnt:
    if scale <= 0:
        return learnt
    loss = (value + scale * learnt.quantile(quantile)) / max(usual, 1e-9)
    error = (actual - value) / scale
    ordered = list(learnt.ordered)
    insort(ordered, error)
    errors = (*learnt.errors, error)
    if len(errors) > ERRORS_KEPT:
        del ordered[bisect_left(ordered, errors[0])]
        errors = errors[1:]
    return Learnt(errors, tuple(ordered), learnt.loss * LOSS_MEMORY + loss, learnt.weight * LOSS_MEMORY + 1)


def _peak_since(samples: Sequence[tuple[float, float, float]], start: float) -> float:
    highest = samples[-1][2] if samples else 0.0
    for at, _, peak in reversed(samples):
        if at <= start:
            break
        highest = max(highest, peak)
    return highest


def _mean_since(samples: Sequence[tuple[float, float, float]], start: float) -> float:
    total, count = 0.0, 0
    for at, demand, _ in reversed(samples):
        if at <= start:
            break
        total += demand
        count += 1
    return total / count if count else (samples[-1][1] if samples else 0.0)


def _slope(samples: Sequence[tuple[float, float, float]]) -> float:
    """Of the least-squares line, per second, shrunk by how uncertain it is."""
    count = len(samples)
    if count < 10:
        return 0.0
    mean_at = sum(at for at, _, _ in samples) / count
    mean = sum(demand for _, demand, _ in samples) / count
    sxx = sum((at - mean_at) ** 2 for at, _, _ in samples)
    sxy = sum((at - mean_at) * (demand - mean) for at, demand, _ in samples)
    if sxx <= 0:
        return 0.0
    slope = sxy / sxx
    rest = sum((demand - mean - slope * (at - mean_at)) ** 2 for at, demand, _ in samples)
    error = sqrt(rest / max(1, count - 2) / sxx)
    certainty = (slope / error) ** 2 if error > 0 else 1e9
    return slope * certainty / (certainty + TREND_CERTAINTY**2)


def _season_ratio(memory: ForecastMemory, clock: float, horizon_seconds: float) -> float:
    """How much higher demand was, at this time of the week or day, `horizon_seconds` later."""
    for table in (memory.week, memory.day):
        if not table:
            continue
        here = _at(table, clock)
        there = _at(table, clock + horizon_seconds)
        if here > 0 and there >= 0:
            return min(3.0, max(1 / 3, there / here))
    return 1.0


def _at(table: Sequence[float], clock: float) -> float:
    """Interpolated between the middles of bins; negative where either is unknown."""
    place = clock / SEASON_BIN_SECONDS - 0.5
    low = int(place // 1)
    first, second = table[low % len(table)], table[(low + 1) % len(table)]
    if first < 0 or second < 0:
        return -1.0
    return first + (second - first) * (place - low)


def _put(table: tuple[float, ...], size: int, index: int, value: float) -> tuple[float, ...]:
    cells = list(table) if table else [-1.0] * size
    at = index % size
    cells[at] = value if cells[at] < 0 else SEASON_MEMORY * cells[at] + (1 - SEASON_MEMORY) * value
    return tuple(cells)
