"""What to buy for some traffic: the demand it makes, the cheapest mix for it, what that costs when it follows demand.

Demand is measured in ten-minute windows, and a window's work in what its requests cost where each is cheapest. The plan
is made for the window with the most; besides, windows are put into groups of equal size by their work and each group is
planned for its busiest window, which says what a fleet costs that follows demand. On every rate comes a headroom for
what happens inside ten minutes: 2.33 standard deviations (99 %) of the work that arrives in a minute, whose index of
dispersion D is measured in the trace, or 2 where only a rate is known (Poisson arrivals, lengths spread exponentially):

    headroom = 1 + 2.33 · sqrt(D / (60 s · rate))
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.placement import Bucket, Placement, PlacementInputs, PlacementRules, place
from swell.policy.scaling.placement_alternatives import machine
from swell.policy.scaling.placement_problem import seconds_of
from swell.policy.scaling.regions import region_of
from swell.simulator.silence import solver_is_silent
from swell.state.catalogue import plain_model
from swell.state.scaling import LatencyProfile, LengthSums, Market, Objective, Pool
from swell.state.traffic import Traffic

HOURS_PER_MONTH = 730.0
WINDOW_SECONDS = 600.0
GROUPS = 6
_PROMPT_QUANTILES = (0.5, 0.8, 0.95)  # long prompts are few and decide which machines will do
_POISSON_DISPERSION = 2.0
_DEVIATIONS = 2.33
_MOST_ZONES = 4  # of a machine: the cheapest, from several regions
_MOST_ZONES_PER_REGION = 2


@dataclass(frozen=True, slots=True)
class Level:
    """A part of the time, and what it asks for."""

    share: float  # of the time
    requests_per_second: float  # on average over its busiest window, without headroom
    headroom: float
    demand: tuple[Bucket, ...]  # with headroom


@dataclass(frozen=True, slots=True)
class ReplicaArithmetic:
    """Why one replica of a machine carries what it carries. Milliseconds; money per hour and per million requests."""

    machine: str
    usd_per_hour: float  # on demand, or the cheapest spot
    prefill_ms: float  # of the mean prompt
    batch: int  # the largest inside the objective
    step_ms: float  # one decode step of it
    itl_ms: float  # with prompts in between
    requests_per_second: float
    output_tokens_per_second: float
    usd_per_million_requests: float
    why_not: str = ""  # it cannot serve at all


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of `swell plan`."""

    levels: tuple[Level, ...]  # the busiest first
    placements: tuple[Placement, ...]  # of each level
    replicas: tuple[ReplicaArithmetic, ...]

    @property
    def peak(self) -> Placement:
        """For the busiest ten minutes."""
        return self.placements[0]

    @property
    def usd_per_hour(self) -> float:
        """A fleet for the busiest ten minutes, all the time, what preemptions cost included."""
        return _usd(self.peak)

    @property
    def following_usd_per_hour(self) -> float:
        """A fleet that follows demand."""
        pairs = zip(self.levels, self.placements, strict=True)
        return sum(level.share * _usd(placement) for level, placement in pairs)


def _usd(placement: Placement) -> float:
    return placement.usd_per_hour + placement.disruption_usd_per_hour


def plan(
    pools: Sequence[Pool],
    levels: Sequence[Level],
    objective: Objective,
    rules: PlacementRules,
    progress: Callable[[float], None] = lambda share: None,
) -> Plan:
    """The cheapest mix for every level; the busiest one with what was rejected. `progress` is told the share done.

    Raises UserError where nothing of the busiest level can be served.
    """
    lasting = replace(rules, hold_seconds=math.inf)  # a plan begins with nothing and stands for long: starts are free
    chosen = tuple(nearby(pools))
    placements = []
    for index, level in enumerate(levels):
        inputs = PlacementInputs(chosen, level.demand, objective, lasting)
        with solver_is_silent():
            placements.append(place(inputs, explain=index == 0))
        if index == 0:
            _refuse_what_serves_nothing(placements[0])
        progress((index + 1) / len(levels))
    return Plan(tuple(levels), tuple(placements), tuple(_arithmetic(chosen, levels[0], objective)))


