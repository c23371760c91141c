"""The load loop of NVIDIA Dynamo's planner: one replica more or fewer, by each worker's estimated latency.

Up where every worker is over the objective. Down only where every worker would stay below 80 % of what the objective
leaves, with the load of n spread over n - 1. Estimates are the latency profile's for what a worker has now; requests
in the gateway's queue are shared out evenly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from swell.state.scaling import LatencyProfile, Objective, ReplicaView

DOWN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Estimate:
    """One worker's latency for the next request, in milliseconds."""

    queue_ms: float
    itl_ms: float
    kv: float  # share of its KV cache


def load_step(
    workers: Sequence[ReplicaView],
    queued: int,
    profile: LatencyProfile,
    objective: Objective,
    lengths: tuple[float, float],
) -> tuple[int, str]:
    """(+1, 0 or -1; why). `lengths` are the mean prompt and output, `queued` waits in the gateway."""
    count = len(workers)
    prompt = lengths[0]
    own_ms = profile.prefill_ms(prompt)
    ttft_ms = objective.ttft_limit_ms(prompt, profile)
    now = [estimate(worker, queued / count, profile, prompt) for worker in workers]
    if all(each.queue_ms + own_ms > ttft_ms for each in now):
        return 1, f"every worker's first token takes more than {ttft_ms:.0f} ms"
    if all(each.itl_ms > objective.itl_ms for each in now):
        return 1, f"every worker's token takes more than {objective.itl_ms:.0f} ms"
    if count < 2:
        return 0, "a single worker stays"
    more = count / (count - 1)
    spread = [estimate(worker, queued / count, profile, prompt, more) for worker in workers]
    fits = all(
        each.queue_ms < DOWN_SHARE * (ttft_ms - own_ms) and each.itl_ms < DOWN_SHARE * objective.itl_ms and each.kv <= 1
        for each in spread
    )
    return (-1, f"{count - 1} workers would stay below 80 % of the objective") if fits else (0, "inside the objective")


def estimate(worker: ReplicaView, queued: float, profile: LatencyProfile, prompt: float, more: float = 1.0) -> Estimate:
    """For a worker with `more` times its load."""
    running = max(1.0, (worker.in_flight - worker.waiting) * more)
    kv = worker.kv_used * more
    return Estimate(
        queue_ms=(worker.waiting + queued) * more * profile.prefill_ms(prompt),
        itl_ms=profile.step_ms(running, kv * profile.kv_tokens),
        kv=kv,
    )
