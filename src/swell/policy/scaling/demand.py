"""What is asked of a model, in replicas that are used up to their capacity. Pure.

Two measures. What arrives is known at once, but not how long its outputs will be. What is in the system tells that as
well: by Little's law, as many are there as arrive in the time that one takes, and a replica that has b of them ends
r(b) a second (`capacity.throughput`), of the r(B) that it can. So a model that answers at greater length, or an engine
slower than its profile, shows where it matters. The fuller a fleet is, the less it says about what more would come: one
that is full shows but itself. So each measure counts by that share: what arrives by the share of the fleet that is
busy, what is in the system by the rest.
"""

from dataclasses import dataclass

from swell.policy.scaling.capacity import Mix, throughput
from swell.state.scaling import LatencyProfile, Observation, ReplicaState, Window


@dataclass(frozen=True, slots=True)
class Demand:
    """Replicas that one window asked for: on average, and at most."""

    mean: float
    peak: float


def demand_of(
    profile: LatencyProfile,
    seen: Observation,
    window: Window,
    mix: Mix,
    rate: float,
    batch: int,
    usual_seconds: float,
    *,
    is_young: bool = False,
) -> Demand:
    """Of one window. A replica carries `rate` requests a second, in a batch of `batch`.

    What is in the system says nothing where `is_young`, since requests have not had the time to become as many.
    """
    arriving = arrived(profile, window, mix, rate, usual_seconds)
    serving = seen.ready + sum(r.in_flight for r in seen.replicas if r.state is ReplicaState.DRAINING) / batch
    serving *= window.running_share
    now = float(window.in_flight + window.queued)
    mean = window.mean_in_flight or now
    if is_young or serving <= 0 or (not mean and window.arrivals):  # the last: nobody counted what is in the system
        return Demand(arriving, arriving)

    def used(in_system: float) -> float:
        each = in_system / serving
        if each > batch:
            return max(serving, min(in_system / batch, arriving))
        busy = throughput(profile, mix, each) / rate
        return (1 - busy) * serving * busy + busy * arriving

    usual = used(mean)
    return Demand(usual, max(usual, used(max(mean, now))))


def arrived(profile: LatencyProfile, window: Window, mix: Mix, rate: float, usual_seconds: float) -> float:
    """Replicas for what arrived: prompts as they came, outputs as they usually are."""
    prompt_seconds = (
        profile.prefill_fixed_ms
        + profile.prefill_ms_per_token * mix.prompt
        + profile.prefill_ms_per_token2 * mix.prompt2
    ) / 1000
    per_prompt_token = prompt_seconds / max(1.0, mix.prompt)
    output_seconds = max(0.0, 1 / rate - prompt_seconds)
    # A turn that was woken early has a short window: one request in it is no flood.
    seconds = max(window.seconds, usual_seconds)
    return (window.arrived_prompt_tokens * per_prompt_token + window.arrivals * output_seconds) / seconds
