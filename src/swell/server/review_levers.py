"""What could be changed about a model, one lever at a time; nothing here says whether it pays.

An accelerator counts where the model has a latency profile for it and a price is listed. A quantised variant answers
differently, and an objective is a promise: what they would save is told, and left to whoever owns the model.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from swell.errors import UserError
from swell.server.planning import known_accelerators
from swell.server.review_edits import Change, changed
from swell.server.review_replays import QUANTISED, QUANTISED_ARGS, Case, Changes, Outcome, Progress, scenario, served_as
from swell.simulator.demand import peak_replicas
from swell.simulator.feasibility import unloaded_attainment
from swell.simulator.parallel import run_all
from swell.simulator.result import Scenario
from swell.spec import Engine, ModelSpec, Routing
from swell.state import catalogue
from swell.state.scaling import Market, Pool

MOST_MACHINES = 6  # the cheapest an hour of those that will do
_FRACTIONS = (0.0, 0.5, 1.0)
_IDLE_SECONDS = (60.0, 900.0)
_OBJECTIVE_STEPS = (0.9, 1.1)
_PEAK_ROOM = 1.5  # times what the busiest ten minutes fill


@dataclass(frozen=True, slots=True)
class Alternative:
    """One lever moved."""

    lever: str  # replicas, accelerators, spot, idle, routing, objectives or precision
    changes: Changes


@dataclass(frozen=True, slots=True)
class Machines:
    """Accelerators that the model can run on, the cheapest replica first, and those that cannot meet its objective."""

    usable: tuple[str, ...]
    unusable: tuple[tuple[str, float], ...]  # with what even an idle fleet attains


def machines_for(case: Case, jobs: int) -> Machines:
    """UserError where the model as it is has no profile or price."""
    here = scenario(case, case.model)
    prices = catalogue.prices() if case.prices is None else catalogue.load_prices(case.prices)
    profiles = catalogue.profiles() if case.profiles is None else catalogue.load_profiles(case.profiles)
    sold = [price.accelerator for price in prices if price.on_demand_usd_per_hour is not None]
    costs: dict[str, float] = {}
    for name in known_accelerators(served_as(case.model), list(profiles.values()), sold):
        try:
            staged = scenario(case, changed(case.model, accelerators(name)))
        except UserError:  # such as no price of so many of it
            continue
        costs[name] = staged.pools[0].usd_per_hour
    names = sorted(costs, key=lambda each: costs[each])
    scenes = [scenario(case, changed(case.model, accelerators(name))) for name in names]
    idle = run_all([partial(_unloaded, staged) for staged in scenes], jobs)
    target = here.objective.attainment
    attained = list(zip(names, idle, strict=True))
    usable = tuple(name for name, share in attained if share >= target)[:MOST_MACHINES]
    return Machines(usable, tuple((name, share) for name, share in attained if share < target))


def _unloaded(staged: Scenario, progress: Progress) -> float:
    return unloaded_attainment(staged)


def accelerators(*names: str) -> Changes:
    """What a replica may run on, the first being what it begins with."""
    return (Change(("accelerators",), names),)


def of_replicas(model: ModelSpec, now: Outcome) -> Iterator[Alternative]:
    """Fewer at least; where the objective is missed, more."""
    low, high = model.replicas.min, model.replicas.max
    lower = [least for least in (1, 0) if least < low]  # of equals, the one without a cold start
    higher = [] if now.reached else [min(high, max(1, 2 * low))]
    for least in dict.fromkeys([*lower, *(each for each in higher if each > low)]):
        yield Alternative("replicas", (Change(("replicas", "min"), least), Change(("replicas", "max"), high)))
    if not now.reached:
        for most in (math.ceil(1.5 * high), 2 * high):
            yield Alternative("replicas", (Change(("replicas", "min"), low), Change(("replicas", "max"), most)))


def of_spot(case: Case, model: ModelSpec) -> list[Alternative]:
    """Other shares of spot, off included; nothing where no spot machine of its accelerators is listed."""
    now = 0.0 if model.bought_on_spot is None else model.bought_on_spot.max_fraction
    others = [Alternative("spot", spot(share)) for share in _FRACTIONS if share != now]
    return others if is_sold_as_spot(case, model) else []


def spot(max_fraction: float) -> Changes:
    """So much of the capacity may be spot."""
    return (Change(("spot", "max_fraction"), max_fraction),)


def is_sold_as_spot(case: Case, model: ModelSpec) -> bool:
    """Whether a spot price is listed for any of its accelerators."""
    try:
        pools = scenario(case, changed(model, spot(1.0))).pools
    except UserError:
        return False
    return any(pool.market is Market.SPOT for pool in pools)


def of_idle(model: ModelSpec) -> list[Alternative]:
    """Other times until the last replica goes, where it goes at all."""
    if model.replicas.min:
        return []
    others = (seconds for seconds in _IDLE_SECONDS if seconds != model.scaling.idle_seconds)
    return [Alternative("idle", (Change(("scaling", "idle_seconds"), seconds),)) for seconds in others]


def of_routing(case: Case, model: ModelSpec) -> list[Alternative]:
    """By prefix, where the trace tells prefixes."""
    if not len(case.traffic.prefix_blocks) or model.routing is Routing.PREFIX_AFFINITY:
        return []
    return [Alternative("routing", (Change(("routing",), Routing.PREFIX_AFFINITY.value),))]


def of_objectives(model: ModelSpec) -> list[Alternative]:
    """A tenth stricter and a tenth looser."""
    goals = model.objectives
    return [
        Alternative(
            "objectives",
            (
                Change(("objectives", "ttft_ms"), round(goals.ttft_ms * step, 3)),
                Change(("objectives", "itl_ms"), round(goals.itl_ms * step, 3)),
            ),
        )
        for step in _OBJECTIVE_STEPS
    ]


def of_precision(case: Case, model: ModelSpec) -> list[Alternative]:
    """Weights quantised while loading, where the catalogue has a profile of that on accelerators with a price."""
    if model.engine is not Engine.VLLM or served_as(model).endswith(QUANTISED):
        return []
    changes: Changes = (Change(("engine_args",), (*model.engine_args, *QUANTISED_ARGS)),)
    usable = []
    for name in model.accelerators:
        try:
            scenario(case, changed(model, (*changes, *accelerators(name))))
        except UserError:  # no profile in that precision
            continue
        usable.append(name)
    if not usable:
        return []
    kept = () if tuple(usable) == model.accelerators else accelerators(*usable)
    return [Alternative("precision", (*changes, *kept))]


def with_room(case: Case, model: ModelSpec, names: Sequence[str]) -> Changes:
    """These accelerators and, where they are smaller than what there is, as many more replicas as their peak takes.

    Never so many that they could cost more an hour than `replicas.max` of what there is.
    """
    changes = accelerators(*names)
    if model.replicas.min >= model.replicas.max:
        return changes
    now, then = scenario(case, model), scenario(case, changed(model, changes))
    peak = max(peak_replicas(case.traffic, pool.profile, then.objective) for pool in then.pools)
    ceiling = model.replicas.max * _on_demand(now.pools) / _on_demand(then.pools)
    most = min(math.ceil(_PEAK_ROOM * peak) + 1, int(ceiling))
    return (*changes, Change(("replicas", "max"), most)) if most > model.replicas.max else changes


def _on_demand(pools: Sequence[Pool]) -> float:
    return max(pool.usd_per_hour for pool in pools if pool.market is Market.ON_DEMAND)
