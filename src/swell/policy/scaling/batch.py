"""What requests of priority batch need: work without a promise of time, so without a margin. Pure.

Where spot may be bought, they are kept out of the forecast: that covers a high quantile of demand over the time that a
start takes, and survives the loss of a zone, for the sake of those who are promised a time. Batch waits instead. In
replicas of the reference, with a the work that arrives on average over LEVEL_SECONDS and q the requests that wait,

    need = a + q / (rate · CATCH_UP_SECONDS)

so what runs is what arrives, and what has piled up is worked off in that time. How it is had is `mix_batch`.
"""

from dataclasses import dataclass, field, replace
from math import exp

from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.demand import arrived
from swell.state.scaling import LatencyProfile, LengthSums, Objective, Window

LEVEL_SECONDS = 1800.0  # over which the work that arrives is averaged
CATCH_UP_SECONDS = 300.0  # in which what waits is worked off: half of what the gateway usually lets batch wait
MIX_SECONDS = 1800.0  # how fast the mix of lengths is forgotten
FEWEST_COMPLETED = 100  # below that nothing is forgotten


@dataclass(frozen=True, slots=True)
class BatchMemory:
    """What is remembered of batch from one turn to the next."""

    mix: LengthSums = field(default_factory=LengthSums)  # of completed requests
    level: float = 0.0  # replicas, smoothed
    known: float = 0.0  # of the smoothing's weight: 1 once LEVEL_SECONDS have long passed


def batch_need(
    memory: BatchMemory,
    profile: LatencyProfile,
    objective: Objective,
    window: Window | None,
    others: Mix,
    usual_seconds: float,
) -> tuple[float, BatchMemory]:
    """Replicas of the reference that batch needs, not rounded. `others` are the lengths of other requests, which stand
    for its own until some are known. `window` is of batch alone; None: it asked for nothing."""
    seconds = usual_seconds if window is None else max(window.seconds, 0.0)
    if window is not None:
        keep = 1.0 if memory.mix.count < FEWEST_COMPLETED else max(0.0, 1 - seconds / MIX_SECONDS)
        memory = replace(memory, mix=memory.mix.scaled(keep) + window.completed)
    mix = Mix.of_sums(memory.mix) or others
    rate, batch = capacity(profile, objective, mix)
    fresh = 0.0 if window is None else arrived(profile, window, mix, rate, usual_seconds)
    share = 1 - exp(-seconds / LEVEL_SECONDS)
    level, known = memory.level + (fresh - memory.level) * share, memory.known + (1 - memory.known) * share
    memory = replace(memory, level=level, known=known)
    need = level / known if known else 0.0
    if window is None:
        return need, memory
    need += window.queued / rate / CATCH_UP_SECONDS
    running = min(1.0, (window.in_flight + window.queued) / batch)  # who is there is served, however quiet it is
    return max(need, running), memory
