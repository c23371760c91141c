"""Replicas over time with paid starts and deadlines: as a linear program, and with whole replicas (B1).

    minimise    sum over pools p, ticks t of  price_p · (s · on[p,t] + D_p · start[p,t])
    on[p,t] - on[p,t-1] <= start[p,t]          a start pays for the start-up, and may have been ordered in time for it
    on[p,t] <= what there is of p in t         spot: taken to 0 by a preemption, so that coming back is paid
    sum over lots of ratio · run <= s · on     per profile and tick
    sum over profiles and ticks of run + missed work = work       per lot, in the ticks between arrival and deadline
    sum of misses <= (1 - attainment) · requests

The fleet starts warm in the scenario's first pool, so what runs there in the first tick needed no start. The linear
value bounds policies of any interval (let `on` be the mean over a tick); the one with whole replicas bounds those that
change the fleet once per tick. Solved by HiGHS; bounded by nodes and gap, never by time, so that a value can be
reproduced.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from swell.errors import UserError
from swell.simulator.bounds.availability import known_limits
from swell.simulator.bounds.demand import Limits, Requests, build_lots, build_optimistic_lots, requests_of
from swell.simulator.bounds.fluid import allowed_misses, fluid_request_usd
from swell.simulator.bounds.matrix import Matrix, most_replicas
from swell.simulator.bounds.prices import Prices, bound_usd, feasible_prices, mean_prices, request_usd, sum_of_least
from swell.simulator.result import Scenario
from swell.simulator.silence import solver_is_silent

ROUNDS = 3  # of the linear program, each with what the one before would rather miss
CLOSE_ENOUGH = 5e-4  # between plan and bound, as a share
NODES = 200
RELATIVE_GAP = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProgramBound:
    """What nobody undercuts, and the plan that comes close to it."""

    usd: float  # no policy pays less
    plan_usd: float  # what the plan costs; above `usd` by the gap that was left
    plan: Mapping[str, Floats]  # by pool: replicas that serve, per tick; fractions where linear
    tick_seconds: float
    starts: float
    missed: float  # requests that the plan leaves out

    @property
    def gap(self) -> float:
        """By how much the plan may be above the optimum, as a share of it."""
        return (self.plan_usd - self.usd) / self.plan_usd if self.plan_usd > 0 else 0.0


def linear_bound(scenario: Scenario, tick_seconds: float = 60.0, limits: Limits | None = None) -> ProgramBound:
    """The value with replicas in fractions: seconds for a week of ticks of a minute.

    `limits` gives, by pool that comes and goes, the most replicas there were in each tick; after its end none. Where it
    is not given, the scenario's spot market says.
    Raises UserError where not even every replica that there is could serve the demand.

    What is missed is chosen beforehand: the dearest requests at the machines' prices, then at the mean of the prices
    that the program found for each tick. The bound holds for any choice (see `prices`); the best of a few rounds
    counts.
    """
    requests = requests_of(scenario, tick_seconds)
    limits = known_limits(scenario, limits, tick_seconds, requests.ticks)
    misses = allowed_misses(scenario.traffic, scenario.objective.attainment)
    each_usd = fluid_request_usd(scenario, limits, tick_seconds)
    best_usd = sum_of_least(each_usd, len(each_usd) - misses)
    plan: ProgramBound | None = None
    all_prices: list[Prices] = []
    for _ in range(ROUNDS if misses else 1):
        found, prices = _solve_linear(scenario, requests, _all_but_dearest(each_usd, misses), tick_seconds, limits)
        best_usd = max(best_usd, bound_usd(request_usd(requests, prices), prices, misses))
        all_prices.append(prices)
        mean = mean_prices(all_prices)
        each_usd = request_usd(requests, mean)
        best_usd = max(best_usd, bound_usd(each_usd, mean, misses))
        if plan is None or found.plan_usd < plan.plan_usd:
            plan = found
        if plan.plan_usd - best_usd <= CLOSE_ENOUGH * plan.plan_usd:
            break
    assert plan is not None  # noqa: S101
    return ProgramBound(best_usd, plan.plan_usd, plan.plan, tick_seconds, plan.starts, float(misses))


def integer_bound(
    scenario: Scenario,
    tick_seconds: float = 60.0,
    limits: Limits | None = None,
    *,
    nodes: int = NODES,
    relative_gap: float = RELATIVE_GAP,
) -> ProgramBound:
    """The value with whole replicas, for a day or less. Where the search ended early, `usd` is what it had proven.

    At least the linear value. A day of ticks of a minute with ten replicas takes minutes. Raises UserError as that one.
    """
    misses = allowed_misses(scenario.traffic, scenario.objective.attainment)
    requests = requests_of(scenario, tick_seconds)
    limits = known_limits(scenario, limits, tick_seconds, requests.ticks)
    demand = build_optimistic_lots(requests, misses / len(scenario.traffic))
    matrix = Matrix(scenario, demand, tick_seconds, limits, misses)
    with solver_is_silent():
        found = milp(
            matrix.costs,
            integrality=matrix.whole,
            bounds=Bounds(np.zeros(matrix.columns), matrix.highest),
            constraints=[
                LinearConstraint(matrix.upper, -inf, matrix.upper_limits),
                LinearConstraint(matrix.equal, demand.work, demand.work),
            ],
            options={"node_limit": nodes, "mip_rel_gap": relative_gap},
        )
    if found.x is None:
        raise _infeasible(found.message)
    usd = max(float(found.mip_dual_bound), linear_bound(scenario, tick_seconds, limits).usd)
    return ProgramBound(
        usd, max(usd, float(found.fun)), _plan(scenario, matrix, np.round(found.x)), tick_seconds,
        matrix.starts(found.x), matrix.missed(found.x),
    )  # fmt: skip


def _solve_linear(
    scenario: Scenario,
    requests: Requests,
    takes_part: NDArray[np.bool_],
    tick_seconds: float,
    limits: Limits | None,
) -> tuple[ProgramBound, Prices]:
    """The cheapest plan for the requests that take part, and the prices it is made at."""
    demand = build_lots(requests, takes_part)
    matrix = Matrix(scenario, demand, tick_seconds, limits, 0)
    found = linprog(
        matrix.costs,
        A_ub=matrix.upper,
        b_ub=matrix.upper_limits,
        A_eq=matrix.equal,
        b_eq=demand.work,
        bounds=np.column_stack((np.zeros(matrix.columns), matrix.highest)),
        method="highs",
    )
    if found.x is None:
        raise _infeasible(found.message)
    work, switching, floor, _ = np.split(-found.ineqlin.marginals, matrix.sections)
    most = most_replicas(scenario, demand.ticks, limits)
    shape = (-1, demand.ticks)
    every_floor = np.concatenate((floor, np.zeros(demand.ticks - len(floor))))
    prices = feasible_prices(scenario, work.reshape(shape), switching.reshape(shape), every_floor, most, tick_seconds)
    plan = _plan(scenario, matrix, found.x)
    cost = float(found.fun)
    return ProgramBound(cost, cost, plan, tick_seconds, matrix.starts(found.x), 0.0), prices


def _all_but_dearest(each_usd: Floats, misses: int) -> NDArray[np.bool_]:
    takes_part = np.ones(len(each_usd), dtype=bool)
    if misses:
        takes_part[np.argpartition(each_usd, len(each_usd) - misses)[len(each_usd) - misses :]] = False
    return takes_part


def _plan(scenario: Scenario, matrix: Matrix, solution: Floats) -> dict[str, Floats]:
    rows = np.maximum(matrix.on(solution), 0)
    return {pool.name: row for pool, row in zip(scenario.pools, rows, strict=True)}


def _infeasible(message: str) -> UserError:
    return UserError(f"no fleet within the given bounds serves this traffic inside the objective ({message})")
