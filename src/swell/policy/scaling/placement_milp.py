"""Placement as a mixed-integer linear program, by HiGHS through SciPy. Pure: bounded by nodes and gap, never by time.

With N[p] replicas (integer), x[p, b] the share of bucket b that pool p serves, u[b] the share that is given up, s[p]
starts, and m[z] the requests that miss while what zone z lost is replaced:

    min  sum_p (price + disruption)·N + start_price·s + miss_price · sum_z chance_z·m[z]
    sum_p x[p, b] + u[b] = 1                      every b
    load[p] = sum_b rate·w·x[p, b] <= N[p]        every p
    sum_on-demand N >= base,   min <= sum N <= max,   price·N <= ceiling
    sum_spot capacity·N <= fraction · sum capacity·N
    s[p] >= N[p] - current[p]
    m[z] >= sum_p (1 - left)·usual·carried[p] - sum_p left·capacity·(N - usual·load)[p]
    sum_z chance_z·m[z] <= loss_share · usual · sum rate

What a lost zone carried, rate·x, goes to what is idle elsewhere, which takes it in the proportions of the mix. Where
some buckets cannot be served everywhere, that row is repeated for them, over the pools that can serve them.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swell.policy.scaling.placement_problem import Problem, capacity_of, served_together

NODE_LIMIT = 1_000
RELATIVE_GAP = 1e-3
_SERVED_TOLERANCE = 1e-5  # relative; ten times the solver's own, so that no solution has to be repaired
_INFEASIBLE = 2  # SciPy's status
# HiGHS 1.12 writes a line to standard output, whatever `disp` says, when it repairs a solution that comes from presolve
# or of a search in a smaller program (its issue 2783). Without these there is next to nothing to repair, and such small
# programs are solved faster.
_SILENT = {
    "presolve": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
}


@dataclass(frozen=True)
class Solution:
    """Replicas by pool; the share of each bucket that each pool serves."""

    counts: NDArray[np.int64]
    shares: NDArray[np.float64]  # p, b

    @property
    def served(self) -> NDArray[np.float64]:
        """The share of each bucket."""
        share: NDArray[np.float64] = np.minimum(1.0, self.shares.sum(axis=0))
        return share


@dataclass(frozen=True, slots=True)
class Relaxation:
    """What of the demands on a plan is let go, in this order, when not all can be had."""

    zone_loss: bool = False  # no reserve for a lost zone
    demand: bool = False  # serve the largest weighted share that the ceiling and the pools allow
    base: bool = False  # fewer on-demand replicas, or replicas at all, than asked for


STRICT = Relaxation()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A solution, or none: because there is none (`is_infeasible`), or because the search ended without one."""

    solution: Solution | None
    is_infeasible: bool = False


def solve(problem: Problem, relaxed: Relaxation = STRICT) -> Outcome:
    """The cheapest placement. With `relaxed.demand`, the cheapest of those that serve the most by weight."""
    program = _Program(problem, relaxed)
    if not relaxed.demand:
        return program.minimise(program.cost())
    best = program.minimise(program.worth())
    if best.solution is None:
        return best
    worth = problem.rate * problem.weight
    given_up = float(worth @ (1 - best.solution.served)) + _SERVED_TOLERANCE * float(worth.sum())
    program.row(program.worth(), 0.0, given_up)
    cheapest = program.minimise(program.cost())
    return cheapest if cheapest.solution is not None else best


