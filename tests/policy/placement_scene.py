"""Small placements with made-up machines, whose numbers can be checked by hand, and a search through all of them."""

import random
from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.optimize import linprog

from swell.policy.scaling.placement import Bucket, PlacementInputs, PlacementRules
from swell.policy.scaling.placement_problem import Problem, problem_of
from swell.state.scaling import LatencyProfile, Market, Objective, Pool

OBJECTIVE = Objective(ttft_ms=5000, itl_ms=100, attainment=0.99, beyond_prefill=True)


def profile(name: str, speed: float = 1.0, kv_tokens: int = 200_000) -> LatencyProfile:
    """A machine `speed` times as fast as one whose prompts take 0.1 ms a token."""
    return LatencyProfile("m", name, 1, 10 / speed, 0.1 / speed, 0.0, 20 / speed, 0.1 / speed, 1e-4 / speed, kv_tokens)


def on_demand(name: str, usd: float, speed: float = 1.0, **more: object) -> Pool:
    return Pool(name, profile(name, speed, int(more.pop("kv_tokens", 200_000))), usd, 120, **more)  # type: ignore[call-overload,arg-type]


def spot(name: str, zone: str, usd: float, speed: float = 1.0, hazard: float = 0.25, limit: int = 10_000) -> Pool:
    return Pool(f"{name}/spot/{zone}", profile(name, speed), usd, 120, Market.SPOT, zone, hazard, limit)


def bucket(rate: float, prompt: float = 1000, output: float = 200, weight: float = 1.0) -> Bucket:
    return Bucket.of_means(f"{prompt:g}+{output:g}", rate, prompt, output, weight)


def random_inputs(random_seed: int, most_pools: int = 3, most_replicas: int = 4) -> PlacementInputs:
    """A placement small enough to try every count."""
    dice = random.Random(random_seed)
    pools = []
    for index in range(dice.randint(1, most_pools)):
        speed, usd, limit = dice.uniform(0.4, 3), dice.uniform(0.5, 6), dice.randint(1, most_replicas)
        if dice.random() < 0.5:
            name = f"p{index}"
            pools.append(spot(name, dice.choice(("us-east-1a", "us-east-1b", "us-west-2a")), usd / 3, speed,
                              dice.uniform(0.05, 2), limit))  # fmt: skip
        else:
            kv_tokens = dice.choice((3_000, 200_000))
            pools.append(on_demand(f"p{index}", usd, speed, max_replicas=limit, kv_tokens=kv_tokens))
    shapes = dice.sample([(200, 50), (1000, 200), (2500, 400), (4000, 30)], dice.randint(1, 3))
    demand = tuple(bucket(dice.uniform(0.1, 5), n, o, dice.choice((0.25, 1.0))) for n, o in shapes)
    rules = PlacementRules(
        on_demand_base=dice.choice((0, 0, 1)),
        max_spot_fraction=dice.choice((1.0, 0.5, 0.8)),
        min_replicas=dice.choice((0, 0, 2)),
        usd_per_hour=dice.choice((None, None, dice.uniform(1, 15))),
        loss_share=dice.choice((None, 1.0, 0.002)),
    )
    current = tuple((pool.name, dice.randint(0, 2)) for pool in pools) if dice.random() < 0.5 else ()
    return PlacementInputs(tuple(pools), demand, OBJECTIVE, rules, current)


def total_usd(problem: Problem, counts: np.ndarray) -> float:
    starts = np.maximum(0, counts - problem.current)
    return float((problem.price + problem.disruption) @ counts + problem.start_price @ starts)


