"""Zones that alternate between up and down, with shocks that several of them share, and batches of single losses.

Each zone has runs of its own, up and down in turn (a semi-Markov process). A shock is a process of the same kind that
lies over a region, or over everything: when it strikes, it hits each zone with the zone's own probability, and a zone
that is hit is down as long as the shock lasts. A zone is up while neither its own process nor a shock holds it down.
When it goes down, all that runs there is taken at once. Besides, while up, a zone may lose a batch of single nodes,
whose room comes back after a while.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from swell.simulator.spot.market import NOTICE_SECONDS, SpotEvent, SpotEventKind, Timeline
from swell.simulator.spot.runs import Runs

_SETTLING_CYCLES = 100  # before the replay begins, so that it begins anywhere in a run
_MAX_RUNS = 5_000_000

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone (of one accelerator type) as the market knows it."""

    name: str  # a pool's zone, or its name
    region: str
    up: Runs
    down: Runs
    nodes: int = 16  # replicas that it has room for when up
    batches_per_hour: float = 0.0  # losses of single nodes while it stays up
    batch_nodes: float = 2.0  # the mean of such a loss, at least 1

    def __post_init__(self) -> None:
        if self.nodes < 1 or self.batch_nodes < 1 or self.batches_per_hour < 0:
            raise ValueError(
                f"zone {self.name}: nodes and batch_nodes are at least 1, batches_per_hour is not negative"
            )

    @property
    def availability(self) -> float:
        """The share of time that it is up."""
        return self.up.mean_seconds / (self.up.mean_seconds + self.down.mean_seconds)

    @property
    def cycle_seconds(self) -> float:
        """From one loss to the next, on average."""
        return self.up.mean_seconds + self.down.mean_seconds

    @property
    def hazard_per_hour(self) -> float:
        """Expected preemptions of one replica in an hour, for plans: of the whole zone, and its share in batches."""
        return 3600 / self.up.mean_seconds + self.batches_per_hour * min(1.0, self.batch_nodes / self.nodes)


@dataclass(frozen=True, slots=True)
class Shock:
    """What takes zones down together. `hits` is the chance of each zone to be hit when it strikes."""

    calm: Runs
    storm: Runs
    hits: Mapping[str, float] = field(default_factory=dict)


def semi_markov_market(
    zones: Sequence[Zone],
    *,
    seed: int,
    horizon_seconds: float,
    shocks: Sequence[Shock] = (),
    notice_seconds: float = NOTICE_SECONDS,
) -> Timeline:
    """A market over `horizon_seconds`; afterwards nothing changes any more. Equal arguments give equal events.

    `zones` are the zones' own runs: with shocks, take both from `couple`, which makes the whole come out as wanted.
    """
    if len({zone.name for zone in zones}) < len(zones):
        raise ValueError("the zones of a spot market must have different names")
    if not 0 < horizon_seconds < np.inf:
        raise ValueError("horizon_seconds must be positive and finite")
    # One stream of random numbers per zone and per shock: adding one leaves the others as they were.
    seeds = np.random.SeedSequence(seed)
    zone_seeds, shock_seeds, batch_seeds = (parent.spawn(max(len(zones), len(shocks))) for parent in seeds.spawn(3))
    downs = {
        zone.name: [_down_intervals(zone.up, zone.down, np.random.default_rng(own), horizon_seconds)]
        for zone, own in zip(zones, zone_seeds, strict=False)
    }
    for shock, own in zip(shocks, shock_seeds, strict=False):
        _strike(shock, np.random.default_rng(own), horizon_seconds, downs)
    events: list[tuple[float, int, int, SpotEvent]] = []
    for order, (zone, own) in enumerate(zip(zones, batch_seeds, strict=False)):
        times, capacity = _capacity(zone, downs[zone.name], np.random.default_rng(own), horizon_seconds)
        events += [(e.at, order, step, e) for step, e in enumerate(_events(zone.name, times, capacity))]
    events.sort(key=lambda entry: entry[:3])
    return Timeline((zone.name for zone in zones), (entry[3] for entry in events), notice_seconds)


