"""What one replica can carry inside the objective, from its latency profile and the lengths of requests. Pure.

A replica decodes a batch of B requests and is interrupted by prompts. With r requests a second, prompts that take P
seconds each, o output tokens each and decode steps of s(B) seconds: prompts take the share r·P of the time, a token
comes every s(B) / (1 - r·P) seconds, and a batch of B yields r·o = B·(1 - r·P) / s(B) tokens a second. Hence

    r(B) = B / (o·s(B) + B·P)        ITL(B) = s(B) / (1 - r(B)·P)

Both rise with B. The capacity is r of the largest B whose ITL is inside the objective, whose contexts fit into the KV
cache, and that the engine allows. 1 / r are the replica-seconds that a request takes.
"""

from dataclasses import dataclass
from math import erfc, log, sqrt

from swell.state.scaling import LatencyProfile, LengthSums, Objective


@dataclass(frozen=True, slots=True)
class Mix:
    """Mean lengths of requests. `context` is the mean context of an output token: prompt and output before it."""

    prompt: float
    output: float
    prompt2: float  # mean of squares
    context: float

    @classmethod
    def of_means(cls, prompt: float, output: float) -> "Mix":
        """As if all requests were alike."""
        return cls(prompt, output, prompt * prompt, prompt + output / 2)

    @classmethod
    def of_sums(cls, sums: LengthSums) -> "Mix | None":
        """Of observed requests; None where there are none."""
        if sums.count < 1 or sums.o <= 0:
            return None
        return cls(sums.n / sums.count, sums.o / sums.count, sums.n2 / sums.count, (sums.no + sums.o2 / 2) / sums.o)


def batch_limit(profile: LatencyProfile, objective: Objective, mean_context: float) -> int:
    """The largest batch that decodes inside the ITL objective, undisturbed by prompts; at least 1."""
    per_sequence = profile.step_ms_per_sequence + profile.step_ms_per_context_token * mean_context
    by_time = (objective.itl_ms - profile.step_fixed_ms) / per_sequence if per_sequence > 0 else profile.max_sequences
    by_memory = profile.kv_tokens / max(1.0, mean_context)
    return max(1, int(min(by_time, by_memory, profile.max_sequences)))


CHUNK_SHARE = 0.6  # of the ITL objective that the prompt part of one engine step may take
FEWEST_CHUNK_TOKENS = 256


def chunk_limit(profile: LatencyProfile, objective: Objective) -> int:
    """Prompt tokens in one engine step, so that a step with prompts in it stays inside the ITL objective.

    What Swell sets when it launches an engine (vLLM's `--max-num-batched-tokens`), and what the simulator assumes for
    every policy alike. Larger chunks would delay every running sequence by more than the objective allows.
    """
    if profile.prefill_ms_per_token <= 0:
        return profile.chunk_tokens
    fits = (CHUNK_SHARE * objective.itl_ms - profile.prefill_fixed_ms) / profile.prefill_ms_per_token
    return int(max(FEWEST_CHUNK_TOKENS, min(profile.chunk_tokens, fits)))


def capacity(profile: LatencyProfile, objective: Objective, mix: Mix) -> tuple[float, int]:
    """(requests a second of one replica inside the objective, the batch that carries them)."""
    prompt_seconds = _prompt_ms(profile, mix) / 1000
    low, high = 1, batch_limit(profile, objective, mix.context)
    while low < high:  # ITL rises with the batch: find the last one that is inside
        middle = (low + high + 1) // 2
        if _itl_ms(profile, mix, prompt_seconds, middle) <= objective.itl_ms:
            low = middle
        else:
            high = middle - 1
    return _rate(profile, mix, prompt_seconds, low), low


def longest_prompt(
    profile: LatencyProfile, objective: Objective, output: float, reference: LatencyProfile | None = None
) -> int:
    """The longest prompt that an idle replica answers inside the objective, with `output` tokens to follow; 0 if none.

    Where the objective counts beyond the prompt's own processing, that of the `reference` counts.
    """

    def serves(prompt: int) -> bool:
        fits = prompt + output <= profile.kv_tokens
        in_time = profile.prefill_ms(prompt) <= objective.ttft_limit_ms(prompt, reference or profile)
        return fits and in_time and profile.step_ms(1, prompt) <= objective.itl_ms

    low, high = 0, profile.kv_tokens
    while low < high:  # the longer, the slower
        middle = (low + high + 1) // 2
        low, high = (middle, high) if serves(middle) else (low, middle - 1)
    return low


def longer_share(mix: Mix, prompt_tokens: float) -> float:
    """The share of prompts that are longer, if their lengths are log-normal with the mix's first two moments."""
    if prompt_tokens <= 0:
        return 1.0
    spread = log(max(1.0, mix.prompt2 / max(mix.prompt, 1.0) ** 2))
    if spread < 1e-9:
        return float(mix.prompt > prompt_tokens)
    return erfc((log(prompt_tokens / max(mix.prompt, 1.0)) + spread / 2) / sqrt(2 * spread)) / 2


def requests_per_second(profile: LatencyProfile, objective: Objective, mean_prompt: float, mean_output: float) -> float:
    """The largest rate that one replica carries inside the objective, for requests that are all alike."""
    return capacity(profile, objective, Mix.of_means(mean_prompt, mean_output))[0]


def replica_seconds(profile: LatencyProfile, objective: Objective, mean_prompt: float, mean_output: float) -> float:
    """What one request takes of a replica that is used up to its capacity."""
    return 1 / requests_per_second(profile, objective, mean_prompt, mean_output)


def _prompt_ms(profile: LatencyProfile, mix: Mix) -> float:
    return (
        profile.prefill_fixed_ms
        + profile.prefill_ms_per_token * mix.prompt
        + profile.prefill_ms_per_token2 * mix.prompt2
    )


def throughput(profile: LatencyProfile, mix: Mix, in_flight: float) -> float:
    """Requests a second that one replica ends while it has `in_flight` at a time, on average; not a whole number."""
    return _rate(profile, mix, _prompt_ms(profile, mix) / 1000, in_flight)


def _rate(profile: LatencyProfile, mix: Mix, prompt_seconds: float, batch: float) -> float:
    running = max(1.0, batch)  # where less than one runs on average, one runs for a part of the time
    step_seconds = profile.step_ms(running, running * mix.context) / 1000
    return batch / (mix.output * step_seconds + running * prompt_seconds)


def _itl_ms(profile: LatencyProfile, mix: Mix, prompt_seconds: float, batch: int) -> float:
    idle_share = 1 - _rate(profile, mix, prompt_seconds, batch) * prompt_seconds
    return profile.step_ms(batch, batch * mix.context) / max(idle_share, 1e-9)
