"""From measured times to the coefficients of a latency profile.

Least squares of relative errors with coefficients that are never negative: more work never takes less time, whatever
the noise says. What cannot be told apart (two terms that always grow together) is given to one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from swell.errors import UserError


@dataclass(frozen=True, slots=True)
class PrefillSample:
    """An unloaded replica's time to the first token of a prompt; the median of some repetitions."""

    prompt_tokens: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class StepSample:
    """The time of a decode step of so many sequences, whose contexts sum to so many tokens."""

    sequences: int
    context_tokens: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Three coefficients, in the order of `LatencyProfile`; how far they are off, as shares of what was measured."""

    coefficients: tuple[float, float, float]
    median_error: float
    worst_error: float


def fit_prefill(samples: Sequence[PrefillSample]) -> Fit:
    """`a + b·n + c·n²`. UserError below three different lengths."""
    lengths = np.array([sample.prompt_tokens for sample in samples], dtype=float)
    if len(np.unique(lengths)) < 3:
        raise UserError("fewer than three prompt lengths could be measured; give more --seconds or longer prompts")
    times = np.array([sample.milliseconds for sample in samples], dtype=float)
    return _fit(np.column_stack([np.ones_like(lengths), lengths, lengths**2]), times)


def fit_step(samples: Sequence[StepSample]) -> Fit:
    """`s + q·B + t·S`. UserError below three different batches."""
    batches = np.array([[1.0, sample.sequences, sample.context_tokens] for sample in samples], dtype=float)
    if len({(sample.sequences, round(sample.context_tokens)) for sample in samples}) < 3:
        raise UserError("fewer than three batches could be measured; give more --seconds or more --concurrency")
    return _fit(batches, np.array([sample.milliseconds for sample in samples], dtype=float))


def _fit(terms: NDArray[np.float64], times: NDArray[np.float64]) -> Fit:
    weighted = terms / times[:, None]
    scale = weighted.max(axis=0)  # so that tokens squared and ones are of one size
    found, _ = nnls(weighted / scale, np.ones_like(times))
    coefficients = found / scale
    errors = np.abs(terms @ coefficients / times - 1)
    fixed, linear, last = (float(value) for value in coefficients)
    return Fit((fixed, linear, last), float(np.median(errors)), float(errors.max()))
