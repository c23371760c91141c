"""Swell's own scaling policy. Pure: settings, memory and an observation in; a decision and the next memory out.

1. Demand: what is in the system, in replicas by the capacity model; what arrives, where the fleet is full (`demand`).
2. Its forecast quantile over the time that a start takes (`forecast`).
3. Backlog: what waits, and what runs beyond what the fleet can carry, must be worked off as well (the override).
4. What runs must fit: as many replicas as hold it in batches inside the objective (can one less carry it?).
5. Caution: which quantile it takes for the attainment that was asked for is learnt from the requests that missed.
6. Where an infrastructure budget does not last: less caution, then fewer replicas (`thrift`), and never more than what
   is left pays for (`spending`).
7. Up at once, replicas that start count. Down only to what was needed at any moment of the release time, a share of the
   time a start takes: letting go of a replica and ordering it again costs as much as keeping it so long (ski rental).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil, exp, log
from typing import TYPE_CHECKING

from swell.policy.scaling.batch import BatchMemory, batch_need
from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.demand import demand_of
from swell.policy.scaling.forecast import (
    LEVEL_SECONDS,
    Forecast,
    ForecastMemory,
    at_quantile,
    forecast,
    observe,
    observe_season,
    rescaled,
)
from swell.policy.scaling.funded import capped, funded, funded_mix, rate_allowed
from swell.policy.scaling.thrift import RUNGS, UNBOUND_SECONDS, ThriftMemory, learn, ration
from swell.state.scaling import Decision, LengthSums, Market, Objective, Observation, Option, Pool, Window

if TYPE_CHECKING:
    from swell.policy.scaling.mix import Mixer
    from swell.policy.scaling.placement_problem import PlacementRules

YOUNG_SECONDS = 600.0  # of a service, while the lengths of its answers are being learnt
MIX_SECONDS = 1800.0  # how fast the mix of lengths is forgotten
FEWEST_COMPLETED = 100  # below that nothing is forgotten
FIRST_OUTPUT_TOKENS = 256.0  # of a request, until one was completed
UNDER_WAY = 3.0  # times what unfinished requests have of output, that they end with at most
LEARN_EVERY_SECONDS = 30.0
FULL_SHARE = 0.9  # of the batches that the objective allows, from which a fleet counts as full
UNCOVERED_PER_MISS = 2.0  # of the time that demand is over its quantile, half of the requests miss; until it is learnt
MOST_UNCOVERED = 0.5
CAUTION_RANGE = (0.25, 6.0)
MOST_MISSES = 30.0  # times as many as may, that a window counts at most: an outage is no lack of headroom
CAUTION_GAIN = 2.0  # added to it over a day in which twice as many requests missed as may
DAY_SECONDS = 86_400.0
_LONG_AGO = 1e18
_NEVER = 1e9  # seconds
_UNBOUNDED = 1_000_000  # replicas
ROUNDING = 0.15  # of a replica that is not worth another one: the rest carries it inside its margin
RELEASE_SHARE = 1.0  # of the time that a start takes, for which what was needed is kept
RELEASE_TURNS = 6  # for which it is kept at least, where a start takes no longer than a turn or two


@dataclass(frozen=True, slots=True)
class ScalingSettings:
    """One model's scaling. `caution` multiplies the logarithm of the share of time that demand may exceed its quantile;
    None: it begins at 1 and is learnt."""

    pool: Pool
    objective: Objective
    min_replicas: int = 0
    max_replicas: int = 10_000
    interval_seconds: float = 10.0
    idle_seconds: float = 300.0  # without any request, before the last replica goes
    caution: float | None = None
    headroom: float = (
        1.0  # caution is learnt for so many times fewer misses than the objective allows, and begins there
    )


@dataclass(frozen=True, slots=True)
class ScalingMemory:
    """What the policy remembers between two decisions."""

    forecast: ForecastMemory = field(default_factory=ForecastMemory)
    mix: LengthSums = field(default_factory=LengthSums)  # of completed requests
    decoded: float = 0.0  # output tokens produced in the same time, for requests that are not completed as well
    needed: tuple[tuple[float, int], ...] = ()  # (time, replicas), a falling sequence: the maxima still in force
    rate: float = 0.0  # requests a second of a replica, in the last turn
    learnt_at: float = -_LONG_AGO
    busy_at: float = -_LONG_AGO  # when a request was last seen
    caution: float = 1.0
    judged_per_second: float = 0.0  # over the last day
    judged_seconds: float = 0.0
    thrift: ThriftMemory = field(default_factory=ThriftMemory)
    batch: BatchMemory = field(default_factory=BatchMemory)


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
    memory = _see_lengths(memory, window)
    if seen.funding is None or seen.now - memory.thrift.bound_at >= UNBOUND_SECONDS:
        memory = _learn_caution(settings, memory, window)
    was_found = present and not memory.needed  # an earlier server may have served just now: idle from now on at most
    if was_found or window.arrivals or window.queued or window.in_flight:
        memory = replace(memory, busy_at=seen.now)
    mix = _mix(memory, window)
    rate, batch = capacity(settings.pool.profile, settings.objective, mix)
    need, memory = _need(settings, memory, seen, window, mix, rate, batch)
    target, binding, memory = _release(settings, memory, seen, need)
    bounded = min(max(target, settings.min_replicas), settings.max_replicas)
    if bounded < target:
        binding = "ceiling"
    elif bounded > target:
        binding = "floor"
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
    profile, interval = settings.pool.profile, settings.interval_seconds
    watched = memory.forecast.watched_seconds
    is_young = watched < LEVEL_SECONDS
    if watched < YOUNG_SECONDS and memory.rate:  # until lengths are known, what is learnt of them corrects the past
        memory = replace(memory, forecast=rescaled(memory.forecast, memory.rate / rate))
    memory = replace(memory, rate=rate)
    demand = demand_of(profile, seen, window, mix, rate, batch, interval, is_young=is_young)
    clock = seen.now_unix if seen.now_unix is not None else seen.now
    learns = seen.now - memory.learnt_at >= LEARN_EVERY_SECONDS
    quantile = quantile_for(settings.objective, _caution(settings, memory, seen))
    memory = replace(memory, forecast=replace(memory.forecast, grain=1 / batch))
    known = observe_season(observe(memory.forecast, seen.now, demand, quantile), clock, demand.mean)
    horizon = settings.pool.start_seconds + interval
    expected, known = forecast(known, seen.now, horizon, clock, quantile, pend=learns)
    value, level, margin = expected.value, expected.level, expected.margin
    memory = replace(memory, forecast=known, learnt_at=seen.now if learns else memory.learnt_at)
    present = seen.present
    replicas = _round_up(value, present)
    binding = "forecast"
    reason = f"{expected.winner} forecast of {value:.2f} replicas over {horizon:.0f} s"
    backlog = _backlog(settings, seen, window, rate, batch)
    if backlog and (total := _round_up(max(level, demand.mean) + backlog, present)) > replicas:
        replicas, binding = total, "backlog"
        reason = f"{window.queued} requests wait and {window.in_flight} run; {backlog:.2f} replicas to catch up"
    if (running := _round_up(window.in_flight / (batch * FULL_SHARE), present)) > replicas:
        replicas, binding = running, "running"
        reason = f"{window.in_flight} requests run, and a replica holds {batch} inside the objective"
    quiet = seen.now - memory.busy_at
    if quiet >= settings.idle_seconds or not replicas:
        replicas, binding = (0 if quiet >= settings.idle_seconds else 1), "idle"
        reason = f"no request for {quiet:.0f} s" if quiet < _NEVER else "no request yet"
        if not replicas:  # the next request begins anew: what was before it says nothing about how many follow
            memory = replace(memory, forecast=replace(memory.forecast, samples=(), mean=0.0))
    if seen.funding is not None:
        memory = _thrifty(settings, memory, seen, clock, expected, least=min(1, replicas))
    inputs = (
        ("demand", demand.mean), ("peak", demand.peak), ("level", level), ("forecast", value), ("margin", margin),
        ("requests_per_second_per_replica", rate), ("batch", float(batch)), ("queued", float(window.queued)),
        ("in_flight", float(window.in_flight)), ("mean_prompt", mix.prompt), ("mean_output", mix.output),
        ("quantile", quantile),
    )  # fmt: skip
    return _Need(replicas, binding, reason, inputs), memory


def quantile_for(objective: Objective, caution: float = 1.0) -> float:
    """Of demand over the time that a start takes, to be covered for the attainment that the objective asks for."""
    uncovered = min(MOST_UNCOVERED, UNCOVERED_PER_MISS * (1 - objective.attainment))
    return 1 - exp(caution * log(uncovered))


def _caution(settings: ScalingSettings, memory: ScalingMemory, seen: Observation) -> float:
    """The policy's own, less what a budget takes of it."""
    own = memory.caution if settings.caution is None else settings.caution
    return own if seen.funding is None else own * memory.thrift.ration.thrift


