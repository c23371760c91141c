"""How much of a replica requests take, by the model's latency profile. Pure.

A request with n prompt and o completion tokens takes `prefill(n) + o * step(B, S) / B` of a replica that decodes a
batch of B with S tokens of context between them: its own prompt, and its part of every step. B is what one replica
carries inside the objective (`policy.scaling.capacity`), for the mean lengths of all requests together. A replica that
is used to its capacity does one second of such work a second.

The ledger sums tokens and not their squares, so the requests of a group count as if they were alike. Without a profile
nobody knows the time: work is tokens then, a completion token as COMPLETION_WEIGHT prompt tokens.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

import msgspec

from swell.policy.scaling.capacity import Mix, capacity
from swell.state.scaling import LatencyProfile, Objective

COMPLETION_WEIGHT = 4  # a price list's usual ratio between completion and prompt tokens
_MICROSECONDS_PER_MS = 1000

_Key = TypeVar("_Key", bound=Hashable)


class Load(msgspec.Struct, frozen=True):
    """What the requests of one group asked for, and what they were charged."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    charge_usd_nanos: int = 0

    def __add__(self, other: "Load") -> "Load":
        return Load(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.charge_usd_nanos + other.charge_usd_nanos,
        )


NO_LOAD = Load(0, 0, 0)


def work_microseconds(loads: Mapping[_Key, Load], profile: LatencyProfile, objective: Objective) -> dict[_Key, int]:
    """Microseconds of a replica at capacity, by group."""
    whole = sum(loads.values(), NO_LOAD)
    token_ms = _token_ms(whole, profile, objective)
    return {
        key: round(_MICROSECONDS_PER_MS * (_prefill_ms(load, profile) + load.completion_tokens * token_ms))
        for key, load in loads.items()
    }


def token_work(load: Load, profile: LatencyProfile | None, objective: Objective) -> tuple[int, int]:
    """Of all requests together, the work of their prompts and that of their completions; in the same unit."""
    if profile is None:
        return load.prompt_tokens, COMPLETION_WEIGHT * load.completion_tokens
    decode = load.completion_tokens * _token_ms(load, profile, objective)
    return round(_MICROSECONDS_PER_MS * _prefill_ms(load, profile)), round(_MICROSECONDS_PER_MS * decode)


def weighted_tokens(loads: Mapping[_Key, Load]) -> dict[_Key, int]:
    """Work by group where there is no profile."""
    return {key: load.prompt_tokens + COMPLETION_WEIGHT * load.completion_tokens for key, load in loads.items()}


def _prefill_ms(load: Load, profile: LatencyProfile) -> float:
    return load.requests * profile.prefill_ms(load.prompt_tokens / load.requests) if load.requests else 0.0


def _token_ms(whole: Load, profile: LatencyProfile, objective: Objective) -> float:
    """What one completion token takes of a replica at capacity."""
    if not whole.requests or not whole.completion_tokens:
        return 0.0
    mix = Mix.of_means(whole.prompt_tokens / whole.requests, whole.completion_tokens / whole.requests)
    batch = capacity(profile, objective, mix)[1]
    return profile.step_ms(batch, batch * mix.context) / batch
