"""The cheapest setting of a policy's one knob that reaches an attainment.

The knob runs from least to most provision on a geometric scale, u from 0 to 1. Misses fall with u, about exponentially,
so a bracket is narrowed by interpolating the logarithm of the misses, and by halving where that gains less than a half.
Policies are not quite monotone: of everything that was replayed, the cheapest that reaches the attainment is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from swell.simulator.result import Result

CLOSE = 0.97  # of the misses that are allowed: near enough, nothing is gained by another replay
_FEWEST_MISSES = 1e-6  # stands for none: a logarithm must exist
_EDGE = 0.1  # of a bracket: an interpolated point keeps this far from its ends


@dataclass(frozen=True, slots=True)
class Knob:
    """A policy's one setting: its range, and which way more is provided."""

    low: float
    high: float
    larger_means_more: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError("a knob's range must be positive and not empty")

    def at(self, u: float) -> float:
        """The setting at u: 0 provides least, 1 most."""
        share = u if self.larger_means_more else 1 - u
        return float(self.low * (self.high / self.low) ** share)

    def position(self, setting: float) -> float:
        """u of a setting, at most the range's ends."""
        share = math.log(setting / self.low) / math.log(self.high / self.low)
        share = min(1.0, max(0.0, share))
        return share if self.larger_means_more else 1 - share

    def share_of(self, factor: float) -> float:
        """How much u moves where the setting changes by `factor`."""
        return math.log(factor) / math.log(self.high / self.low)


@dataclass
class Search:
    """Replays one policy at several settings. `run` replays it at one."""

    knob: Knob
    attainment: float
    run: Callable[[float], Result]
    tried: list[tuple[float, Result]] = field(default_factory=list)  # u and what came of it, in order

    def reaches(self, result: Result) -> bool:
        """Whether it attains what was asked for."""
        return result.attainment >= self.attainment

    @property
    def best(self) -> tuple[float, Result]:
        """The cheapest that reaches the attainment, else the one that attains most (the cheapest of those)."""
        reaching = [(u, r) for u, r in self.tried if self.reaches(r)]
        if reaching:
            return min(reaching, key=lambda each: each[1].cost_usd)
        return min(self.tried, key=lambda each: (-each[1].attainment, each[1].cost_usd))

    @property
    def reached(self) -> bool:
        """Whether anything that was tried did."""
        return any(self.reaches(result) for _, result in self.tried)

    def narrow(self, replays: int, precision: float, start: float | None = None, step: float = 0.0) -> None:
        """Replay at most `replays` settings, until the knob is known to within a factor of `precision`.

        Without `start`, the whole range is the bracket. With it, the bracket is looked for around `start`, first at
        `step`, then twice as far each time. Where nothing reached the attainment by then, more is provided until
        something does or the range ends; where only its end does, half as many replays again look for a cheaper one.
        """
        low, high = 0.0, 1.0  # assumed to miss, and to reach, until tried
        u = 0.5 if start is None else start
        tolerance = self.knob.share_of(precision)
        left = replays
        while True:
            left -= 1
            reaches = self.reaches(self._replayed(u))
            if u in (0.0, 1.0) and reaches == (u == 0.0):
                return  # the least there is reaches it, or the most there is does not
            low, high = (low, min(high, u)) if reaches else (max(low, u), high)
            if self._is_close() or (self.reached and high - low <= tolerance):
                return
            if left <= 0 and reaches and u == 1.0:
                left = replays // 2
            if left <= 0 and self.reached:
                return
            spent = left <= 0 or high - low <= tolerance
            u = (1.0 if step <= 0 else min(1.0, low + step)) if spent else self._next(low, high, step)
            step *= 2

    def _replayed(self, u: float) -> Result:
        for tried, result in self.tried:
            if tried == u:
                return result
        result = self.run(self.knob.at(u))
        self.tried.append((u, result))
        return result

    def _goal(self) -> float:
        return math.log(max(_FEWEST_MISSES, (1 - self.attainment) * (1 + CLOSE) / 2))

    def _is_close(self) -> bool:
        allowed = 1 - self.attainment
        return any(self.reaches(r) and 1 - r.attainment >= CLOSE * allowed > 0 for _, r in self.tried)

    def _next(self, low: float, high: float, step: float) -> float:
        """The next u to try inside a bracket."""
        at = {u: _log_misses(result) for u, result in self.tried}
        width = high - low
        if low in at and high in at:
            if len(at) % 3 == 0 or at[low] <= at[high]:
                return (low + high) / 2
            share = (at[low] - self._goal()) / (at[low] - at[high])
            return low + width * min(1 - _EDGE, max(_EDGE, share))
        if step <= 0 or (low not in at and high not in at):
            return (low + high) / 2
        return min(1.0, low + step) if low in at else max(0.0, high - step)


def _log_misses(result: Result) -> float:
    return math.log(max(_FEWEST_MISSES, 1 - result.attainment))