def _thrifty(
    settings: ScalingSettings, memory: ScalingMemory, seen: Observation, clock: float, expected: Forecast, *,
    least: int,
) -> ScalingMemory:  # fmt: skip
    """What is wanted with all caution and with less is learnt, and a ration made of it. `least`: 0 where all idle."""
    funding = seen.funding
    if funding is None:
        return memory
    own = memory.caution if settings.caution is None else settings.caution
    values = (
        at_quantile(memory.forecast, expected, quantile_for(settings.objective, own * rung)) if least else 0.0
        for rung in RUNGS
    )
    wants = tuple(float(max(least, _round_up(value, 0))) for value in values)
    price = funding.tariff.price(settings.pool.name)
    paid = funding.rate_usd_nanos / price if price and funding.funds else None
    thrift = learn(memory.thrift, seen.now, clock, wants, paid)
    thrift = ration(thrift, funding, seen.now, clock, price, settings.min_replicas, settings.max_replicas)
    return replace(memory, thrift=thrift)


def _learn_caution(settings: ScalingSettings, memory: ScalingMemory, window: Window) -> ScalingMemory:
    """More caution for every request that missed, less for every one that might have.

    The step is proportional to the difference, so that over the long run as many miss as may, whatever the traffic and
    however wrong the capacity model is (adaptive conformal inference, Gibbs and Candes 2021).
    """
    if settings.caution is not None or not window.judged or window.seconds <= 0:
        return memory
    seconds = memory.judged_seconds + window.seconds
    rate = memory.judged_per_second
    rate += (window.judged / window.seconds - rate) * min(1.0, window.seconds / min(seconds, DAY_SECONDS))
    allowed = (1 - settings.objective.attainment) / settings.headroom
    missed = min((window.judged - window.attained) / window.judged / allowed, MOST_MISSES)
    excess = (missed - 1) * window.judged / (rate * DAY_SECONDS)
    low, high = CAUTION_RANGE
    caution = min(high, max(low, memory.caution + CAUTION_GAIN * excess))
    return replace(memory, caution=caution, judged_per_second=rate, judged_seconds=seconds)