def _down_intervals(up: Runs, down: Runs, random: np.random.Generator, horizon: float) -> tuple[_Floats, _Floats]:
    """(starts, ends) of down runs that touch the time from 0 to `horizon`, in order."""
    settling = _SETTLING_CYCLES * (up.mean_seconds + down.mean_seconds)
    block = int((settling + horizon) / (up.mean_seconds + down.mean_seconds) * 1.2) + 16
    ends: list[_Floats] = []
    starts: list[_Floats] = []
    at, drawn = -settling, 0
    while at < horizon:
        drawn += block
        if drawn > _MAX_RUNS:
            raise ValueError(f"over {_MAX_RUNS} spot runs; give longer runs or a shorter horizon")
        ups, lows = up.draw(random, block), down.draw(random, block)
        ended = at + np.cumsum(ups + lows)
        starts.append(ended - lows)
        ends.append(ended)
        at = float(ended[-1])
    start, end = np.concatenate(starts), np.concatenate(ends)
    touching = (end > 0) & (start < horizon)
    return start[touching], end[touching]


def _strike(
    shock: Shock, random: np.random.Generator, horizon: float, downs: Mapping[str, list[tuple[_Floats, _Floats]]]
) -> None:
    start, end = _down_intervals(shock.calm, shock.storm, random, horizon)
    for name, chance in shock.hits.items():
        hit = random.random(len(start)) < chance
        downs[name].append((start[hit], end[hit]))


def _capacity(
    zone: Zone, downs: Iterable[tuple[_Floats, _Floats]], random: np.random.Generator, horizon: float
) -> tuple[_Floats, NDArray[np.int64]]:
    """Capacity as a step function: (times, nodes from each time on), beginning at 0."""
    start = np.concatenate([interval[0] for interval in downs])
    end = np.concatenate([interval[1] for interval in downs])
    batch_start, batch_end, batch_nodes = _batches(zone, random, horizon)
    times = np.concatenate([start, end, batch_start, batch_end])
    covers = np.concatenate([np.ones(len(start)), -np.ones(len(end)), np.zeros(2 * len(batch_start))])
    missing = np.concatenate([np.zeros(len(start) + len(end)), batch_nodes, -batch_nodes])
    order = np.argsort(times, kind="stable")
    times, covers, missing = times[order], np.cumsum(covers[order]), np.cumsum(missing[order])
    nodes = np.where(covers > 0.5, 0, np.maximum(0, zone.nodes - missing)).astype(np.int64)
    before = np.searchsorted(times, 0.0, side="right") - 1
    first = nodes[before] if before >= 0 else zone.nodes
    inside = (times > 0) & (times < horizon)
    times, nodes = np.concatenate([[0.0], times[inside]]), np.concatenate([[first], nodes[inside]])
    last_of_moment = np.append(np.diff(times) > 0, True)
    return times[last_of_moment], nodes[last_of_moment]


def _batches(zone: Zone, random: np.random.Generator, horizon: float) -> tuple[_Floats, _Floats, _Floats]:
    count = int(random.poisson(zone.batches_per_hour * horizon / 3600))
    start = np.sort(random.uniform(0, horizon, count))
    nodes = np.minimum(zone.nodes, random.geometric(1 / zone.batch_nodes, count)).astype(np.float64)
    return start, start + zone.down.draw(random, count), nodes


def _events(zone: str, times: _Floats, capacity: NDArray[np.int64]) -> Iterable[SpotEvent]:
    changes = np.diff(capacity, prepend=0)
    for at, change in zip(times.tolist(), changes.tolist(), strict=True):
        if change > 0:
            yield SpotEvent(at, zone, SpotEventKind.UP, change)
        elif change < 0:
            yield SpotEvent(at, zone, SpotEventKind.DOWN, -change)
            yield SpotEvent(at, zone, SpotEventKind.KILL, -change)
