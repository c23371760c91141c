"""Between two plans: as few changes to the counts as bring them back to what is needed. Pure.

What is short is added one replica at a time, of the pool that makes up most for its price; what is too much is taken
away, the dearest first. Short is what is missing of the need, and of what is usually there when a zone is lost, weighed
by how likely each loss is, as far as the rules do not let it be missed:

    short = max(0, need - C) + max(0, exposed - allowed)
    exposed = sum_z w_z · max(0, usual - C + lost_z),    w_z = chance_z / sum chance

with C the capacity of all counts and lost_z what goes with zone z. What is exposed has a price besides (see
`miss_usd_per_hour` in `placement_problem`): so over-provision is bought where, and as long as, it costs less than it
saves.
"""

from dataclasses import dataclass
from math import inf

from swell.policy.scaling.placement_problem import Problem

_ROUNDING = 1e-6
_MOST_STEPS = 10_000
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Filling:
    """What can be had, as plain lists: index p is the pool. Capacities and need are in replicas of the reference."""

    need: float
    usual: float  # of the need, on average
    usd: list[float]  # of one more, what preemptions cost included
    price: list[float]
    capacity: list[float]
    limit: list[int]
    is_spot: list[bool]
    losses: list[tuple[float, list[float]]]  # weight and what is left, of each zone
    allowed: float  # of what is exposed, whatever it costs
    exposed_usd: float  # usd/h that one less exposed is worth
    base: int
    least: int
    most: int
    spot_fraction: float
    ceiling_usd: float

    def short(self, counts: list[int]) -> float:
        """What is missing of the need, and of the reserve."""
        whole = sum(c * n for c, n in zip(self.capacity, counts, strict=True))
        return max(0.0, self.need - whole) + max(0.0, self.exposed(counts) - self.allowed)

    def worth(self, counts: list[int]) -> float:
        """usd/h that it costs, what is exposed included."""
        paid = sum(usd * n for usd, n in zip(self.usd, counts, strict=True))
        return paid + self.exposed_usd * self.exposed(counts)

    def exposed(self, counts: list[int]) -> float:
        """The part of the need that a lost zone leaves unserved, on average over zones by how likely they go."""
        return sum(
            weight * max(0.0, self.usual - sum(s * c * n for s, c, n in zip(left, self.capacity, counts, strict=True)))
            for weight, left in self.losses
        )

    def is_affordable(self, counts: list[int]) -> bool:
        """Whether what is short could be bought inside the ceiling of spend, or nothing is."""
        left = self.ceiling_usd + _ROUNDING - self.spend(counts)
        useful = (usd for usd, c in zip(self.price, self.capacity, strict=True) if c)
        return self.short(counts) <= _ROUNDING * self.need or any(usd <= left for usd in useful)

    def spend(self, counts: list[int]) -> float:
        """usd/h."""
        return sum(usd * n for usd, n in zip(self.price, counts, strict=True))

    def fits(self, counts: list[int], pool: int) -> bool:
        """Whether one more of a pool keeps the rules."""
        if not self.capacity[pool] or counts[pool] >= self.limit[pool] or sum(counts) >= self.most:
            return False
        if self.spend(counts) + self.price[pool] > self.ceiling_usd + _ROUNDING:
            return False
        more = counts.copy()
        more[pool] += 1
        return not self.is_spot[pool] or self.spot_is_allowed(more)

    def breaks(self, counts: list[int], pool: int) -> bool:
        """Whether one less of a pool leaves less of something than the rules want.

        What falls short of a rule already, since it cannot be had, keeps nothing else from going.
        """
        if sum(counts) - 1 < self.least:
            return True
        if self.is_spot[pool]:
            return False
        fewer = counts.copy()
        fewer[pool] -= 1
        return self.on_demand(fewer) < self.base or not self.spot_is_allowed(fewer)

    def on_demand(self, counts: list[int]) -> int:
        """How many are on demand."""
        return sum(n for n, is_spot in zip(counts, self.is_spot, strict=True) if not is_spot)

    def spot_is_allowed(self, counts: list[int]) -> bool:
        """Whether spot is not too large a part of the capacity."""
        if self.spot_fraction >= 1:
            return True
        capacity = [c * n for c, n in zip(self.capacity, counts, strict=True)]
        spot = sum(c for c, is_spot in zip(capacity, self.is_spot, strict=True) if is_spot)
        return spot <= self.spot_fraction * sum(capacity) * (1 + _ROUNDING)


