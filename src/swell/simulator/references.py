"""Scaling with hindsight, to set policies against. Nobody can run these live: they read the trace ahead.

`Planned` is the oracle: it replays an optimal plan, made for the knob's multiple of the least work, and orders each
replica so that it is ready when the plan wants it. `RateClairvoyant` knows the true rate and lengths of the ten minutes
it is in and of those that begin within the start-up time; beyond that, nothing. It sizes by the same model of a
replica's capacity as Swell, times the knob. The true optimum lies between the bound (see `bounds`) and the oracle.

Both keep what they will need again within the start-up time, since letting go and starting anew costs as much; and one
replica while requests are queued.
"""

from abc import ABC
from collections.abc import Mapping
from math import ceil

import numpy as np
from numpy.typing import NDArray

from swell.simulator.bounds.program import linear_bound
from swell.simulator.bounds.right_sizing import right_sizing
from swell.simulator.bounds.work import Array, work_replica_seconds
from swell.simulator.demand import replicas_filled
from swell.simulator.result import Scenario
from swell.state.scaling import Decision, LatencyProfile, Market, Objective, Observation, Pool
from swell.state.traffic import Traffic

INTERVAL_SECONDS = 30.0
PLAN_SLOT_SECONDS = 60.0
RATE_SLOT_SECONDS = 600.0
SHORTEST_SLOT_SECONDS = 60.0  # a trace's last slot, if shorter, belongs to the one before
ROUNDING = 1e-6  # of a replica; a solver's or a sum's own error needs no further replica

Counts = NDArray[np.int64]


