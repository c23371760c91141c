"""A policy that knows no budget, inside one: by the largest maximum of replicas that its spend allows.

A maximum is the one means by which somebody keeps such a policy inside a budget. Which maximum is the right one nobody
knows before: what the policy would spend depends on the traffic. Here it is found by replaying, so that the policy is
shown at the best that it could have been given, and never beyond the budget.
"""

from collections.abc import Callable
from dataclasses import dataclass

from swell.simulator.result import Result, Scenario
from swell.simulator.run import warm_replicas
from swell.simulator.treasury import SimBudget, price_of

MOST_REPLAYS = 10  # beside the one without a maximum: enough for a thousand replicas
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Ceiling:
    """What came of it. `max_replicas` is None where the policy stays inside the budget without one."""

    result: Result
    max_replicas: int | None
    free: Result  # with the maximum that there is anyway


def most_spent(result: Result) -> int:
    """Nano-dollars of the dearest period."""
    return max(result.spent_usd_nanos, default=0)


def largest_ceiling(scenario: Scenario, budget: SimBudget, run: Callable[[int], Result]) -> Ceiling:
    """The replay that attains most, the cheapest of equals, of those without a period that costs more than the budget.

    `run` replays with at most so many replicas, and counts what each period costs. More replicas cost more, as a rule,
    so the maximum is halved in on, beginning with what the budget pays for all the time. Without replicas nothing is
    spent.
    """
    free = run(scenario.max_replicas)
    if most_spent(free) <= budget.usd_nanos:
        return Ceiling(free, None, free)
    # As many as there ever were, and as were there at first, may be affordable where no maximum at all was not: a
    # policy that asks for more and is held back remembers what it asked for.
    low, high = 0, max(int(free.timeline.present.max(initial=0)), warm_replicas(scenario)) + 1
    best: tuple[int, Result] | None = None
    middle = min(high - 1, paid_throughout(scenario, budget))
    for _ in range(MOST_REPLAYS):
        if not low < middle < high:
            middle = (low + high) // 2
        if middle <= low:
            break
        result = run(middle)
        if most_spent(result) > budget.usd_nanos:
            high = middle
            continue
        low = middle
        if best is None or _worth(result) > _worth(best[1]):
            best = middle, result
    most, result = best or (0, run(0))
    return Ceiling(result, most, free)


def _worth(result: Result) -> tuple[int, int, float]:
    """More is better: requests that met the objective, those of priority batch that were answered, and money kept."""
    return result.attained, 0 if result.batch is None else result.batch.answered, -result.cost_usd


def paid_throughout(scenario: Scenario, budget: SimBudget) -> int:
    """Replicas of the first pool that the budget pays for from the beginning of a period to its end."""
    price = price_of(scenario.pools[0])
    seconds = min(budget.seconds, max(1.0, scenario.traffic.seconds))
    return scenario.max_replicas if not price else int(budget.usd_nanos * _SECONDS_PER_HOUR // (price * seconds))