def _backlog(settings: ScalingSettings, seen: Observation, window: Window, rate: float, batch: int) -> float:
    """Replicas beyond the running demand that are needed to work off what waits, by the time that a start takes."""
    full = max(1, seen.ready) * batch * FULL_SHARE
    excess = window.queued + max(0.0, window.in_flight - full)
    return excess / rate / (settings.pool.start_seconds + settings.interval_seconds)


def _release(
    settings: ScalingSettings, memory: ScalingMemory, seen: Observation, need: _Need
) -> tuple[int, str, ScalingMemory]:
    """Up at once; down to the most that was needed within the release time."""
    keep = max(RELEASE_SHARE * settings.pool.start_seconds, RELEASE_TURNS * settings.interval_seconds)
    since = seen.now - keep
    if not memory.needed:  # somebody had a reason for what is there
        memory = replace(memory, needed=((seen.now, seen.present),))
    kept = tuple((at, count) for at, count in memory.needed if at > since and count > need.replicas)
    memory = replace(memory, needed=(*kept, (seen.now, need.replicas)))
    most = memory.needed[0][1]
    return most, need.binding if most == need.replicas else "release", memory


def _see_lengths(memory: ScalingMemory, window: Window) -> ScalingMemory:
    """Add what the window tells of lengths; what is older than half an hour fades."""
    keep = 1.0 if memory.mix.count < FEWEST_COMPLETED else max(0.0, 1 - window.seconds / MIX_SECONDS)
    mix = memory.mix if keep == 1.0 else memory.mix.scaled(keep)
    return replace(memory, mix=mix + window.completed, decoded=memory.decoded * keep + window.decoded_tokens)


