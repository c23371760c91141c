"""Where batch runs: on spot, besides what everybody else needs, with neither an on-demand base nor a reserve. Pure.

Others come first: batch has of what is there what they do not need. What is missing then is ordered where spot is
cheapest. A zone that may have room, and of which nobody knows, is asked for one replica at a time; nothing stands in
for what does not come, since batch waits. Only where spot for half of it was not to be had for PATIENCE_SECONDS is the
rest had on demand, until it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from swell.state.scaling import Market, Pool

PATIENCE_SECONDS = 120.0  # without spot, until batch is served on demand: with a start, less than it is held for
MOVE_SAVING = 0.1  # of a replica's price, for which it is had elsewhere: batch can wait for the start
ROUNDING = 0.15  # of a replica that is not worth another one
STAY_ROUNDING = 0.02  # the same of one that is there


@dataclass(frozen=True, slots=True)
class Place:
    """One pool, for batch. Capacity is in replicas of the reference; counts are beyond what others need."""

    pool: Pool
    capacity: float
    usd: float  # of one replica an hour, what preemptions cost included
    spare: int  # that are there
    room: int  # that there may be, those included
    is_proven: bool  # one is there, and nothing was lost or refused since


def places_of(
    pools: tuple[Pool, ...], capacity: Mapping[str, float], usd: Mapping[str, float], sure: Mapping[str, int],
    proven: Mapping[str, bool], taken: Mapping[str, int],
) -> list[Place]:  # fmt: skip
    """Every pool that can serve it. `sure` are replicas that are there, `taken` those that others need."""
    found = []
    for pool in pools:
        if capacity[pool.name] > 0:
            spare = max(0, sure[pool.name] - taken[pool.name])
            room = max(0, pool.max_replicas - taken[pool.name])
            found.append(Place(pool, capacity[pool.name], usd[pool.name], min(spare, room), room, proven[pool.name]))
    return found


def place_batch(
    need: float, places: list[Place], *, most: int, usd_left: float, may_be_on_demand: bool
) -> dict[str, int]:
    """Replicas for batch by pool: what is there first, cheapest first, then orders; one may move to save."""
    counts: dict[str, int] = {place.pool.name: 0 for place in places}
    left, usd = need, usd_left
    spot = [place for place in places if place.pool.market is Market.SPOT]
    order = sorted(spot, key=lambda place: (_dearness(place), place.pool.name))

    def add(place: Place, limit: int, rounding: float = ROUNDING) -> None:
        nonlocal left, usd
        name = place.pool.name
        while left > rounding * place.capacity and counts[name] < limit:
            if sum(counts.values()) >= most or place.pool.usd_per_hour > usd + 1e-9:
                return
            counts[name] += 1
            left -= place.capacity
            usd -= place.pool.usd_per_hour

    for place in order:
        add(place, place.spare, STAY_ROUNDING)
    missing = left  # whatever of it is ordered below may not come
    for place in order:
        add(place, place.room if place.is_proven else min(place.room, place.spare + 1))
    kept = [place for place in order if counts[place.pool.name]]
    cheap = next((place for place in order if place.is_proven and counts[place.pool.name] < place.room), None)
    if cheap is not None and kept and _dearness(cheap) < (1 - MOVE_SAVING) * _dearness(kept[-1]):
        left = ROUNDING * cheap.capacity + max(left, 1e-9)  # one more: the dearest goes once it comes
        add(cheap, counts[cheap.pool.name] + 1)
    if may_be_on_demand:
        left = missing
        others = [place for place in places if place.pool.market is not Market.SPOT]
        for place in sorted(others, key=lambda place: (_dearness(place), place.pool.name)):
            add(place, min(place.room, ceil(left / place.capacity)))
    return counts


def _dearness(place: Place) -> float:
    return place.usd / place.capacity