def _refuse_what_serves_nothing(placement: Placement) -> None:
    """UserError where there is traffic, and none of it is served: a fleet of nothing for $0.00 would be no answer."""
    inputs, served = placement.inputs, dict(placement.served)
    wanted = [bucket for bucket in inputs.demand if bucket.requests_per_second > 0]
    if not wanted or any(served[bucket.name] > 0 for bucket in wanted):
        return
    pools = {machine(pool): pool for pool in reversed(inputs.pools)}
    largest = max(wanted, key=lambda bucket: bucket.requests_per_second)
    reasons = {
        name: why_not(pool.profile, inputs.objective, largest.mix)
        for name, pool in pools.items()
        if not math.isfinite(seconds_of(pool.profile, inputs.objective, largest.mix))
    }
    if len(reasons) == len(pools):
        said = "; ".join(f"on {name} {why}" for name, why in reasons.items())
        raise UserError(
            f"nothing can serve this inside the objective: {said}. Choose other --accelerators, or allow more with "
            "--ttft-ms and --itl-ms"
        )
    ceiling, least = inputs.rules.usd_per_hour, min(pool.usd_per_hour for pool in inputs.pools)
    if ceiling is not None:
        raise UserError(
            f"{ceiling:g} USD an hour buys nothing that serves this; the cheapest replica costs {least:.2f}. "
            "Raise --usd-per-hour"
        )
    raise UserError("nothing can serve this by these rules; relax --max-spot-fraction, or choose other --accelerators")


def nearby(pools: Sequence[Pool]) -> Iterator[Pool]:
    """On-demand pools, and of each machine's spot pools the cheapest in a few regions: more add next to nothing."""
    taken: dict[str, list[str]] = {}
    for pool in sorted(pools, key=lambda pool: (pool.market is Market.SPOT, pool.usd_per_hour)):
        regions = taken.setdefault(machine(pool), [])
        if pool.market is Market.SPOT:
            region = region_of(pool.zone)
            if len(regions) == _MOST_ZONES or regions.count(region) == _MOST_ZONES_PER_REGION:
                continue
            regions.append(region)
        yield pool


def level_of_rate(rate: float, prompt: float, output: float, headroom: float | None = None) -> Level:
    """A constant rate of requests that are all alike on average."""
    factor = _headroom(rate, _POISSON_DISPERSION) if headroom is None else headroom
    # Exponentially spread outputs: a token of a mean request has as many before it as the mean output.
    mix = Mix(prompt, output, prompt * prompt, prompt + output)
    return Level(1.0, rate, factor, (Bucket(f"{prompt:g} in, {output:g} out", rate * factor, mix),))


def levels_of_traffic(
    traffic: Traffic, pools: Sequence[Pool], objective: Objective, headroom: float | None = None
) -> list[Level]:
    """The busiest window first, then groups of windows, busiest first. A bucket of lengths has one mix throughout."""
    if len(traffic) < 2 or traffic.seconds <= 0:
        raise UserError("the trace holds fewer than two requests at different times; give a longer one, or --rate")
    prompt, output = traffic.prompt_tokens.astype(np.float64), traffic.output_tokens.astype(np.float64)
    masks = [(name, mask) for name, mask in _length_masks(prompt, output) if mask.any()]
    mixes = [_mix(prompt[mask], output[mask]) for _, mask in masks]
    usd = np.array([_least_usd(pools, objective, mix) for mix in mixes])
    windows = max(1, math.ceil(traffic.seconds / WINDOW_SECONDS - 0.1))  # a last piece of a window is no window
    seconds = min(WINDOW_SECONDS, traffic.seconds)
    at = np.minimum((traffic.arrival_seconds / WINDOW_SECONDS).astype(np.int64), windows - 1)
    counts = np.array([np.bincount(at[mask], minlength=windows) for _, mask in masks], dtype=np.float64)
    work = usd @ counts
    dispersion = _dispersion(traffic.arrival_seconds, prompt + output)
    order = np.argsort(-work, kind="stable")
    found = []
    for group in (order[:1], *(group for group in np.array_split(order[1:], GROUPS) if len(group))):
        # The mix of the whole group, as much of it as its busiest window works: that window's own mix is an accident.
        scale = float(work[group[0]]) / max(float(work[group].sum()), 1e-300) / seconds
        rates = counts[:, group].sum(axis=1) * scale
        rate = float(rates.sum())
        factor = _headroom(rate, dispersion) if headroom is None else headroom
        named = zip(masks, rates.tolist(), mixes, strict=True)
        demand = tuple(Bucket(name, factor * part, mix) for (name, _), part, mix in named)
        found.append(Level(len(group) / windows, rate, factor, demand))
    return found


def _least_usd(pools: Sequence[Pool], objective: Objective, mix: Mix) -> float:
    """What a request costs where it is cheapest; where nothing can serve it, as if a token took a millisecond."""
    costs = [pool.usd_per_hour / 3600 * seconds_of(pool.profile, objective, mix) for pool in pools]
    least = min(costs, default=math.inf)
    return least if math.isfinite(least) else (mix.prompt + mix.output) / 1000 / 3600