def _mix(memory: ScalingMemory, window: Window) -> Mix:
    """Of the requests that arrive. Those completed so far are the short ones while a service is young.

    All tokens that were produced over the requests that were completed is the maximum-likelihood mean of lengths that
    are censored and exponential, and the plain mean once as many are completed as arrive. While next to none of long
    ones are completed it means little, so it is at most what it would be if those that run end at three times of what
    they have by now: twice is the truth on average, where all are alike; the third is for those that are not.
    """
    mix = Mix.of_sums(memory.mix)
    running = max(0.0, memory.decoded - memory.mix.o)  # tokens of requests that were not completed
    if mix is None:
        prompt = window.arrived_prompt_tokens / window.arrivals if window.arrivals else 512.0
        longest = UNDER_WAY * running / window.in_flight if window.in_flight else 0.0
        return Mix.of_means(max(1.0, prompt), max(FIRST_OUTPUT_TOKENS, longest))
    count = memory.mix.count
    longest = (memory.mix.o + UNDER_WAY * running) / (count + window.in_flight)
    unseen = max(0.0, min(running / count, longest - mix.output))
    return replace(mix, output=mix.output + unseen, context=mix.context + unseen / 2)


def _round_up(replicas: float, present: int) -> int:
    """Whole replicas for so many. A small part is not worth one more, but one that is there stays for it: else a steady
    demand just over a whole number would be followed up and down for ever."""
    if replicas <= 0:
        return 0
    least = max(1, ceil(replicas - ROUNDING))
    return max(least, min(present, ceil(replicas)))


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
        caution: float | None = None,
        headroom: float = 1.0,
        rules: "PlacementRules | None" = None,
        memory: ScalingMemory | None = None,
    ) -> None:
        """The need is counted in replicas of the first pool; `rules` say how several may be mixed.

        Where some are on spot, requests of priority batch wait for those (`batch`).
        """
        pool = next(iter(pools.values()))
        is_one = len(pools) == 1 and (rules is None or rules.usd_per_hour is None)
        # Of several pools, bounds count replicas of any size: the mix keeps them, in the need they would mean nothing.
        low, high = (min_replicas, max_replicas) if is_one else (0, _UNBOUNDED)
        if is_one and rules is not None and pool.market is Market.ON_DEMAND:
            low = min(high, max(low, rules.on_demand_base))
        self.settings = ScalingSettings(pool, objective, low, high, interval_seconds, idle_seconds, caution, headroom)
        self.memory = memory or ScalingMemory(caution=min(CAUTION_RANGE[1], max(CAUTION_RANGE[0], headroom)))
        self._batch_waits = any(each.market is Market.SPOT for each in pools.values())
        self._mixer = None if is_one else _mixer(tuple(pools.values()), objective, rules, min_replicas, max_replicas)

    @property
    def interval_seconds(self) -> float:
        return self.settings.interval_seconds

    def decide(self, seen: Observation) -> Decision:
        mixer, settings, memory = self._mixer, self.settings, self.memory
        bounds = settings.min_replicas, settings.max_replicas
        if mixer is None:
            asked, self.memory = decide(self.settings, self.memory, seen)
            return self._kept(funded(settings.pool, bounds, self.memory.thrift, seen, asked))
        need = 0.0
        if self._batch_waits and seen.window is not None:
            others = _mix(memory, seen.window)
            need, batch = batch_need(
                memory.batch, settings.pool.profile, settings.objective, seen.window.batch, others,
                settings.interval_seconds,
            )  # fmt: skip
            seen, self.memory = replace(seen, window=seen.window.of_others), replace(memory, batch=batch)
        lengths = _mix(self.memory, seen.window or Window(seen.now, 0.0))
        if not self.memory.mix.count:
            lengths = Mix.of_sums(self.memory.batch.mix) or lengths
        asked, self.memory = decide(settings, self.memory, mixer.in_reference(seen, lengths))
        thrift = self.memory.thrift
        asked = capped(settings.pool, bounds, thrift, seen, asked)
        found = mixer.decide(seen, asked, lengths, rate_allowed(thrift, seen, mixer.start_seconds), need)
        return self._kept(funded_mix(settings.pool, thrift, seen, asked, found))

    def _kept(self, found: tuple[Decision, ThriftMemory]) -> Decision:
        self.memory = replace(self.memory, thrift=found[1])
        return found[0]


def _mixer(
    pools: tuple[Pool, ...], objective: Objective, rules: "PlacementRules | None", least: int, most: int
) -> "Mixer":
    from swell.policy.scaling.mix import Mixer  # late: one pool needs no solver and no NumPy

    return Mixer(pools, objective, rules, least, most)
