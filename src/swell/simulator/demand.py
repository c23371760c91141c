"""How many replicas a trace's arrivals fill over time, and how much of it would fill as many as one likes."""

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.policy.scaling.capacity import Mix, capacity
from swell.simulator.traffic import scale_rate
from swell.state.scaling import LatencyProfile, LengthSums, Objective
from swell.state.traffic import Traffic

Array = NDArray[np.float64]

SLOT_SECONDS = 600.0
MAX_REQUESTS = 50_000_000
_CLOSE = 0.02  # of the peak that was asked for
_CORRECTIONS = 4
_ROUNDING = 1e-9  # relative: of a machine that serves one at a time anyway, both are the same but for sums' last digits


def replicas_filled(traffic: Traffic, profile: LatencyProfile, objective: Objective, edges: Array) -> Array:
    """Per interval between two of `edges` (seconds): the replicas whose capacity its arrivals fill, not rounded up."""
    n, o = traffic.prompt_tokens.astype(np.float64), traffic.output_tokens.astype(np.float64)
    slot = np.clip(np.searchsorted(edges, traffic.arrival_seconds, side="right") - 1, 0, len(edges) - 2)
    columns = [
        np.bincount(slot, weights=weights, minlength=len(edges) - 1)
        for weights in (np.ones_like(n), n, n * n, o, o * o, n * o)
    ]
    filled = np.zeros(len(edges) - 1)
    for index, (count, *sums) in enumerate(zip(*columns, strict=True)):
        slot_sums = LengthSums(int(count), *(float(value) for value in sums))
        filled[index] = replicas_needed(slot_sums, float(edges[index + 1] - edges[index]), profile, objective)
    return filled


def replicas_needed(sums: LengthSums, seconds: float, profile: LatencyProfile, objective: Objective) -> float:
    """Replicas that these requests fill if they come within `seconds`, not rounded up.

    At most as many as there are requests, and as many as do their work one after the other in that time: two requests
    are no rate, and where one of them is very long, what a steady stream of such would need is absurd.
    """
    mix = Mix.of_sums(sums)
    if mix is None:
        return 0.0
    steady = sums.count / seconds / capacity(profile, objective, mix)[0]
    prefill_ms = sums.count * profile.prefill_fixed_ms + sums.n * profile.prefill_ms_per_token
    prefill_ms += sums.n2 * profile.prefill_ms_per_token2
    decode_ms = sums.o * profile.step_ms(1, mix.context)
    most = min(float(sums.count), (prefill_ms + decode_ms) / 1000 / seconds)
    return steady if steady <= most * (1 + _ROUNDING) else most


def peak_replicas(traffic: Traffic, profile: LatencyProfile, objective: Objective) -> float:
    """Replicas that the busiest ten minutes fill; a shorter trace counts as a whole."""
    slots = max(1, int(traffic.seconds // SLOT_SECONDS))
    edges = np.linspace(0.0, slots * min(SLOT_SECONDS, max(traffic.seconds, 1.0)), slots + 1)
    return float(replicas_filled(traffic, profile, objective, edges).max())


def factor_to_peak(
    traffic: Traffic, profile: LatencyProfile, objective: Objective, replicas: float, seed: int = 1
) -> float:
    """By what factor `scale_rate` must multiply the trace so that its busiest ten minutes fill about `replicas`.

    Bursts of superposed copies rarely meet, so the peak grows less than the mean: the factor is corrected for that.
    Raises UserError where the result would be too large to hold.
    """
    if not len(traffic):
        return 1.0
    factor = replicas / peak_replicas(traffic, profile, objective)
    for _ in range(_CORRECTIONS):
        if factor * len(traffic) > MAX_REQUESTS:
            raise UserError(
                f"a peak of {replicas:g} replicas takes {factor * len(traffic):,.0f} requests of this trace; at most "
                f"{MAX_REQUESTS:,} are replayed; give a smaller --peak-replicas or a slower accelerator"
            )
        reached = peak_replicas(scale_rate(traffic, factor, seed=seed), profile, objective)
        if abs(reached / replicas - 1) <= _CLOSE:
            break
        factor *= replicas / reached
    return factor