def _length_masks(prompt: NDArray[np.float64], output: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Buckets by length: four of prompts, each in two of outputs."""
    inner = sorted({float(edge) for edge in np.ceil(np.quantile(prompt, _PROMPT_QUANTILES)) + 1})
    half = float(np.median(output)) + 1
    for low, high in zip([1.0, *inner], [*inner, math.inf], strict=True):
        inside = (prompt >= low) & (prompt < high)
        text = f"{low:.0f}-{high - 1:.0f} in" if math.isfinite(high) else f"{low:.0f} in and more"
        yield f"{text}, under {half:.0f} out", inside & (output < half)
        yield f"{text}, {half:.0f} out and more", inside & (output >= half)


def _mix(prompt: NDArray[np.float64], output: NDArray[np.float64]) -> Mix:
    sums = LengthSums(
        len(prompt),
        float(prompt.sum()),
        float((prompt * prompt).sum()),
        float(output.sum()),
        float((output * output).sum()),
        float((prompt * output).sum()),
    )
    mix = Mix.of_sums(sums)
    return mix if mix is not None else Mix.of_means(1.0, 1.0)


def _dispersion(at: NDArray[np.float64], work: NDArray[np.float64]) -> float:
    """Of the work that arrives in a minute around its ten-minute mean, in requests; at least 1."""
    minutes = np.bincount((at / 60).astype(np.int64), weights=work)
    whole = len(minutes) // 10 * 10
    if whole < 10 or work.mean() <= 0:
        return _POISSON_DISPERSION
    tens = minutes[:whole].reshape(-1, 10)
    variance = float(tens.var(axis=1, ddof=1).mean()) / float(work.mean()) ** 2
    return max(1.0, variance / max(float(tens.mean()) / float(work.mean()), 1e-9))


def _headroom(rate: float, dispersion: float) -> float:
    return 1 + _DEVIATIONS * math.sqrt(dispersion / (60 * rate)) if rate > 0 else 1.0


def _arithmetic(pools: Sequence[Pool], level: Level, objective: Objective) -> Iterator[ReplicaArithmetic]:
    mix = _mean_mix(level.demand)
    by_machine: dict[str, Pool] = {}
    for pool in pools:
        by_machine.setdefault(machine(pool), pool)
    for name, pool in by_machine.items():
        profile = pool.profile
        rate, batch = capacity(profile, objective, mix)
        step = profile.step_ms(batch, batch * mix.context)
        # Prompts interrupt decoding a share of the time: the gap between two tokens grows by it.
        prefill = profile.prefill_ms(mix.prompt)
        itl = step / max(1e-9, 1 - rate * prefill / 1000)
        if not math.isfinite(seconds_of(profile, objective, mix)):
            rate, batch = 0.0, 1
        per_million = pool.usd_per_hour / 3600 / rate * 1e6 if rate > 0 else math.inf
        yield ReplicaArithmetic(
            name, pool.usd_per_hour, prefill, batch, step, itl, rate, rate * mix.output, per_million,
            "" if rate > 0 else why_not(profile, objective, mix),
        )  # fmt: skip


def why_not(profile: LatencyProfile, objective: Objective, mix: Mix) -> str:
    """Why a machine cannot serve a mix at all."""
    if mix.prompt + mix.output > profile.kv_tokens:
        return f"its KV cache holds {profile.kv_tokens} tokens, a request {mix.prompt + mix.output:.0f}"
    prefill, limit = profile.prefill_ms(mix.prompt), objective.ttft_limit_ms(mix.prompt, profile)
    if prefill > limit:
        return f"an unloaded prompt takes {prefill:.0f} ms, over the {limit:.0f} ms to the first token"
    step = profile.step_ms(1, mix.context)
    return f"an unloaded step takes {step:.0f} ms, over the {objective.itl_ms:g} ms between tokens"


def _mean_mix(demand: Sequence[Bucket]) -> Mix:
    total = sum(bucket.requests_per_second for bucket in demand)
    if total <= 0:
        return demand[0].mix if demand else Mix.of_means(1.0, 1.0)
    part = [bucket.requests_per_second / total for bucket in demand]
    prompt = sum(p * b.mix.prompt for p, b in zip(part, demand, strict=True))
    output = sum(p * b.mix.output for p, b in zip(part, demand, strict=True))
    prompt2 = sum(p * b.mix.prompt2 for p, b in zip(part, demand, strict=True))
    context = sum(p * b.mix.output * b.mix.context for p, b in zip(part, demand, strict=True)) / max(output, 1e-9)
    return Mix(prompt, output, prompt2, context)


def known_accelerators(model: str, profiles: Sequence[LatencyProfile], priced: Sequence[str]) -> list[str]:
    """Accelerators that the model has a profile for, at their smallest count, and that a price is listed for."""
    wanted, kinds = plain_model(model), {kind.casefold() for kind in priced}
    fits = [p for p in profiles if plain_model(p.model) == wanted and p.accelerator.casefold() in kinds]
    return list(dict.fromkeys(profile.accelerator for profile in fits))
