"""The least that a request takes of a replica, whatever the policy.

A request of n prompt and o output tokens takes b·n + c·n² for its prompt, and takes part in o - 1 decode steps (the
prompt's last chunk yields the first token) at contexts n + 1 … n + o - 1, of which each takes q + t·context. What is
fixed in a step, s, is shared by the batch. Optimistic: no queueing, no fixed cost of a prompt, no prompt ever delays a
token, and every step is shared by the largest batch that meets the ITL objective and fits.

How large that batch is depends on who is in it. A share that adds up: let a sequence take (q + t·context)/(L - s) of a
step at the limit L. A step inside the limit, s + sum(q + t·context) <= L, then has shares that sum to at most 1, so s
times the shares is never more than what the step's fixed part took. The same holds for context/KV tokens and for
1/max_sequences, and the bound may use any one of the three for all requests; it uses the one that yields most.
The objective is on a request's mean ITL, so single steps may be longer; the argument needs the mean over steps only.
"""

import numpy as np
from numpy.typing import NDArray

from swell.state.scaling import LatencyProfile, Objective
from swell.state.traffic import Traffic

SECONDS_PER_HOUR = 3600.0

Array = NDArray[np.float64]


def work_replica_seconds(traffic: Traffic, profile: LatencyProfile, objective: Objective) -> Array:
    """Replica-seconds of each request, at the least. Prompt tokens that an infinite prefix cache holds are free."""
    prompt = traffic.prompt_tokens.astype(np.float64)
    output = traffic.output_tokens.astype(np.float64)
    cached = cached_tokens(traffic)
    fresh = prompt - cached
    prefill = profile.prefill_ms_per_token * fresh + profile.prefill_ms_per_token2 * fresh * (prompt + cached)
    steps = output - 1
    context = steps * (prompt + output / 2)  # summed over the steps
    own = profile.step_ms_per_sequence * steps + profile.step_ms_per_context_token * context
    resident = steps * (fresh + output / 2)  # cached prefixes may be shared, so they need no memory of their own
    shared = _shares_of_fixed_part(profile, objective, steps, own, resident)
    return np.asarray((prefill + own + profile.step_fixed_ms * shared) / 1000)


def _shares_of_fixed_part(
    profile: LatencyProfile, objective: Objective, steps: Array, own: Array, resident: Array
) -> Array:
    """In how many whole steps' fixed parts each request's steps amount to: the sum over its steps of 1/batch."""
    room_ms = objective.itl_ms - profile.step_fixed_ms
    by_time = steps if room_ms <= 0 else np.minimum(own / room_ms, steps)
    by_memory = np.minimum(resident / max(1, profile.kv_tokens), steps)
    by_count = steps / max(1, profile.max_sequences)
    shares: tuple[Array, ...] = (by_time, by_memory, by_count)
    return max(shares, key=lambda share: float(share.sum()))


def cached_tokens(traffic: Traffic) -> Array:
    """Leading prompt tokens of each request that an earlier one had as well; the last token is always computed."""
    cached = np.zeros(len(traffic))
    if not traffic.prefix_blocks:
        return cached
    seen: set[int] = set()
    for index, blocks in enumerate(traffic.prefix_blocks):
        found = 0
        for block in blocks:
            if block not in seen:
                break
            found += 1
        seen.update(blocks)
        cached[index] = found * traffic.block_tokens
    return np.asarray(np.minimum(cached, traffic.prompt_tokens - 1.0), dtype=np.float64)


def work_per_slot(traffic: Traffic, work: Array, slot_seconds: float) -> Array:
    """Replica-seconds of the requests that arrive in each slot; at least one slot."""
    slots = (traffic.arrival_seconds // slot_seconds).astype(np.int64)
    return np.asarray(np.bincount(slots, weights=work, minlength=1), dtype=np.float64)
