"""One pool, with hindsight, if each slot's work must be done in its slot: the exact optimum in closed form (B1').

A slot of s seconds with work w needs d = ceil(w / s) replicas. Take levels: level k is needed while d >= k. It costs as
much to let a replica idle for a gap as the gap is long, and as much to start one as its start-up takes, so a gap is
bridged if and only if it is not longer than the start-up. Levels are nested, so they do not interfere, and the sum is
the optimum of all plans (the offline optimum of right-sizing: Lin, Wierman, Andrew and Thereska, INFOCOM 2011).

Worked numbers: slots of 60 s that need 2, 0, 0, 2 and start-up of 120 s: both levels bridge their gap of 120 s, and
each costs 240 s plus 120 s for its start: 720 replica-seconds. With 119 s of start-up both let go: 2 · (120 + 2 · 119).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from swell.simulator.bounds.work import SECONDS_PER_HOUR, work_per_slot, work_replica_seconds
from swell.simulator.result import Scenario
from swell.state.scaling import Pool

ROUNDING = 1e-9  # of a replica; what float sums add to a slot that is exactly full needs no further replica


class RightSizing(NamedTuple):
    """The cheapest plan and what it costs, start-up included."""

    plan: NDArray[np.int64]  # replicas that serve, per slot
    replica_seconds: float


def needed_replicas(work: NDArray[np.float64], slot_seconds: float) -> NDArray[np.int64]:
    """Whole replicas that each slot's work fills."""
    return np.ceil(work / slot_seconds - ROUNDING).astype(np.int64)


def right_sizing(
    work: NDArray[np.float64], slot_seconds: float, start_seconds: float, warm_replicas: int = 0
) -> RightSizing:
    """The optimum for `work` (replica-seconds per slot), in O(slots · most replicas).

    Starts are billed with `start_seconds` each, the first ones too, save for `warm_replicas` that are there at first.
    """
    needed = needed_replicas(work, slot_seconds)
    plan = np.zeros(len(needed), dtype=np.int64)
    seconds = 0.0
    for level in range(1, int(needed.max(initial=0)) + 1):
        slots = np.flatnonzero(needed >= level)
        starts, ends, paid_starts = _stretches(slots, slot_seconds, start_seconds)
        if level <= warm_replicas and starts[0] * slot_seconds <= start_seconds:
            starts[0] = 0  # kept from the beginning
            paid_starts -= 1
        steps = np.zeros(len(needed) + 1, dtype=np.int64)
        steps[starts] += 1
        steps[ends] -= 1
        plan += np.cumsum(steps[:-1])
        seconds += float((ends - starts).sum()) * slot_seconds + paid_starts * start_seconds
    return RightSizing(plan, seconds)


def right_sizing_usd(scenario: Scenario, slot_seconds: float, pool: Pool | None = None) -> float:
    """What `scenario` costs with the whole of its work on `pool`; without one, on whichever does it for least."""
    costs = []
    for each in (pool,) if pool is not None else scenario.pools:
        work = work_replica_seconds(scenario.traffic, each.profile, scenario.objective)
        slots = work_per_slot(scenario.traffic, work, slot_seconds)
        sized = right_sizing(slots, slot_seconds, each.start_seconds)
        costs.append(sized.replica_seconds / SECONDS_PER_HOUR * each.usd_per_hour)
    return min(costs)


def _stretches(
    slots: NDArray[np.int64], slot_seconds: float, start_seconds: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """First slots and ends (exclusive) of what one level keeps on, after bridging; and how many starts that is."""
    idle_seconds = (np.diff(slots) - 1) * slot_seconds
    is_let_go = idle_seconds > start_seconds
    starts = np.concatenate((slots[:1], slots[1:][is_let_go]))
    ends = np.concatenate((slots[:-1][is_let_go], slots[-1:])) + 1
    return starts, ends, len(starts)