class _Scheduled(ABC):
    """Replays counts over time, each ordered its start-up time ahead. After the last slot, the last one holds."""

    binding: str
    reason: str

    def __init__(self, scenario: Scenario, schedule: Mapping[str, Counts], slot_seconds: float) -> None:
        """`schedule` gives the replicas that serve in each slot, by pool; pools that it does not name get none."""
        self._scenario = scenario
        self._schedule = {pool.name: schedule.get(pool.name, np.zeros(1, dtype=np.int64)) for pool in scenario.pools}
        self._slot = slot_seconds

    @property
    def interval_seconds(self) -> float:
        """How often it wants to be asked."""
        return INTERVAL_SECONDS

    def decide(self, seen: Observation) -> Decision:
        """The most that the schedule wants from now until what is ordered next could be ready."""
        pools = self._scenario.pools
        wanted = {pool.name: self._most_until_ready(pool, seen.now) for pool in pools}
        total = sum(wanted.values())
        first = pools[0]
        is_queued = seen.window is not None and seen.window.queued > 0
        floor = max(self._scenario.min_replicas, int(is_queued))
        if total < floor:
            wanted[first.name] += floor - total
        excess = sum(wanted.values()) - self._scenario.max_replicas
        for pool in reversed(pools):
            taken = min(max(0, excess), wanted[pool.name])
            wanted[pool.name] -= taken
            excess -= taken
        there = {pool.name: sum(r.pool == pool.name for r in seen.replicas if r.state != "draining") for pool in pools}
        binding = "floor" if total < floor else self.binding
        return Decision(seen.now, tuple(wanted.items()), self.reason, binding, is_hold=there == wanted)

    def _most_until_ready(self, pool: Pool, now: float) -> int:
        counts = self._schedule[pool.name]
        first = min(int(now // self._slot), len(counts) - 1)
        # Whatever begins before an order of the next turn could be ready must be ordered in this one.
        end = ceil((now + pool.start_seconds + INTERVAL_SECONDS) / self._slot - 1e-9)
        return min(int(counts[first : max(first + 1, end)].max()), pool.max_replicas)


class Planned(_Scheduled):
    """The oracle. Its plan is the optimum for `knob` times the least work of every request."""

    binding = "plan"
    reason = "the plan made in full knowledge of the trace"

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        """`knob` (by default 1) multiplies the work to plan for: larger means more replicas."""
        headroom = _positive(knob)
        if len(scenario.pools) == 1:
            pool = scenario.pools[0]
            work = spread_work(scenario.traffic, pool.profile, scenario.objective, PLAN_SLOT_SECONDS)
            schedule = {pool.name: right_sizing(headroom * work, PLAN_SLOT_SECONDS, pool.start_seconds).plan}
        else:
            plan = linear_bound(scenario, PLAN_SLOT_SECONDS).plan
            schedule = _whole(scenario.pools, {name: headroom * counts for name, counts in plan.items()})
        super().__init__(scenario, schedule, PLAN_SLOT_SECONDS)


class RateClairvoyant(_Scheduled):
    """Knows the true rate and lengths of ten minutes at a time, for the start-up time ahead.

    It uses one pool: of those that nobody takes away, the one whose replicas carry the trace for least.
    """

    binding = "rate"
    reason = "what the true rate and lengths of ten minutes fill, for the start-up time ahead"

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        """`knob` (by default 1) multiplies the replicas that the rate fills: larger means more replicas."""
        headroom = _positive(knob)
        edges = _edges(scenario.traffic)
        lasting = [pool for pool in scenario.pools if pool.market is not Market.SPOT] or list(scenario.pools)
        filled = {
            pool.name: replicas_filled(scenario.traffic, pool.profile, scenario.objective, edges) for pool in lasting
        }
        pool = min(lasting, key=lambda each: float(filled[each.name].sum()) * each.usd_per_hour)
        counts = np.ceil(headroom * filled[pool.name] - ROUNDING).astype(np.int64)
        super().__init__(scenario, {pool.name: counts}, RATE_SLOT_SECONDS)


def spread_work(traffic: Traffic, profile: LatencyProfile, objective: Objective, slot_seconds: float) -> Array:
    """Replica-seconds per slot, where each request's work is spread evenly over the time its output takes.

    At the ITL limit, that is, which is how fast a full replica decodes. Planning for all of it at the arrival would
    take bursts for higher and shorter than they are.
    """
    work = work_replica_seconds(traffic, profile, objective)
    begin = traffic.arrival_seconds
    seconds = np.maximum(traffic.output_tokens * (objective.itl_ms / 1000), 1e-3)
    # A request is busy at work/seconds from begin to begin + seconds; the work done by t is a sum of two ramps.
    slots = int((begin + seconds).max(initial=0.0) // slot_seconds) + 1
    rate = work / seconds
    done = _ramps(begin, rate, slots, slot_seconds) - _ramps(begin + seconds, rate, slots, slot_seconds)
    return np.asarray(np.maximum(np.diff(done), 0), dtype=np.float64)


def _ramps(begin: Array, rate: Array, slots: int, slot_seconds: float) -> Array:
    """At each slot's edge, the sum over all of rate · (edge - begin), where begin is before the edge."""
    slot = np.minimum((begin // slot_seconds).astype(np.int64), slots - 1)
    rates: Array = np.bincount(slot, weights=rate, minlength=slots).astype(np.float64)
    offsets: Array = np.bincount(slot, weights=rate * begin, minlength=slots).astype(np.float64)
    edges = np.arange(1, slots + 1) * slot_seconds
    done = np.zeros(slots + 1)
    done[1:] = np.cumsum(rates) * edges - np.cumsum(offsets)
    return done


def _edges(traffic: Traffic) -> Array:
    """Of slots of ten minutes; the last one ends with the trace."""
    slots = max(1, ceil((traffic.seconds - SHORTEST_SLOT_SECONDS) / RATE_SLOT_SECONDS))
    edges: Array = np.linspace(0.0, slots * RATE_SLOT_SECONDS, slots + 1)
    edges[-1] = max(traffic.seconds, edges[-2] + SHORTEST_SLOT_SECONDS)
    return edges


def _whole(pools: tuple[Pool, ...], plan: Mapping[str, Array]) -> dict[str, Counts]:
    """A plan in fractions as whole replicas. Pools of one profile stand in for each other: their sum is rounded up."""
    counts: dict[str, Counts] = {}
    sums: dict[LatencyProfile, Array] = {}
    for pool in pools:
        before = sums.get(pool.profile, np.zeros(1))
        sums[pool.profile] = before + plan[pool.name]
        counts[pool.name] = (np.ceil(sums[pool.profile] - ROUNDING) - np.ceil(before - ROUNDING)).astype(np.int64)
    return counts


def _positive(knob: float | None) -> float:
    value = 1.0 if knob is None else knob
    if not value > 0:
        raise ValueError(f"the headroom must be positive, not {value}")
    return value
