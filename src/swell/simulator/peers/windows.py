"""Averages over the last seconds."""

from collections import deque


class Recent:
    """A quantity over the last `span_seconds`, from samples that each stand for the seconds before them."""

    def __init__(self, span_seconds: float) -> None:
        self._span = span_seconds
        self._samples: deque[tuple[float, float, float]] = deque()  # (its end, its seconds, its value)

    def add(self, at: float, seconds: float, value: float) -> None:
        """One sample; times do not go back."""
        self._samples.append((at, seconds, value))
        self.forget(at)

    def forget(self, now: float) -> None:
        """Drop what is older than the span."""
        while self._samples and self._samples[0][0] <= now - self._span + 1e-9:
            self._samples.popleft()

    def mean(self, span_seconds: float | None = None) -> float | None:
        """Weighted by time, over the last `span_seconds` before the newest sample; None without one."""
        if not self._samples:
            return None
        since = self._samples[-1][0] - (self._span if span_seconds is None else span_seconds) + 1e-9
        weight = total = 0.0
        for at, seconds, value in reversed(self._samples):
            if at <= since:
                break
            weight += seconds
            total += seconds * value
        return total / weight if weight > 0 else self._samples[-1][2]

    def sum(self) -> float:
        """Of all values in the span."""
        return sum(value for _, _, value in self._samples)

    def largest(self) -> float | None:
        """Of all values in the span; None without one."""
        return max((value for _, _, value in self._samples), default=None)