def keeps_the_rules(problem: Problem, counts: np.ndarray) -> bool:
    """Whether counts keep every rule that does not depend on who serves what."""
    rules, is_spot = problem.rules, problem.is_spot
    capacity = problem.capacity * counts
    return bool(
        counts[~is_spot].sum() >= rules.on_demand_base
        and counts.sum() >= rules.min_replicas
        and np.all(counts <= problem.limit)
        and (rules.usd_per_hour is None or problem.price @ counts <= rules.usd_per_hour + 1e-9)
        and capacity[is_spot].sum() <= rules.max_spot_fraction * capacity.sum() * (1 + 1e-9) + 1e-12
    )


def can_serve_all(problem: Problem, counts: np.ndarray) -> bool:
    """By a linear program over the shares alone, written apart from the one that is tested."""
    pools, buckets = problem.seconds.shape
    at = {pair: i for i, pair in enumerate((p, b) for p in range(pools) for b in range(buckets))}
    losses = problem.losses if problem.loss_share < 1 else ()
    size = pools * buckets + len(losses)
    equal, limits, bounds = [], [], []
    for b in range(buckets):
        row = np.zeros(size)
        row[[at[p, b] for p in range(pools)]] = 1
        equal.append(row)
    for p in range(pools):
        row = np.zeros(size)
        for b in range(buckets):
            row[at[p, b]] = problem.rate[b] * problem.seconds[p, b] if np.isfinite(problem.seconds[p, b]) else 0
        limits.append((row, counts[p]))
    total = problem.rate.sum()
    for z, loss in enumerate(losses):
        for mask in _kinds(problem):
            row, idle_all = np.zeros(size), 0.0
            for p in range(pools):
                served = [b for b in range(buckets) if mask[b] and np.isfinite(problem.seconds[p, b])]
                busy = sum(problem.rate[b] * problem.seconds[p, b] for b in served)
                per_replica = sum(problem.rate[b] for b in served) / busy if busy else 0.0
                idle_all += loss.left[p] * per_replica * counts[p]
                for b in range(buckets):
                    if np.isfinite(problem.seconds[p, b]):
                        row[at[p, b]] += (1 - loss.left[p]) * problem.rate[b] * mask[b]
                        row[at[p, b]] += loss.left[p] * per_replica * problem.rate[b] * problem.seconds[p, b]
            row[pools * buckets + z] = -1
            limits.append((row / total, idle_all / total))
    if losses:
        row = np.zeros(size)
        row[pools * buckets :] = [loss.chance for loss in losses]
        limits.append((row / total, problem.loss_share))
    for p in range(pools):
        bounds += [(0, 1 if np.isfinite(problem.seconds[p, b]) else 0) for b in range(buckets)]
    found = linprog(
        np.zeros(size),
        A_ub=np.array([row for row, _ in limits]),
        b_ub=np.array([high for _, high in limits]),
        A_eq=np.array(equal),
        b_eq=np.ones(buckets),
        bounds=[*bounds, *[(0, None)] * len(losses)],
        method="highs",
    )
    return bool(found.status == 0)


def _kinds(problem: Problem) -> Iterator[list[bool]]:
    """All buckets, and those that no pool outside a set of pools can serve, for each set that some bucket has."""
    servable = np.isfinite(problem.seconds)
    buckets = range(problem.seconds.shape[1])
    sets = {frozenset(np.flatnonzero(servable[:, b]).tolist()) for b in buckets}
    yield [True] * len(buckets)
    for pools in sets:
        yield [frozenset(np.flatnonzero(servable[:, b]).tolist()) <= pools for b in buckets]


def cheapest_by_trying_all(inputs: PlacementInputs) -> float | None:
    """usd/h of the cheapest placement that keeps every rule and serves all; None where there is none."""
    problem = problem_of(inputs)
    if problem.hopeless.any():
        return None
    best: float | None = None
    every = sorted(
        (np.array(counts) for counts in product(*(range(limit + 1) for limit in problem.limit.tolist()))),
        key=lambda counts: total_usd(problem, counts),
    )
    for counts in every:
        if keeps_the_rules(problem, counts) and can_serve_all(problem, counts):
            best = total_usd(problem, counts)
            break
    return best
