"""One placement: solve, let go of what cannot be had, and say which rules bind. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swell.policy.scaling import placement_greedy, placement_milp
from swell.policy.scaling.placement_milp import STRICT, Relaxation, Solution
from swell.policy.scaling.placement_problem import PlacementInputs, Problem, missed_share, problem_of
from swell.state.scaling import Pool

_ORDER = (STRICT, Relaxation(zone_loss=True), Relaxation(zone_loss=True, demand=True), Relaxation(True, True, True))
_WHOLE = 1 - 1e-4  # of a bucket counts as all of it


@dataclass(frozen=True, slots=True)
class Alternative:
    """A placement that was not taken."""

    name: str
    counts: tuple[tuple[str, int], ...]
    usd_per_hour: float
    disruption_usd_per_hour: float
    served: float  # the weighted share of requests
    why: str  # it was not taken
    ignores: str = ""  # the rule that it does without


@dataclass(frozen=True, slots=True)
class Placement:
    """Replicas by pool, and why. Money in usd per hour."""

    at: float
    counts: tuple[tuple[str, int], ...]  # every pool
    usd_per_hour: float
    disruption_usd_per_hour: float  # expected, of starts and work that preemptions cost
    served: tuple[tuple[str, float], ...]  # the share of each bucket
    shares: tuple[tuple[str, str, float], ...]  # (bucket, pool, share), where not 0
    capacity: tuple[tuple[str, float], ...]  # requests/s of the mix, of one replica of each pool
    zone_loss_missed: float  # the expected share of requests that miss because zones are lost
    binding: tuple[str, ...]  # rules that keep it from being cheaper, or from serving more
    given_up: tuple[str, ...]
    rejected: tuple[Alternative, ...]
    method: str  # milp or greedy
    inputs: PlacementInputs

    @property
    def replicas(self) -> int:
        """Over all pools."""
        return sum(count for _, count in self.counts)


def choose(inputs: PlacementInputs, now: float) -> Placement:
    """The cheapest placement, without what was rejected."""
    problem = problem_of(inputs)
    relaxed, solution, method = _solve(problem)
    counts = solution.counts
    return Placement(
        at=now,
        counts=_named(inputs.pools, solution),
        usd_per_hour=float(problem.price @ counts),
        disruption_usd_per_hour=float(problem.disruption @ counts),
        served=tuple(
            (bucket.name, 0.0 if hopeless else 1.0 if rate <= 0 else float(share))
            for bucket, rate, share, hopeless in zip(
                inputs.demand, problem.rate, solution.served, problem.hopeless, strict=True
            )
        ),
        shares=tuple(
            (inputs.demand[bucket].name, inputs.pools[pool].name, float(solution.shares[pool, bucket]))
            for bucket in range(len(inputs.demand))
            for pool in range(len(inputs.pools))
            if solution.shares[pool, bucket] > 1e-9
        ),
        capacity=tuple((pool.name, float(c)) for pool, c in zip(inputs.pools, problem.capacity, strict=True)),
        zone_loss_missed=missed_share(problem, counts, solution.shares),
        binding=_binding(problem, solution, relaxed),
        given_up=_given_up(problem, solution, relaxed),
        rejected=(),
        method=method,
        inputs=inputs,
    )


def _solve(problem: Problem) -> tuple[Relaxation, Solution, str]:
    for relaxed in _ORDER if len(problem.price) else ():
        outcome = placement_milp.solve(problem, relaxed)
        if outcome.solution is not None:
            return relaxed, outcome.solution, "milp"
        if not outcome.is_infeasible and (found := placement_greedy.solve(problem, relaxed)) is not None:
            return relaxed, found, "greedy"
    nothing = Solution(np.zeros(len(problem.price), dtype=np.int64), np.zeros_like(problem.seconds))
    return _ORDER[-1], nothing, "greedy"


def _named(pools: Sequence[Pool], solution: Solution) -> tuple[tuple[str, int], ...]:
    return tuple((pool.name, int(count)) for pool, count in zip(pools, solution.counts, strict=True))


def _binding(problem: Problem, solution: Solution, relaxed: Relaxation) -> tuple[str, ...]:
    """Rules that one replica more or less would break."""
    rules, counts, found = problem.rules, solution.counts, []
    on_demand, whole = int(counts[~problem.is_spot].sum()), int(counts.sum())
    if 0 < rules.on_demand_base >= on_demand:
        found.append("on-demand base")
    if 0 < rules.min_replicas >= whole:
        found.append("fewest replicas")
    if whole >= rules.max_replicas:
        found.append("most replicas")
    one_more = float(problem.price @ counts + problem.price.min(initial=np.inf))
    if rules.usd_per_hour is not None and one_more > rules.usd_per_hour:
        found.append("spend ceiling")
    found += ["spot fraction"] if _spot_is_full(problem, solution) else []
    for pool, count, limit in zip(problem.inputs.pools, counts, problem.limit, strict=True):
        if 0 < limit <= count:
            found.append(f"room of {pool.name}")
    has_reserve = problem.loss_share < 1 and bool(problem.losses)
    if has_reserve and (relaxed.zone_loss or _reserve_is_used_up(problem, solution)):
        found.append("loss of a zone")
    return tuple(found) or ("demand",)


def _spot_is_full(problem: Problem, solution: Solution) -> bool:
    """Whether one more of what spot is used (or of the smallest, where none is) would be too much spot."""
    if problem.rules.max_spot_fraction >= 1 or not problem.is_spot.any() or not solution.counts.sum():
        return False
    capacity = problem.capacity * solution.counts
    useful = problem.is_spot & (problem.capacity > 0)
    used = useful & (solution.counts > 0)
    least = problem.capacity[used if used.any() else useful].min(initial=np.inf)
    spot = float(capacity[problem.is_spot].sum()) + float(least)
    return spot > problem.rules.max_spot_fraction * (float(capacity.sum()) + float(least))


def _reserve_is_used_up(problem: Problem, solution: Solution) -> bool:
    """Whether what one more spot replica carries would be too much to lose."""
    total = float(problem.rate.sum())
    if problem.loss_share >= 1 or not problem.losses or total <= 0:
        return False
    spare = problem.loss_share - missed_share(problem, solution.counts, solution.shares)
    room = problem.is_spot & (solution.counts < problem.limit) & (problem.capacity > 0)
    more = [
        sum(loss.chance * (1 - loss.left[pool]) for loss in problem.losses) * problem.capacity[pool] / total
        for pool in np.flatnonzero(room).tolist()
    ]
    return bool(more) and min(more) > spare


def _given_up(problem: Problem, solution: Solution, relaxed: Relaxation) -> tuple[str, ...]:
    found = []
    for bucket, served, rate, hopeless in zip(
        problem.inputs.demand, solution.served, problem.rate, problem.hopeless, strict=True
    ):
        if hopeless and bucket.requests_per_second > 0:
            found.append(f"all of {bucket.name}: no pool can serve it inside the objective")
        elif rate > 0 and served < _WHOLE:
            found.append(f"{1 - served:.1%} of {bucket.name}")
    if relaxed.zone_loss and problem.losses and problem.loss_share < 1:
        found.append("the reserve for a lost zone")
    on_demand = int(solution.counts[~problem.is_spot].sum())
    if on_demand < problem.rules.on_demand_base:
        found.append(f"the on-demand base: {on_demand} of {problem.rules.on_demand_base}")
    return tuple(found)
