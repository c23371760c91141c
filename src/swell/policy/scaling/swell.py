"""Swell's own scaling policy. Pure: settings, memory and an observation in; a decision and the next memory out.

1. Demand, in replicas: the work that arrived, by the capacity model and the current mix of lengths.
2. Its forecast quantile over the time that a start takes (`forecast`).
3. Backlog: what waits, and what runs beyond what the fleet can carry, must be worked off as well (the override).
4. What runs must fit: as many replicas as hold it in batches inside the objective (can one less carry it?).
5. Up at once, replicas that start count. Down only to what was needed at any moment of the release time, a share of the
   time a start takes: letting go of a replica and ordering it again costs as much as keeping it so long (ski rental).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.forecast import ForecastMemory, forecast, observe, observe_season
from swell.state.scaling import Decision, LengthSums, Objective, Observation, Option, Pool, Window

if TYPE_CHECKING:
    from swell.policy.scaling.mix import Mixer
    from swell.policy.scaling.placement_problem import PlacementRules

MIX_SECONDS = 1800.0  # how fast the mix of lengths is forgotten
LEARN_EVERY_SECONDS = 30.0
FULL_SHARE = 0.9  # of the batches that the objective allows, from which a fleet counts as full
QUANTILE = 0.98  # of demand over the start-up time, for an attainment of 0.99
_LONG_AGO = 1e18
_NEVER = 1e9  # seconds
_UNBOUNDED = 1_000_000  # replicas
ROUNDING = 0.15  # of a replica that is not worth another one: the rest carries it inside its margin
RELEASE_SHARE = 1.0  # of the time that a start takes, for which what was needed is kept


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """One model's scaling. `headroom` multiplies the forecast; 1 is what the objective asks for."""

    pool: Pool
    objective: Objective
    min_replicas: int = 0
    max_replicas: int = 10_000
    interval_seconds: float = 10.0
    idle_seconds: float = 300.0  # without any request, before the last replica goes
    headroom: float = 1.0
    quantile: float = QUANTILE


@dataclass(frozen=True, slots=True)
class ScalingMemory:
    """What the policy remembers between two decisions."""

    forecast: ForecastMemory = field(default_factory=ForecastMemory)
    mix: LengthSums = field(default_factory=LengthSums)
    needed: tuple[tuple[float, int], ...] = ()  # (time, replicas), a falling sequence: the maxima still in force
    learnt_at: float = -_LONG_AGO
    busy_at: float = -_LONG_AGO  # when a request was last seen
    target: int = -1


@dataclass(frozen=True, slots=True)
class _Need:
    replicas: int
    binding: str
    reason: str
    inputs: tuple[tuple[str, float], ...]


def decide(settings: ScalingSettings, memory: ScalingMemory, seen: Observation) -> tuple[Decision, ScalingMemory]:
    """How many replicas there shall be from now on."""
    present = seen.present
    if seen.window is None:
        return _hold(settings, seen, max(present, settings.min_replicas), "nothing was observed"), memory
    window = seen.window
    memory = replace(memory, mix=_mixed(memory.mix, window))
    if window.arrivals or window.queued or window.in_flight:
        memory = replace(memory, busy_at=seen.now)
    mix = Mix.of_sums(memory.mix) or _first_mix(window)
    rate, batch = capacity(settings.pool.profile, settings.objective, mix)
    need, memory = _need(settings, memory, seen, window, mix, rate, batch)
    target, binding, memory = _release(settings, memory, seen, need)
    bounded = min(max(target, settings.min_replicas), settings.max_replicas)
    if bounded < target:
        binding = "ceiling"
    elif bounded > target:
        binding = "floor"
    memory = replace(memory, target=bounded)
    if bounded == present:
        decision = _hold(settings, seen, bounded, need.reason, binding, need.inputs)
    else:
        verb = "up" if bounded > present else "down"
        reason = f"{verb} from {present} to {bounded}: {need.reason}"
        decision = Decision(
            seen.now, ((settings.pool.name, bounded),), reason, binding, inputs=need.inputs,
            rejected=_rejected(need, bounded, present),
        )  # fmt: skip
    return decision, memory


