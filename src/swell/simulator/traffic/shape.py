"""The same traffic, faster, denser or shorter; and what a trace looks like in numbers."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic.prefixes import PrefixColumn
from swell.state.traffic import Traffic

MAX_COPIES = 10_000
MAX_FACTOR = 1e6

_PEAK_WINDOWS_SECONDS = {"1m": 60.0, "10m": 600.0, "1h": 3600.0}
_PERCENTILES = (50, 95, 99)

_Copy = tuple[float, NDArray[np.int64] | None]  # its shift in seconds, and the places it keeps (None: all)


def time_warp(traffic: Traffic, factor: float) -> Traffic:
    """All of it `factor` times as fast: the rate times `factor`, bursts and the mix as they were, days shorter.

    Keeps every request. Since a day does not last a day any more, forecasts by time of day find nothing in the result;
    `superpose` keeps the clock.
    """
    _check_factor(factor)
    return _with(traffic, traffic.arrival_seconds / factor)


def superpose(traffic: Traffic, copies: int, *, shift_seconds: float = 600.0, seed: int = 1) -> Traffic:
    """The sum of `copies` of it, all but the first shifted by a seeded time of up to `shift_seconds`, in a circle.

    Keeps the clock, the days and the mix. Bursts of copies rarely meet, so the sum is smoother than the trace, as the
    traffic of more users is; with a shift of 0 they always meet. What leaves at the end comes in at the beginning. A
    copy's prompts share prefixes among themselves only.
    """
    return _sum(traffic, [(shift, None) for shift in _shifts(copies, shift_seconds, np.random.default_rng(seed))])


def scale_rate(traffic: Traffic, factor: float, *, shift_seconds: float = 600.0, seed: int = 1) -> Traffic:
    """`factor` times the requests at the same times of day: superposed copies, the last of them thinned at random.

    Below 1 it is thinned alone: each request stays with probability `factor`. A factor of 1 changes nothing.
    """
    _check_factor(factor)
    whole = int(factor)
    dice = np.random.default_rng(seed)
    shifts = _shifts(whole + (factor > whole), shift_seconds, dice)
    parts: list[_Copy] = [(shift, None) for shift in shifts]
    if factor > whole:
        parts[-1] = (shifts[-1], np.flatnonzero(dice.random(len(traffic)) < factor - whole))
    return _sum(traffic, parts)


def between(traffic: Traffic, start: float, end: float) -> Traffic:
    """What arrives from `start` until before `end`, in seconds of the trace; `start` becomes 0."""
    if not 0 <= start < end:
        raise UserError(f"no traffic lies between {start:g} s and {end:g} s; give a start of 0 or more and a later end")
    first, last = np.searchsorted(traffic.arrival_seconds, [start, end], side="left")
    chosen = slice(int(first), int(last))
    return Traffic(
        arrival_seconds=traffic.arrival_seconds[chosen] - start,
        prompt_tokens=traffic.prompt_tokens[chosen],
        output_tokens=traffic.output_tokens[chosen],
        prefix_blocks=traffic.prefix_blocks[chosen],
        block_tokens=traffic.block_tokens,
        start_unix=None if traffic.start_unix is None else traffic.start_unix + start,
        name=traffic.name,
        batch=None if traffic.batch is None else traffic.batch[chosen],
    )


def with_batch(traffic: Traffic, share: float, *, seed: int = 1) -> Traffic:
    """It with each request of priority batch with probability `share`, whatever the trace says of that."""
    if not 0 <= share <= 1:
        raise UserError(f"a batch share of {share:g} is none; give 0 to 1")
    return replace(traffic, batch=np.random.default_rng(seed).random(len(traffic)) < share)


def describe(traffic: Traffic) -> dict[str, float]:
    """Rates, lengths and peaks by name, such as `prompt_p95` and `peak_over_mean_10m`.

    A peak is the busiest of the windows that follow one another from the start. `burst_cv` is the coefficient of
    variation of the times between arrivals: 1 for Poisson arrivals at one rate. A trace of no time has no rate.
    """
    count, seconds = len(traffic), traffic.seconds
    found: dict[str, float] = {"requests": count, "seconds": seconds}
    if not count:
        return found
    for name, column in (("prompt", traffic.prompt_tokens), ("output", traffic.output_tokens)):
        found[f"{name}_mean"] = float(column.mean())
        for percent, value in zip(_PERCENTILES, np.percentile(column, _PERCENTILES), strict=True):
            found[f"{name}_p{percent}"] = float(value)
    if seconds > 0:
        found["requests_per_second"] = count / seconds
        for name, window in _PEAK_WINDOWS_SECONDS.items():
            if window < seconds:
                busiest = np.bincount((traffic.arrival_seconds / window).astype(np.int64)).max()
                found[f"peak_over_mean_{name}"] = float(busiest) / window / found["requests_per_second"]
        gaps = np.diff(traffic.arrival_seconds)
        found["burst_cv"] = float(gaps.std() / gaps.mean())
    return found


def _shifts(copies: int, shift_seconds: float, dice: np.random.Generator) -> list[float]:
    if not 1 <= copies <= MAX_COPIES:
        raise UserError(f"cannot superpose {copies} copies; give 1 to {MAX_COPIES:,}")
    if not 0 <= shift_seconds < float("inf"):
        raise UserError(f"copies cannot be shifted by {shift_seconds:g} s; give 0 or more")
    shifts: list[float] = dice.uniform(0.0, shift_seconds, copies).tolist()
    return [0.0, *shifts[1:]]


def _sum(traffic: Traffic, parts: list[_Copy]) -> Traffic:
    """Copies in one order of arrival."""
    count = len(traffic)
    everything = np.arange(count)
    places = np.concatenate([everything if kept is None else kept for _, kept in parts])
    arrivals = np.concatenate(
        [_shifted(traffic, shift)[everything if kept is None else kept] for shift, kept in parts]
    )  # fmt: skip
    order = np.argsort(arrivals, kind="stable")
    return Traffic(
        arrival_seconds=arrivals[order],
        prompt_tokens=traffic.prompt_tokens[places][order],
        output_tokens=traffic.output_tokens[places][order],
        prefix_blocks=_prefixes(traffic, [kept for _, kept in parts], order),
        block_tokens=traffic.block_tokens,
        start_unix=traffic.start_unix,
        name=traffic.name,
        batch=None if traffic.batch is None else traffic.batch[places][order],
    )


def _shifted(traffic: Traffic, shift: float) -> NDArray[np.float64]:
    """In a circle as long as the trace and one mean gap, so that the last and the first do not meet."""
    if not shift or len(traffic) < 2 or not traffic.seconds:
        return traffic.arrival_seconds
    return (traffic.arrival_seconds + shift) % (traffic.seconds * len(traffic) / (len(traffic) - 1))


def _prefixes(
    traffic: Traffic, kept: list[NDArray[np.int64] | None], order: NDArray[np.int64]
) -> PrefixColumn | tuple[()]:
    blocks = traffic.prefix_blocks
    if not len(blocks):
        return ()
    column = blocks if isinstance(blocks, PrefixColumn) else PrefixColumn.of(blocks)
    copies = (
        (column if places is None else column.take(places)).renamed(copy) for copy, places in enumerate(kept)
    )  # fmt: skip
    return PrefixColumn.joined(copies).take(order)


def _with(traffic: Traffic, arrivals: NDArray[np.float64]) -> Traffic:
    return Traffic(
        arrivals, traffic.prompt_tokens, traffic.output_tokens, traffic.prefix_blocks, traffic.block_tokens,
        traffic.start_unix, traffic.name, traffic.batch,
    )  # fmt: skip


def _check_factor(factor: float) -> None:
    if not 1 / MAX_FACTOR <= factor <= MAX_FACTOR:
        raise UserError(f"traffic cannot be scaled by {factor:g}; give {1 / MAX_FACTOR:g} to {MAX_FACTOR:g}")
