"""How long a spot zone stays up or down: a distribution from the mean and the median that availability records give."""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_LEAST_RATIO = 1.001  # mean over median; below, all runs are nearly alike


class Family(StrEnum):
    """Shapes of the distribution. Both are heavy-tailed where the mean is far above the median."""

    LOG_NORMAL = "log_normal"
    WEIBULL = "weibull"


@dataclass(frozen=True, slots=True)
class Runs:
    """Lengths of one kind of run, in seconds. A mean that is not above the median gives runs that are nearly alike."""

    mean_seconds: float
    median_seconds: float
    family: Family = Family.LOG_NORMAL

    def __post_init__(self) -> None:
        if not (0 < self.median_seconds < math.inf and 0 < self.mean_seconds < math.inf):
            raise ValueError("the mean and the median of a run must be positive and finite")

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """So many lengths. Their distribution keeps the mean exactly, the median where the family can."""
        ratio = max(self.mean_seconds / self.median_seconds, _LEAST_RATIO)
        if self.family is Family.LOG_NORMAL:  # mean = median · exp(sigma² / 2)
            sigma = math.sqrt(2 * math.log(ratio))
            return random.lognormal(math.log(self.mean_seconds) - sigma * sigma / 2, sigma, count)
        shape = _weibull_shape(ratio)
        return random.weibull(shape, count) * (self.mean_seconds / math.gamma(1 + 1 / shape))


@lru_cache(maxsize=256)
def _weibull_shape(ratio: float) -> float:
    """The k with mean / median = gamma(1 + 1/k) / ln(2)^(1/k), which falls as k rises up to about 3.3."""
    low, high = 0.1, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        if math.lgamma(1 + 1 / middle) - math.log(math.log(2)) / middle > math.log(ratio):
            low = middle
        else:
            high = middle
    return (low + high) / 2