def _need(
    settings: ScalingSettings,
    memory: ScalingMemory,
    seen: Observation,
    window: Window,
    mix: Mix,
    rate: float,
    batch: int,
) -> tuple[_Need, ScalingMemory]:
    """Replicas needed now and until a start would be over, without regard to what there is."""
    demand = _demand(settings, window, mix, rate)
    clock = seen.now_unix if seen.now_unix is not None else seen.now
    learns = seen.now - memory.learnt_at >= LEARN_EVERY_SECONDS
    known = observe_season(observe(memory.forecast, seen.now, demand, settings.quantile), clock, demand)
    horizon = settings.pool.start_seconds + settings.interval_seconds
    expected, known = forecast(known, seen.now, horizon, clock, settings.quantile, pend=learns)
    memory = replace(memory, forecast=known, learnt_at=seen.now if learns else memory.learnt_at)
    wanted = expected.value * settings.headroom
    replicas = _round_up(wanted)
    binding = "forecast"
    reason = f"{expected.winner} forecast of {expected.value:.2f} replicas over {horizon:.0f} s"
    backlog = _backlog(settings, seen, window, rate, batch)
    if backlog and (total := _round_up(expected.level * settings.headroom + backlog)) > replicas:
        replicas, binding = total, "backlog"
        reason = f"{window.queued} requests wait and {window.in_flight} run; {backlog:.2f} replicas to catch up"
    if (running := _round_up(window.in_flight / (batch * FULL_SHARE))) > replicas:
        replicas, binding = running, "running"
        reason = f"{window.in_flight} requests run, and a replica holds {batch} inside the objective"
    quiet = seen.now - memory.busy_at
    if quiet >= settings.idle_seconds or not replicas:
        replicas, binding = (0 if quiet >= settings.idle_seconds else 1), "idle"
        reason = f"no request for {quiet:.0f} s" if quiet < _NEVER else "no request yet"
        if not replicas:  # the next request begins anew: what was before it says nothing about how many follow
            memory = replace(memory, forecast=replace(memory.forecast, samples=(), mean=0.0))
    inputs = (
        ("demand", demand), ("level", expected.level), ("forecast", expected.value), ("margin", expected.margin),
        ("requests_per_second_per_replica", rate), ("batch", float(batch)), ("queued", float(window.queued)),
        ("in_flight", float(window.in_flight)), ("mean_prompt", mix.prompt), ("mean_output", mix.output),
    )  # fmt: skip
    return _Need(replicas, binding, reason, inputs), memory


def _demand(settings: ScalingSettings, window: Window, mix: Mix, rate: float) -> float:
    """Replicas that the arrivals of the window would keep busy: prompts as they came, outputs as they usually are."""
    profile = settings.pool.profile
    prompt_seconds = (
        profile.prefill_fixed_ms
        + profile.prefill_ms_per_token * mix.prompt
        + profile.prefill_ms_per_token2 * mix.prompt2
    ) / 1000
    per_prompt_token = prompt_seconds / max(1.0, mix.prompt)
    output_seconds = max(0.0, 1 / rate - prompt_seconds)
    work = window.arrived_prompt_tokens * per_prompt_token + window.arrivals * output_seconds
    # A turn that was woken early has a short window: one request in it is no flood.
    return work / max(window.seconds, settings.interval_seconds)


def _backlog(settings: ScalingSettings, seen: Observation, window: Window, rate: float, batch: int) -> float:
    """Replicas beyond the running demand that are needed to work off what waits, by the time that a start takes."""
    full = max(1, seen.ready) * batch * FULL_SHARE
    excess = window.queued + max(0.0, window.in_flight - full)
    return excess / rate / (settings.pool.start_seconds + settings.interval_seconds)


