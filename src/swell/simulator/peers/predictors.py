"""Forecasts that peers make of a series, one value an interval.

`AutoRegression` stands in for `auto_arima`: an autoregression on values or on differences, as a stationarity test says,
of the order that the information criterion (AICc) prefers; there is no moving-average part and no season. `LocalTrend`
is a Kalman filter. None of them forecasts below zero.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import expm1, log, log1p
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

FEWEST_POINTS = 5
LONGEST_MEMORY = 3  # of an autoregression, in values
KPSS_CRITICAL = 0.463  # at 5 %, of a series without trend (Kwiatkowski and others 1992)
LOG_LIMIT = 50.0  # e^50: what a fit of logarithms may at most foretell


class Predictor(Protocol):
    """Learns values one by one and foretells the next ones."""

    def add(self, value: float) -> None:
        """The next value of the series."""

    def forecast(self, steps: int = 1) -> list[float]:
        """The next `steps` values; zeros where nothing was seen."""


class Constant:
    """What was last will be next."""

    def __init__(self) -> None:
        self._last = 0.0

    def add(self, value: float) -> None:
        """The next value of the series."""
        self._last = value

    def forecast(self, steps: int = 1) -> list[float]:
        """The last value, again and again."""
        return [self._last] * steps


class LocalTrend:
    """A Kalman filter of a level and its trend (Dynamo: q_level 1, q_trend 0.1, r 10)."""

    def __init__(self, q_level: float = 1.0, q_trend: float = 0.1, r: float = 10.0) -> None:
        self._q = np.diag([q_level, q_trend])
        self._r = r
        self._state = np.zeros(2)
        self._spread = np.eye(2) * 1000.0  # nothing is known at first
        self._move = np.array([[1.0, 1.0], [0.0, 1.0]])
        self._seen = 0

    def add(self, value: float) -> None:
        """The next value of the series."""
        if self._seen == 0:
            self._state = np.array([value, 0.0])
        self._seen += 1
        state = self._move @ self._state
        spread = self._move @ self._spread @ self._move.T + self._q
        gain = spread[:, 0] / (spread[0, 0] + self._r)
        self._state = state + gain * (value - state[0])
        self._spread = spread - np.outer(gain, spread[0])

    def forecast(self, steps: int = 1) -> list[float]:
        """Along the trend."""
        level, trend = self._state
        return [max(0.0, float(level + trend * step)) for step in range(1, steps + 1)]


class AutoRegression:
    """Refits at each forecast, on the last `memory` values."""

    def __init__(self, memory: int = 50) -> None:
        self._values: deque[float] = deque(maxlen=memory)

    def add(self, value: float) -> None:
        """The next value of the series; zeros before the first other one are no part of it."""
        if value or self._values:
            self._values.append(value)

    def forecast(self, steps: int = 1) -> list[float]:
        """From the fit; the last value where there are too few to fit."""
        values = list(self._values)
        if len(values) < FEWEST_POINTS:
            return [values[-1] if values else 0.0] * steps
        order, found = autoregression(values, steps)
        if order == 0:  # no structure: that of the logarithms may be plainer
            _, logs = autoregression([log1p(max(0.0, value)) for value in values], steps)
            found = [expm1(min(value, LOG_LIMIT)) for value in logs]
        return [max(0.0, value) for value in found]


PREDICTORS: Mapping[str, Callable[[], Predictor]] = {
    "arima": AutoRegression,
    "constant": Constant,
    "kalman": LocalTrend,
}


def autoregression(values: Sequence[float], steps: int) -> tuple[int, list[float]]:
    """(the order, the next `steps` values)."""
    series = np.asarray(values, dtype=np.float64)
    if np.ptp(series) == 0:
        return 0, [float(series[-1])] * steps
    differs = not is_stationary(series)
    base = np.diff(series) if differs else series
    longest = min(LONGEST_MEMORY, (len(base) - 2) // 3)
    constants = (False, True) if differs else (True,)  # whether differences drift is a question of the criterion too
    fits = [_fit(base, order, longest, constant) for order in range(longest + 1) for constant in constants]
    _, weights = min(fits, key=lambda fit: fit[0])
    order = len(weights) - 1
    past = base.tolist()
    for _ in range(steps):
        past.append(float(weights[0] + sum(weights[1 + lag] * past[-1 - lag] for lag in range(order))))
    ahead = past[len(base) :]
    return order, [float(x) for x in series[-1] + np.cumsum(ahead)] if differs else ahead


def is_stationary(series: NDArray[np.float64]) -> bool:
    """The KPSS test of a level, at 5 %."""
    count = len(series)
    off = series - series.mean()
    lags = int(4 * (count / 100) ** 0.25)
    variance = float(off @ off) / count
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * float(off[lag:] @ off[:-lag]) / count
    sums = np.cumsum(off)
    return variance <= 0 or float(sums @ sums) / (count * count * variance) < KPSS_CRITICAL


def _fit(base: NDArray[np.float64], order: int, longest: int, constant: bool) -> tuple[float, NDArray[np.float64]]:
    """(AICc, constant and weights) by least squares; all orders are judged on the same values."""
    target = base[longest:]
    first = np.ones(len(target)) if constant else np.zeros(len(target))
    design = np.column_stack([first, *(base[longest - lag : len(base) - lag] for lag in range(1, order + 1))])
    weights = np.asarray(np.linalg.lstsq(design, target, rcond=None)[0], dtype=np.float64)
    rest = target - design @ weights
    count, free = len(target), order + 1 + constant
    error = max(float(rest @ rest) / count, 1e-12)
    spare = count - free - 1
    correction = 2 * free * (free + 1) / spare if spare > 0 else float("inf") if order else 0.0
    return count * log(error) + 2 * free + correction, weights