def filling(problem: Problem, need: float, one: float) -> Filling:
    """The numbers of a placement problem for a need of so many replicas of `one` request a second each."""
    rules = problem.rules
    chances = sum(loss.chance for loss in problem.losses)
    keeps_reserve = problem.loss_share < 1 and chances > 0
    return Filling(
        need,
        problem.usual * need,
        (problem.price + problem.disruption).tolist(),
        problem.price.tolist(),
        (problem.capacity / one).tolist(),
        problem.limit.tolist(),
        problem.is_spot.tolist(),
        [(loss.chance / chances, loss.left.tolist()) for loss in problem.losses] if keeps_reserve else [],
        problem.loss_share * problem.usual * need / chances if keeps_reserve else 0.0,
        problem.inputs.miss_usd_per_hour * chances / (problem.usual * need) if keeps_reserve and need > 0 else 0.0,
        rules.on_demand_base,
        rules.min_replicas,
        rules.max_replicas,
        rules.max_spot_fraction,
        inf if rules.usd_per_hour is None else rules.usd_per_hour,
    )


def filled(asked: Filling, counts: list[int]) -> list[int]:
    """The counts that are needed, from `counts` on.

    What is taken away may leave room under the ceiling or the bound for something better, so both are done in turn:
    each round leaves less short, or costs less.
    """
    plan = counts
    for _ in range(_MOST_ROUNDS):
        found = trimmed(asked, added(asked, counts), plan)
        if found == counts:
            break
        counts = found
    return counts


def added(asked: Filling, counts: list[int]) -> list[int]:
    """More of what makes up most for its price, while something is short; no more than there is."""
    return _covered(asked, floored(asked, counts))


def floored(asked: Filling, counts: list[int]) -> list[int]:
    """No more than there is, and at least the on-demand base and the fewest replicas, of what is cheapest.

    Where bounds or the ceiling of spend leave no room for the base, spot makes room.
    """
    counts = [min(n, limit) if c else 0 for n, limit, c in zip(counts, asked.limit, asked.capacity, strict=True)]
    every = range(len(counts))
    on_demand = [p for p in every if not asked.is_spot[p]]
    while asked.on_demand(counts) < asked.base:
        if _bought(asked, counts, on_demand):
            continue
        spot = [p for p in every if asked.is_spot[p] and counts[p]]
        without = [0 if is_spot else n for n, is_spot in zip(counts, asked.is_spot, strict=True)]
        if not spot or not any(asked.fits(without, p) for p in on_demand):
            break
        counts[max(spot, key=lambda p: (asked.price[p], p))] -= 1
    while sum(counts) < asked.least and _bought(asked, counts, list(every)):
        pass
    return counts


def _bought(asked: Filling, counts: list[int], pools: list[int]) -> bool:
    """One more of the cheapest of `pools`, in place; False where none fits."""
    fitting = [p for p in pools if asked.fits(counts, p)]
    if fitting:
        counts[min(fitting, key=lambda p: (asked.usd[p], p))] += 1
    return bool(fitting)


def _covered(asked: Filling, counts: list[int]) -> list[int]:
    counts = counts.copy()
    for _ in range(_MOST_STEPS):
        short, worth = asked.short(counts), asked.worth(counts)
        is_short = short > _ROUNDING * asked.need
        best, best_rate = -1, inf
        for pool in range(len(counts)):
            if not asked.fits(counts, pool):
                continue
            counts[pool] += 1
            gain, paid = short - asked.short(counts), asked.worth(counts) - worth
            counts[pool] -= 1
            if is_short:
                rate = paid / gain if gain > _ROUNDING * asked.need else inf
            else:  # nothing must be bought; what saves more than it costs may
                rate = paid if paid < -_ROUNDING else inf
            if rate < best_rate:
                best, best_rate = pool, rate
        if best < 0:
            break
        counts[best] += 1
    return counts


def trimmed(asked: Filling, counts: list[int], plan: list[int]) -> list[int]:
    """Fewer while it pays and nothing is short that was not: first what is over the plan; the dearest first."""
    counts, none = counts.copy(), [0] * len(counts)
    useful = [p for p in range(len(counts)) if asked.capacity[p]]
    order = sorted(useful, key=lambda p: (-asked.usd[p] / asked.capacity[p], -p))
    short = asked.short(counts) + _ROUNDING * asked.need
    before = None
    while counts != before:  # what has to stay may go when something else is gone: rules are about shares, too
        before = counts.copy()
        for floors in (plan, none):
            for pool in order:
                while counts[pool] > floors[pool] and _is_spare(asked, counts, pool, short):
                    counts[pool] -= 1
    return counts


def _is_spare(asked: Filling, counts: list[int], pool: int, short: float) -> bool:
    """Whether one less of a pool keeps the rules, leaves no more short, and pays."""
    fewer = counts.copy()
    fewer[pool] -= 1
    return not asked.breaks(counts, pool) and asked.short(fewer) <= short and asked.worth(fewer) <= asked.worth(counts)
