"""What may be ordered so that infrastructure budgets hold for sure, and at which level the money lasts. Pure; integers.

A replica that runs costs until it is let go and gone. So what is bound at any moment is: of those that are let go, the
rest of their drain; of those that stay, the time until the next decision and a drain after it; of a new one, its start
as well; and of each, what is left of the minimum that is billed. A decision keeps

    spent + bound <= budget

where letting everything go always does, since the decision before kept it too: what passes meanwhile was bound already.
Whoever says what is spent counts one that ended with all of its minimum at once.
What is bound beyond the end of the period is held against the next one's budget in the same way, so that a period
neither ends nor begins with more than it has.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from swell.state.funding import Fund, Funding, Tariff
from swell.state.scaling import ReplicaState, ReplicaView

MS_PER_HOUR = 3_600_000
SECONDS_PER_HOUR = 3600
STEP_BITS = 6  # of the ceiling of a mix: it is known to 3 %

Hours = Sequence[tuple[int, int]]
"""Stretches of time to come: seconds, and the nano-dollars an hour that are wanted in them."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Nano-dollars that will be spent whatever is decided next: until the period's end, and in the one after it."""

    before: int = 0
    after: int = 0

    def __add__(self, other: "Bound") -> "Bound":
        return Bound(self.before + other.before, self.after + other.after)

    def __sub__(self, other: "Bound") -> "Bound":
        return Bound(self.before - other.before, self.after - other.after)