def _release(
    settings: ScalingSettings, memory: ScalingMemory, seen: Observation, need: _Need
) -> tuple[int, str, ScalingMemory]:
    """Up at once; down to the most that was needed within the release time."""
    since = seen.now - RELEASE_SHARE * settings.pool.start_seconds
    kept = tuple((at, count) for at, count in memory.needed if at > since and count > need.replicas)
    memory = replace(memory, needed=(*kept, (seen.now, need.replicas)))
    most = memory.needed[0][1]
    return most, need.binding if most == need.replicas else "release", memory


def _mixed(sums: LengthSums, window: Window) -> LengthSums:
    if not window.completed.count:
        return sums
    total = sums + window.completed
    keep = max(0.0, 1 - window.seconds / MIX_SECONDS)
    return total if sums.count < 100 else sums.scaled(keep) + window.completed


def _first_mix(window: Window) -> Mix:
    prompt = window.arrived_prompt_tokens / window.arrivals if window.arrivals else 512.0
    return Mix.of_means(max(1.0, prompt), 256.0)


def _round_up(replicas: float) -> int:
    return ceil(replicas - ROUNDING) if replicas > ROUNDING else (1 if replicas > 0 else 0)


def _hold(
    settings: ScalingSettings, seen: Observation, count: int, reason: str, binding: str = "hold",
    inputs: tuple[tuple[str, float], ...] = (),
) -> Decision:  # fmt: skip
    return Decision(seen.now, ((settings.pool.name, count),), reason, binding, is_hold=True, inputs=inputs)


def _rejected(need: _Need, chosen: int, present: int) -> tuple[Option, ...]:
    options = []
    if chosen > need.replicas:
        options.append(Option(need.replicas, "needed just now, but more was needed within the last release time"))
    if chosen != present:
        options.append(Option(present, "what there is"))
    return tuple(options)


class SwellScaler:
    """`ports.scaler.Scaler`: the policy with its memory. With several pools, the mix of them as well."""

    def __init__(
        self,
        pools: Mapping[str, Pool],
        objective: Objective,
        min_replicas: int = 0,
        max_replicas: int = 10_000,
        *,
        interval_seconds: float = 10.0,
        idle_seconds: float = 300.0,
        headroom: float = 1.0,
        quantile: float = QUANTILE,
        rules: "PlacementRules | None" = None,
        memory: ScalingMemory | None = None,
    ) -> None:
        """The need is counted in replicas of the first pool; `rules` say how several may be mixed."""
        pool = next(iter(pools.values()))
        is_one = len(pools) == 1 and (rules is None or rules.usd_per_hour is None)
        # Of several pools, bounds count replicas of any size: the mix keeps them, in the need they would mean nothing.
        low, high = (min_replicas, max_replicas) if is_one else (0, _UNBOUNDED)
        self.settings = ScalingSettings(pool, objective, low, high, interval_seconds, idle_seconds, headroom, quantile)
        self.memory = memory or ScalingMemory()
        self._mixer = None if is_one else _mixer(tuple(pools.values()), objective, rules, min_replicas, max_replicas)

    @property
    def interval_seconds(self) -> float:
        return self.settings.interval_seconds

    def decide(self, seen: Observation) -> Decision:
        mixer = self._mixer
        if mixer is None:
            decision, self.memory = decide(self.settings, self.memory, seen)
            return decision
        lengths = Mix.of_sums(self.memory.mix) or (_first_mix(seen.window) if seen.window else Mix.of_means(512, 256))
        asked, self.memory = decide(self.settings, self.memory, mixer.in_reference(seen, lengths))
        return mixer.decide(seen, asked, lengths)


def _mixer(
    pools: tuple[Pool, ...], objective: Objective, rules: "PlacementRules | None", least: int, most: int
) -> "Mixer":
    from swell.policy.scaling.mix import Mixer  # late: one pool needs no solver and no NumPy

    return Mixer(pools, objective, rules, least, most)