class _Program:
    """Columns: N (p), x (pairs), u (b), s (p), m (z). A pair is a pool and a bucket that it can serve."""

    def __init__(self, problem: Problem, relaxed: Relaxation) -> None:
        self._problem = problem
        self._relaxed = relaxed
        pools, buckets = problem.seconds.shape
        self._pools, self._buckets = pools, buckets
        self._pairs = np.argwhere(np.isfinite(problem.seconds) & (problem.rate > 0)[None, :])
        self._losses = () if relaxed.zone_loss or problem.loss_share >= 1 else problem.losses
        self._share_at = pools
        self._unserved_at = self._share_at + len(self._pairs)
        self._start_at = self._unserved_at + buckets
        self._loss_at = self._start_at + pools
        self._size = self._loss_at + len(self._losses)
        self._rows: list[tuple[NDArray[np.int64], NDArray[np.float64], float, float]] = []
        self._serve()
        self._limit()
        self._survive()

    def cost(self) -> NDArray[np.float64]:
        """usd/h, as coefficients."""
        found = np.zeros(self._size)
        found[: self._pools] = self._problem.price + self._problem.disruption
        found[self._start_at : self._loss_at] = self._problem.start_price
        miss_usd = self._problem.inputs.miss_usd_per_hour / self._problem.usual
        found[self._loss_at :] = [miss_usd * loss.chance for loss in self._losses]
        return found

    def worth(self) -> NDArray[np.float64]:
        """Weighted requests/s that are given up, as coefficients."""
        found = np.zeros(self._size)
        found[self._unserved_at : self._start_at] = self._problem.rate * self._problem.weight
        return found

    def row(self, coefficients: NDArray[np.float64], low: float, high: float) -> None:
        """One more constraint, over all columns."""
        at = np.flatnonzero(coefficients)
        self._rows.append((at, coefficients[at], low, high))

    def _add(self, at: Sequence[int] | NDArray[np.int64], values: Sequence[float] | NDArray[np.float64],
             low: float, high: float) -> None:  # fmt: skip
        self._rows.append((np.asarray(at, dtype=np.int64), np.asarray(values, dtype=np.float64), low, high))

    def _serve(self) -> None:
        problem = self._problem
        for bucket in np.flatnonzero(problem.rate > 0):
            mine = np.flatnonzero(self._pairs[:, 1] == bucket)
            self._add([*(self._share_at + mine), self._unserved_at + bucket], np.ones(len(mine) + 1), 1.0, 1.0)
        for pool in range(self._pools):
            mine = np.flatnonzero(self._pairs[:, 0] == pool)
            buckets = self._pairs[mine, 1]
            load = problem.rate[buckets] * problem.seconds[pool, buckets]
            self._add([*(self._share_at + mine), pool], [*load, -1.0], -np.inf, 0.0)
            self._add([self._start_at + pool, pool], [1.0, -1.0], -float(problem.current[pool]), np.inf)

    def _limit(self) -> None:
        problem, rules, everyone = self._problem, self._problem.rules, np.arange(self._pools)
        base = 0 if self._relaxed.base else rules.on_demand_base
        least = 0 if self._relaxed.base else rules.min_replicas
        self._add(everyone, (~problem.is_spot).astype(float), base, np.inf)
        self._add(everyone, np.ones(self._pools), least, max(least, rules.max_replicas))
        if rules.usd_per_hour is not None:
            self._add(everyone, problem.price, -np.inf, rules.usd_per_hour)
        if rules.max_spot_fraction < 1 and problem.is_spot.any():
            # Relative capacities, so that the solver's absolute tolerance means the same for any mix.
            relative = problem.capacity / max(float(problem.capacity.max()), 1e-300)
            self._add(everyone, (problem.is_spot - rules.max_spot_fraction) * relative, -np.inf, 0.0)

    def _survive(self) -> None:
        problem, total = self._problem, float(self._problem.rate.sum())
        if not self._losses or total <= 0:
            return
        usual = problem.usual * problem.rate
        pool, bucket = self._pairs[:, 0], self._pairs[:, 1]
        for together in served_together(problem):
            capacity = capacity_of(problem.seconds, np.where(together, problem.rate, 0.0))
            for index, loss in enumerate(self._losses):
                row = np.zeros(self._size)
                idle = loss.left * capacity / total
                row[: self._pools] = idle
                carried = np.where(together[bucket], (1 - loss.left[pool]) * usual[bucket] / total, 0.0)
                load = usual[bucket] * problem.seconds[pool, bucket]
                row[self._share_at : self._unserved_at] = -carried - idle[pool] * load
                row[self._loss_at + index] = 1.0
                self.row(row, 0.0, np.inf)
        at = self._loss_at + np.arange(len(self._losses))
        self._add(at, [loss.chance for loss in self._losses], -np.inf, problem.loss_share * problem.usual)

    def _bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        high = np.ones(self._size)
        high[: self._pools] = self._problem.limit
        high[self._start_at : self._loss_at] = np.inf
        high[self._unserved_at : self._start_at] = 1.0 if self._relaxed.demand else 0.0
        return np.zeros(self._size), high

    def minimise(self, objective: NDArray[np.float64]) -> Outcome:
        """The best solution found within the bounds of the search."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array

        lengths = [len(at) for at, *_ in self._rows]
        matrix = csr_array(
            (
                np.concatenate([values for _, values, *_ in self._rows]),
                (np.repeat(np.arange(len(self._rows)), lengths), np.concatenate([at for at, *_ in self._rows])),
            ),
            shape=(len(self._rows), self._size),
        )
        low, high = self._bounds()
        whole = np.zeros(self._size)
        whole[: self._pools] = 1
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", RuntimeWarning
            )  # SciPy hands options it does not know to HiGHS, and says so
            found = milp(
                objective,
                integrality=whole,
                bounds=Bounds(low, high),
                constraints=LinearConstraint(matrix, [row[2] for row in self._rows], [row[3] for row in self._rows]),
                options={"disp": False, "node_limit": NODE_LIMIT, "mip_rel_gap": RELATIVE_GAP, **_SILENT},
            )
        if found.x is None:
            return Outcome(None, is_infeasible=found.status == _INFEASIBLE)
        counts = np.rint(found.x[: self._pools]).astype(np.int64)
        shares = np.zeros((self._pools, self._buckets))
        shares[self._pairs[:, 0], self._pairs[:, 1]] = found.x[self._share_at : self._unserved_at]
        return Outcome(Solution(counts, np.clip(shares, 0.0, 1.0)))