def cost(price: int, seconds: float) -> int:
    """Nano-dollars of so long a time at `price` an hour, rounded up: what is bound is never too little."""
    return -(-price * ceil(seconds * 1000) // MS_PER_HOUR)


def bound_when_let_go(tariff: Tariff, replicas: Iterable[ReplicaView], now: float, ends_in: float) -> Bound:
    """By all these, were every one of them let go now."""
    return _sum(replicas, tariff, now, ends_in, 0.0)


def bound_when_kept(tariff: Tariff, replicas: Iterable[ReplicaView], now: float, ends_in: float) -> Bound:
    """By all these, if those that do not drain go on until the next decision."""
    return _sum(replicas, tariff, now, ends_in, tariff.turn_seconds)


def most_affordable(
    funding: Funding, pool: str, replicas: Sequence[ReplicaView], now: float, start_seconds: float, wanted: int
) -> int:
    """At most `wanted` replicas of the only pool, as many as every fund pays for to their end."""
    tariff = funding.tariff
    price = tariff.price(pool)
    present = sum(replica.state is not ReplicaState.DRAINING for replica in replicas)
    most = wanted
    for fund in funding.funds:
        ends_in, drain = fund.ends_in_seconds, tariff.drain_seconds
        bound = bound_when_let_go(tariff, replicas, now, ends_in)
        room = Bound(fund.left_usd_nanos, fund.next_usd_nanos) - bound
        stay = _split(price, tariff.turn_seconds + drain, ends_in) - _split(price, drain, ends_in) + Bound(1, 1)
        begin = _hold(tariff, start_seconds)
        kept = _times(room, stay, present)
        new = 0
        if kept == present:
            room -= Bound(stay.before * kept, stay.after * kept)
            new = _times(room, _split(price, begin, ends_in), max(0, wanted - present))
        most = min(most, kept + new)
    return max(0, most)


def rate_ceiling(funding: Funding, replicas: Sequence[ReplicaView], now: float, start_seconds: float) -> int:
    """Nano-dollars an hour that a mix may cost from now on, whatever of it is exchanged for something else."""
    tariff, ceilings = funding.tariff, []
    hold = _hold(tariff, start_seconds)
    for fund in funding.funds:
        bound = bound_when_let_go(tariff, replicas, now, fund.ends_in_seconds)
        before, after = min(hold, fund.ends_in_seconds), max(0.0, hold - fund.ends_in_seconds)
        ceilings.append(_rate(fund.left_usd_nanos - bound.before, before))
        if after > 0:
            ceilings.append(_rate(fund.next_usd_nanos - bound.after, after))
    return max(0, min(ceilings, default=0))


def cost_of_one(tariff: Tariff, starts: Mapping[str, float]) -> int:
    """What a replica of the cheapest pool costs at least: its start, the time until a decision, its drain.

    `starts` are seconds from an order to readiness, by pool.
    """
    return min((cost(price, _hold(tariff, starts.get(pool, 0.0))) for pool, price in tariff.prices), default=0)


def affords_one(funding: Funding, starts: Mapping[str, float]) -> bool:
    """Whether a model without replicas could have one of any pool now, as a decision would find."""
    tariff = funding.tariff
    if len(tariff.prices) == 1:
        [(pool, _)] = tariff.prices
        return most_affordable(funding, pool, (), 0.0, starts.get(pool, 0.0), 1) > 0
    rate = coarse(rate_ceiling(funding, (), 0.0, max(starts.values(), default=0.0)))
    return any(price <= rate for _, price in tariff.prices)


def coarse(rate: int) -> int:
    """A rate rounded down to 3 %, lest a mix is planned anew for every cent."""
    shift = max(0, rate.bit_length() - STEP_BITS)
    return rate >> shift << shift


def spend_of(hours: Hours) -> int:
    """Nano-dollars of all stretches."""
    return sum(seconds * wanted for seconds, wanted in hours) // SECONDS_PER_HOUR


def water_level(hours: Hours, left: int) -> int | None:
    """The most nano-dollars an hour at which `left` lasts, with all that is wanted beyond it shaved off.

    The largest c with sum(min(wanted, c) · hours) <= left; None where all of it can be had.
    """
    if spend_of(hours) <= left:
        return None
    room = max(0, left) * SECONDS_PER_HOUR  # nano-dollar-seconds an hour
    above = sum(seconds for seconds, _ in hours)
    for seconds, wanted in sorted(hours, key=lambda each: each[1]):
        if room < wanted * above:
            return room // above
        room -= wanted * seconds
        above -= seconds
    return None


def shares(left: int, floors: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Parts of what is left, in whole nano-dollars that add up to at most it: floors first, then in proportion to what
    each wants beyond its floor. Where not even floors can be paid, in proportion to them; where nobody wants more,
    evenly."""
    left = max(0, left)
    needed = sum(floors)
    if needed > left:
        return [left * floor // needed for floor in floors]
    beyond = [max(0, want - floor) for want, floor in zip(wanted, floors, strict=True)]
    weights, rest = (beyond if any(beyond) else [1] * len(floors)), left - needed
    return [floor + rest * weight // sum(weights) for floor, weight in zip(floors, weights, strict=True)]


def lasts_seconds(fund: Fund, usd_nanos_per_hour: int) -> float | None:
    """How long what is left lasts at a rate; None where it outlasts the period."""
    if usd_nanos_per_hour <= 0:
        return None
    seconds = fund.left_usd_nanos * SECONDS_PER_HOUR / usd_nanos_per_hour
    return max(0.0, seconds) if seconds < fund.ends_in_seconds else None


def _sum(replicas: Iterable[ReplicaView], tariff: Tariff, now: float, ends_in: float, stay: float) -> Bound:
    whole = Bound()
    for replica in replicas:
        if replica.state is ReplicaState.DRAINING:
            seconds = replica.since + tariff.drain_seconds - now
        else:
            seconds = stay + tariff.drain_seconds
        seconds = max(0.0, seconds, replica.ordered_at + tariff.minimum_seconds - now)
        whole += _split(tariff.price(replica.pool), seconds, ends_in)
    return whole


def _split(price: int, seconds: float, ends_in: float) -> Bound:
    inside = min(seconds, max(0.0, ends_in))
    return Bound(cost(price, inside), cost(price, seconds - inside))


def _hold(tariff: Tariff, start_seconds: float) -> float:
    """How long a replica costs that is ordered now, at least."""
    return max(tariff.minimum_seconds, start_seconds + tariff.turn_seconds + tariff.drain_seconds)


def _times(room: Bound, each: Bound, most: int) -> int:
    for have, need in ((room.before, each.before), (room.after, each.after)):
        if need > 0:
            most = min(most, max(0, have) // need)
    return most


def _rate(room: int, seconds: float) -> int:
    """Nano-dollars an hour that last so long, rounded down."""
    return max(0, room) * MS_PER_HOUR // max(1, ceil(seconds * 1000))
