"""Placement without a solver: cover, reserve, improve. For the rare case that the search ends without a solution. Pure.

Replicas are added one kind at a time, the one that serves most for its price first, until all is served; more are added
until the loss of a zone can be borne; then replicas are taken away or exchanged for cheaper ones while all rules hold.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.policy.scaling.placement_milp import STRICT, Relaxation, Solution
from swell.policy.scaling.placement_problem import Problem, missed_share

_SERVED = 1e-9  # of a bucket may stay unserved: rounding
_MOST_STEPS = 100_000
_MOST_EXCHANGES = 200

_Counts = NDArray[np.int64]
_Floats = NDArray[np.float64]


def solve(problem: Problem, relaxed: Relaxation = STRICT) -> Solution | None:
    """A placement that keeps every rule, or None where none was found. Serves what it can with `relaxed.demand`."""
    search = _Search(problem, relaxed)
    everything = range(len(problem.price))
    # From all pools at once, and from each alone: a large machine that serves all may look dear for the first request.
    tried = [search.attempt(first) for first in (everything, *((pool,) for pool in everything))]
    found = [counts for counts in tried if counts is not None]
    if not found:
        return None
    counts = min(found, key=search.badness)
    return Solution(counts, share_out(problem, counts))


def share_out(problem: Problem, counts: _Counts) -> _Floats:
    """Which share of each bucket each pool serves: dear demand first, then what few pools can, where it fits best."""
    shares, idle, left = np.zeros_like(problem.seconds), counts.astype(np.float64), np.ones(len(problem.rate))
    for pool, bucket in _pairs(problem):
        rate = problem.rate[bucket]
        if idle[pool] > 0 and left[bucket] > 0:
            share = min(left[bucket], idle[pool] / (rate * problem.seconds[pool, bucket]))
            shares[pool, bucket] = share
            left[bucket] -= share
            idle[pool] -= share * rate * problem.seconds[pool, bucket]
    return shares


def _pairs(problem: Problem) -> list[tuple[int, int]]:
    """Pools and buckets they can serve, in the order in which capacity is given out."""
    servable = np.isfinite(problem.seconds) & (problem.rate > 0)[None, :]
    # Relative to what the pool takes for the mix: where a bucket fits best, whatever the size of the pool's machines.
    finite = np.where(servable, problem.seconds, 0.0)
    relative = np.where(servable, finite * problem.capacity[:, None], np.inf)
    best = relative.min(axis=0, initial=np.inf)
    found = [(int(pool), int(bucket)) for pool, bucket in np.argwhere(servable)]
    few = servable.sum(axis=0)
    return sorted(found, key=lambda pb: (-problem.weight[pb[1]], few[pb[1]], relative[pb] / best[pb[1]], pb))


@dataclass(frozen=True)
class _Search:
    problem: Problem
    relaxed: Relaxation

    def attempt(self, first: Iterable[int]) -> _Counts | None:
        """A placement that covers with the `first` pools before it takes others."""
        counts = self.cover(self.cover(self.base(), frozenset(first)))
        if not self.relaxed.demand and not self.is_served(counts):
            return None
        counts = self.reserve(counts)
        return self.improve(counts) if self.is_allowed(counts) else None

    def badness(self, counts: _Counts) -> tuple[float, float]:
        """Less is better: what is given up, by weight, then the cost."""
        worth = self.problem.rate * self.problem.weight
        given_up = float(worth @ (1 - np.minimum(1.0, share_out(self.problem, counts).sum(axis=0))))
        return round(given_up / max(float(worth.sum()), 1e-300), 6), self.total(counts)

    def base(self) -> _Counts:
        """The on-demand base and the fewest replicas, of what is cheapest, as far as rules allow."""
        rules, counts = self.problem.rules, np.zeros(len(self.problem.price), dtype=np.int64)
        for wanted, pools in ((rules.on_demand_base, ~self.problem.is_spot), (rules.min_replicas, None)):
            while (counts.sum() if pools is None else counts[pools].sum()) < wanted:
                fitting = [p for p in self.room(counts) if pools is None or pools[p]]
                if not fitting:
                    break
                counts[min(fitting, key=lambda p: (self.cost(counts, p), p))] += 1
        return counts

    def cost(self, counts: _Counts, pool: int) -> float:
        """usd/h of one more."""
        starts = self.problem.start_price[pool] if counts[pool] >= self.problem.current[pool] else 0.0
        return float(self.problem.price[pool] + self.problem.disruption[pool] + starts)

    def total(self, counts: _Counts) -> float:
        """usd/h."""
        problem = self.problem
        starts = np.maximum(0, counts - problem.current)
        return float((problem.price + problem.disruption) @ counts + problem.start_price @ starts)

    def room(self, counts: _Counts) -> list[int]:
        """Pools of which one more keeps to the rules."""
        rules, problem = self.problem.rules, self.problem
        if counts.sum() >= max(rules.max_replicas, rules.min_replicas):
            return []
        spent = float(problem.price @ counts)
        found = []
        for pool in np.flatnonzero(counts < problem.limit).tolist():
            affordable = rules.usd_per_hour is None or spent + problem.price[pool] <= rules.usd_per_hour + 1e-9
            if affordable and (not problem.is_spot[pool] or self.is_spot_allowed(counts, pool)):
                found.append(pool)
        return found

    def is_spot_allowed(self, counts: _Counts, more: int | None = None) -> bool:
        """Whether spot is not too large a part of the capacity (with one `more`)."""
        capacity = self.problem.capacity * counts
        if more is not None:
            capacity[more] += self.problem.capacity[more]
        spot, whole = float(capacity[self.problem.is_spot].sum()), float(capacity.sum())
        return spot <= self.problem.rules.max_spot_fraction * whole * (1 + 1e-9)

    def is_served(self, counts: _Counts) -> bool:
        """Whether all demand is."""
        served = share_out(self.problem, counts).sum(axis=0)
        return bool(np.all((served >= 1 - _SERVED) | (self.problem.rate <= 0)))

    def is_reserved(self, counts: _Counts) -> bool:
        """Whether the loss of a zone can be borne."""
        if self.relaxed.zone_loss or self.problem.loss_share >= 1:
            return True
        return missed_share(self.problem, counts, share_out(self.problem, counts)) <= self.problem.loss_share + 1e-12

    def is_allowed(self, counts: _Counts) -> bool:
        """Whether every rule holds but that all is served."""
        rules, problem = self.problem.rules, self.problem
        on_demand, whole = int(counts[~problem.is_spot].sum()), int(counts.sum())
        if not self.relaxed.base and (on_demand < rules.on_demand_base or whole < rules.min_replicas):
            return False
        if whole > max(rules.max_replicas, rules.min_replicas) or np.any(counts > problem.limit):
            return False
        if rules.usd_per_hour is not None and problem.price @ counts > rules.usd_per_hour + 1e-9:
            return False
        return self.is_spot_allowed(counts) and self.is_reserved(counts)

    def cover(self, counts: _Counts, only: frozenset[int] | None = None) -> _Counts:
        """Add what serves most for its price (`only` of some pools) until all is served or nothing can be added."""
        problem = self.problem
        servable = np.isfinite(problem.seconds)
        usd = (problem.price + problem.disruption)[:, None] * np.where(servable, problem.seconds, 0.0)
        cheapest = np.where(servable, usd, np.inf).min(axis=0, initial=np.inf)
        # A request is worth what it costs where it is cheapest, so that long ones count for more than short ones.
        worth = np.where(np.isfinite(cheapest), np.maximum(cheapest, 1e-12), 0.0) * np.maximum(problem.weight, 1e-9)
        counts = counts.copy()
        for _ in range(_MOST_STEPS):
            missing = problem.rate * np.maximum(0.0, 1 - share_out(problem, counts).sum(axis=0))
            missing[missing <= _SERVED * problem.rate] = 0.0
            if not missing.any():
                break
            gains = {pool: _filled(problem, pool, missing, worth)
                     for pool in self.room(counts) if only is None or pool in only}  # fmt: skip
            gains = {pool: gain for pool, gain in gains.items() if gain > 0}
            if not gains:
                break
            counts[min(gains, key=lambda pool: (self.cost(counts, pool) / gains[pool], pool))] += 1
        return counts

    def reserve(self, counts: _Counts) -> _Counts:
        """Add what brings down most, for its price, the requests that a lost zone makes miss."""
        counts = counts.copy()
        for _ in range(_MOST_STEPS):
            if self.is_reserved(counts):
                break
            before = missed_share(self.problem, counts, share_out(self.problem, counts))
            rates: list[tuple[float, int]] = []
            for pool in self.room(counts):
                more = counts.copy()
                more[pool] += 1
                saved = before - missed_share(self.problem, more, share_out(self.problem, more))
                if saved > 1e-15:
                    rates.append((self.cost(counts, pool) / saved, pool))
            if not rates:
                break
            counts[min(rates)[1]] += 1
        return counts

    def improve(self, counts: _Counts) -> _Counts:
        """Take away or exchange single replicas while it gets cheaper and nothing is lost by it."""
        served = share_out(self.problem, counts).sum(axis=0)
        for _ in range(_MOST_EXCHANGES):
            better = self._better(counts, served)
            if better is None:
                break
            counts = better
        return counts

    def _better(self, counts: _Counts, served: _Floats) -> _Counts | None:
        now, tried = self.total(counts), []
        for less in np.flatnonzero(counts > 0).tolist():
            for more in (None, *range(len(counts))):
                changed = counts.copy()
                changed[less] -= 1
                if more is not None:
                    changed[more] += 1
                total = self.total(changed)
                if total < now - 1e-9:
                    tried.append((total, less, -1 if more is None else more, changed))
        for *_, changed in sorted(tried, key=lambda entry: entry[:3]):
            if self.is_allowed(changed):
                after = share_out(self.problem, changed).sum(axis=0)
                if np.all(after >= served - _SERVED):
                    return changed
        return None


def _filled(problem: Problem, pool: int, missing: _Floats, worth: _Floats) -> float:
    """The worth of what one more replica of a pool serves of what is missing, best first."""
    seconds, gain, idle = problem.seconds[pool], 0.0, 1.0
    useful = [b for b in np.flatnonzero(missing > 0).tolist() if np.isfinite(seconds[b])]
    for bucket in sorted(useful, key=lambda b: -worth[b] / seconds[b]):
        served = min(missing[bucket], idle / seconds[bucket])
        gain += served * worth[bucket]
        idle -= served * seconds[bucket]
        if idle <= 0:
            break
    return float(gain)
