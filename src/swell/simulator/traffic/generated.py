"""Traffic from a few parameters: days and weeks, trend, drift, spikes, bursts, and log-normal lengths.

The rate is a product of independent factors on a grid of STEP_SECONDS, scaled so that its mean over the whole time is
the one asked for. Arrivals are a renewal process with gamma gaps in operational time: the k-th request arrives when the
integral of the rate reaches the sum of k gaps of mean 1. Every part draws from a stream of its own, so that changing
the lengths leaves the arrivals as they are.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.state.traffic import Traffic

MONDAY_UNIX = 1_704_067_200.0  # 2024-01-01 00:00 UTC
STEP_SECONDS = 10.0
MAX_REQUESTS = 200_000_000  # 3 GB of columns

_DAY_SECONDS, _WEEK_SECONDS = 86_400.0, 604_800.0
_FIRST_MONDAY_SECONDS = 4 * _DAY_SECONDS  # 1970-01-01 was a Thursday
_CLOCK_CV = 1e-3  # below it the gamma distribution's shape is beyond use, and gaps are as good as equal
_Z95 = 1.6448536269514722  # the normal distribution's 95th percentile
_MAX_P95_OVER_MEAN = math.exp(_Z95 * _Z95 / 2)  # 3.87: no log-normal has more


@dataclass(frozen=True, slots=True)
class GeneratedTraffic:
    """What traffic looks like. Checked when it is made; raises UserError.

    The rate of a moment is the mean times: a sine of the day that swings by `day_amplitude` (0.5: from 0.5 to 1.5)
    around its peak; `weekend_factor` on Saturday and Sunday; a line that rises by `trend_per_week` of its beginning a
    week; a mean-reverting random walk of the logarithm with deviation `drift_deviation`, which forgets in
    `drift_seconds`; and `spike_factor` in spikes, which begin at random `spikes_per_day` times a day and last
    `spike_seconds`. `burst_cv` is the coefficient of variation of the gaps at a constant rate: 1 is Poisson, above
    comes in bursts, below is regular, 0 is a clock.

    Lengths are log-normal, rounded, and between 1 and the bound. A 95th percentile lies between the mean (then all are
    equal) and 3.8 times the mean.
    """

    seconds: float = _WEEK_SECONDS
    requests_per_second: float = 1.0
    day_amplitude: float = 0.5
    peak_hour: float = 14.0  # UTC
    weekend_factor: float = 1.0
    trend_per_week: float = 0.0
    drift_deviation: float = 0.0
    drift_seconds: float = 3600.0
    spikes_per_day: float = 0.0
    spike_factor: float = 3.0
    spike_seconds: float = 300.0
    burst_cv: float = 1.0
    prompt_mean: float = 1000.0
    prompt_p95: float = 3000.0
    max_prompt_tokens: int = 131_072
    output_mean: float = 200.0
    output_p95: float = 600.0
    max_output_tokens: int = 32_768
    start_unix: float = MONDAY_UNIX
    name: str = "generated"

    def __post_init__(self) -> None:
        _check("seconds", self.seconds, STEP_SECONDS, 10 * 365 * _DAY_SECONDS)
        _check("requests_per_second", self.requests_per_second, 1e-9, MAX_REQUESTS / self.seconds)
        _check("day_amplitude", self.day_amplitude, 0.0, 1.0)
        _check("peak_hour", self.peak_hour, 0.0, 24.0)
        _check("weekend_factor", self.weekend_factor, 0.0, 1e3)
        _check("trend_per_week", self.trend_per_week, -0.999 / max(self.seconds / _WEEK_SECONDS, 1.0), 1e3)
        _check("drift_deviation", self.drift_deviation, 0.0, 3.0)
        _check("drift_seconds", self.drift_seconds, STEP_SECONDS, 365 * _DAY_SECONDS)
        _check("spikes_per_day", self.spikes_per_day, 0.0, 1e4)
        _check("spike_factor", self.spike_factor, 0.0, 1e4)
        _check("spike_seconds", self.spike_seconds, STEP_SECONDS, 365 * _DAY_SECONDS)
        _check("burst_cv", self.burst_cv, 0.0, 30.0)
        for kind, mean, p95, bound in (
            ("prompt", self.prompt_mean, self.prompt_p95, self.max_prompt_tokens),
            ("output", self.output_mean, self.output_p95, self.max_output_tokens),
        ):
            _check(f"{kind}_mean", mean, 1.0, bound)
            _check(f"{kind}_p95", p95, mean, mean * 3.8)


def generate(what: GeneratedTraffic, seed: int = 1) -> Traffic:
    """The same seed gives the same requests, bit for bit."""
    drift_seed, spike_seed, arrival_seed, prompt_seed, output_seed = np.random.SeedSequence(seed).spawn(5)
    rates = _rates(what, np.random.default_rng(drift_seed), np.random.default_rng(spike_seed))
    arrivals = _arrivals(what, rates, np.random.default_rng(arrival_seed))
    count = len(arrivals)
    prompt_dice, output_dice = np.random.default_rng(prompt_seed), np.random.default_rng(output_seed)
    return Traffic(
        arrival_seconds=arrivals,
        prompt_tokens=_lengths(what.prompt_mean, what.prompt_p95, what.max_prompt_tokens, count, prompt_dice),
        output_tokens=_lengths(what.output_mean, what.output_p95, what.max_output_tokens, count, output_dice),
        start_unix=what.start_unix,
        name=what.name,
    )


def lognormal_of(mean: float, p95: float) -> tuple[float, float]:
    """Mean and deviation of the logarithm, from the mean and the 95th percentile.

    mean = exp(m + s^2/2) and p95 = exp(m + z s), so s^2/2 - z s + ln(p95/mean) = 0; the smaller root is the one that
    has its 95th percentile above its mean for want of spread, not for excess of it.
    """
    ratio = min(max(p95 / mean, 1.0), _MAX_P95_OVER_MEAN)
    deviation = _Z95 - math.sqrt(max(_Z95 * _Z95 - 2 * math.log(ratio), 0.0))
    return math.log(mean) - deviation * deviation / 2, deviation


def _edges(what: GeneratedTraffic) -> NDArray[np.float64]:
    """Where the steps begin and end; the last may be shorter."""
    edges = np.arange(math.ceil(what.seconds / STEP_SECONDS) + 1, dtype=np.float64) * np.float64(STEP_SECONDS)
    edges[-1] = what.seconds
    return edges


def _rates(
    what: GeneratedTraffic, drift_dice: np.random.Generator, spike_dice: np.random.Generator
) -> NDArray[np.float64]:
    """Requests per second in each step."""
    edges = _edges(what)
    middle = (edges[:-1] + edges[1:]) / 2
    of_week = (middle + what.start_unix - _FIRST_MONDAY_SECONDS) % _WEEK_SECONDS
    hour = of_week % _DAY_SECONDS / 3600
    shape = 1 + what.day_amplitude * np.cos((hour - what.peak_hour) * (2 * math.pi / 24))
    shape *= np.where(of_week >= 5 * _DAY_SECONDS, what.weekend_factor, 1.0)
    shape *= 1 + what.trend_per_week * middle / _WEEK_SECONDS
    if what.drift_deviation:
        shape *= np.exp(_drift(what, middle, drift_dice))
    if what.spikes_per_day:
        shape *= np.where(_in_spike(what, len(middle), spike_dice), what.spike_factor, 1.0)
    mean = float(np.average(shape, weights=np.diff(edges)))
    if not mean > 0:
        raise UserError("the generated traffic has no moment with requests; raise weekend_factor or spike_factor")
    return np.asarray(shape * (what.requests_per_second / mean), dtype=np.float64)


def _in_spike(what: GeneratedTraffic, steps: int, dice: np.random.Generator) -> NDArray[np.bool_]:
    count = dice.poisson(what.spikes_per_day * what.seconds / _DAY_SECONDS)
    first = (dice.uniform(0.0, what.seconds, count) / STEP_SECONDS).astype(np.int64)
    last = np.minimum(first + round(what.spike_seconds / STEP_SECONDS), steps)
    changes: NDArray[np.int64] = np.bincount(first, minlength=steps + 1) - np.bincount(last, minlength=steps + 1)
    return np.asarray(np.cumsum(changes[:-1]) > 0, dtype=np.bool_)


def _drift(what: GeneratedTraffic, at: NDArray[np.float64], dice: np.random.Generator) -> NDArray[np.float64]:
    """An Ornstein-Uhlenbeck process from its stationary distribution on: a point a minute, in between by lines."""
    minute = 60.0
    keep = math.exp(-minute / what.drift_seconds)
    spread = math.sqrt(1 - keep * keep)
    draws = dice.standard_normal(math.ceil(what.seconds / minute) + 1).tolist()
    points = [draws[0]]
    for draw in draws[1:]:
        points.append(keep * points[-1] + spread * draw)
    curve = np.interp(at, np.arange(len(points)) * minute, points)
    return np.asarray(what.drift_deviation * curve, dtype=np.float64)


def _arrivals(what: GeneratedTraffic, rates: NDArray[np.float64], dice: np.random.Generator) -> NDArray[np.float64]:
    edges = _edges(what)
    integral = np.concatenate(([0.0], np.cumsum(rates * np.diff(edges))))
    expected = float(integral[-1])
    # Enough gaps to pass the end but once in ten thousand; else some more.
    batch = int(expected + 4 * max(what.burst_cv, 1.0) * math.sqrt(expected) + 16)
    moments, reached = [], 0.0
    while reached < expected:
        sums = reached + np.cumsum(_gaps(what.burst_cv, batch, dice))
        moments.append(sums)
        reached = float(sums[-1])
    operational = np.concatenate(moments)
    operational = operational[operational < expected]
    return np.asarray(np.interp(operational, integral, edges), dtype=np.float64)


def _gaps(cv: float, count: int, dice: np.random.Generator) -> NDArray[np.float64]:
    """Of mean 1."""
    if cv < _CLOCK_CV:
        return np.ones(count)
    shape = 1 / (cv * cv)
    return dice.gamma(shape, 1 / shape, count)


def _lengths(mean: float, p95: float, bound: int, count: int, dice: np.random.Generator) -> NDArray[np.int32]:
    centre, deviation = lognormal_of(mean, p95)
    drawn = np.rint(np.exp(centre + deviation * dice.standard_normal(count)))
    return np.clip(drawn, 1, bound).astype(np.int32)


def _check(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise UserError(f"generated traffic cannot have {name} {value:g}; give {lowest:g} to {highest:g}")
