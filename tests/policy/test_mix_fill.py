"""Filling up between plans: what is short is added, what is too much goes, and nothing else moves."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_scene import on_demand, random_inputs, spot

from swell.policy.scaling.mix_fill import Filling, added, filled, filling, floored, trimmed
from swell.policy.scaling.placement import Bucket, PlacementInputs, PlacementRules
from swell.policy.scaling.placement_problem import problem_of
from swell.state.scaling import Objective

NEAR = 1e-5


def asked(seed: int, need: float) -> tuple[Filling, list[int]]:
    """The numbers of a random placement, and counts to begin with."""
    inputs = random_inputs(seed, most_pools=4, most_replicas=12)
    numbers = filling(problem_of(inputs), need, 1.0)
    current = dict(inputs.current)
    return numbers, [current.get(pool.name, 0) for pool in inputs.pools]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), need=st.floats(0.1, 40))
def test_filled_keeps_the_rules_and_is_short_only_where_no_more_fits(seed: int, need: float) -> None:
    numbers, counts = asked(seed, need)
    found = filled(numbers, counts)
    assert all(0 <= n <= limit for n, limit in zip(found, numbers.limit, strict=True))
    if numbers.short(found) > NEAR * need:
        short = numbers.short(found)
        for pool in range(len(found)):
            more = found.copy()
            more[pool] += 1
            assert not numbers.fits(found, pool) or numbers.short(more) >= short - NEAR * need
    else:  # and nothing is there that could go
        for pool in (p for p, n in enumerate(found) if n):
            fewer = found.copy()
            fewer[pool] -= 1
            assert numbers.breaks(found, pool) or numbers.short(fewer) > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), need=st.floats(0.1, 40))
def test_filled_again_is_the_same(seed: int, need: float) -> None:
    numbers, counts = asked(seed, need)
    once = filled(numbers, counts)
    assert filled(numbers, once) == once


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), need=st.floats(0.1, 40), factor=st.floats(1, 3))
def test_more_need_adds_and_takes_nothing_away(seed: int, need: float, factor: float) -> None:
    numbers, counts = asked(seed, need)
    numbers = replace(numbers, losses=[], most=10_000, ceiling_usd=1e9, spot_fraction=1.0)
    low = added(numbers, counts)
    high = added(replace(numbers, need=need * factor, usual=need * factor), low)
    assert all(a <= b for a, b in zip(low, high, strict=True))


def scene(rules: PlacementRules | None = None, *, need: float = 4.0, hazard: float = 6.0) -> Filling:
    pools = (on_demand("X", 3.0), *(spot("X", zone, usd, hazard=hazard)
             for zone, usd in (("us-east-1a", 0.8), ("us-west-2a", 1.0))))  # fmt: skip
    demand = (Bucket.of_means("all", 1.0, 1000, 200),)
    problem = problem_of(PlacementInputs(pools, demand, Objective(5000, 100, 0.99), rules or PlacementRules()))
    return filling(problem, need, float(problem.capacity[0]))


def test_a_reserve_is_bought_where_it_saves_most_for_its_price() -> None:
    calm, stormy = filled(scene(hazard=0.01), [0, 0, 0]), filled(scene(), [0, 0, 0])
    assert calm == [0, 4, 0]  # all in the cheapest zone
    assert stormy[2] > 0
    assert sum(stormy) > 4


def test_what_is_over_the_plan_goes_first_then_the_dearest() -> None:
    numbers = replace(scene(hazard=0.01), losses=[])
    assert trimmed(numbers, [1, 3, 3], [0, 1, 3]) == [0, 1, 3]
    assert trimmed(numbers, [1, 3, 3], [1, 3, 3]) == [0, 3, 1]


def test_base_and_fewest_come_first_and_limits_hold() -> None:
    rules = PlacementRules(on_demand_base=2, min_replicas=5)
    assert floored(scene(rules), [0, 0, 0]) == [2, 3, 0]
    assert floored(replace(scene(rules), limit=[1, 1, 1]), [9, 0, 0]) == [1, 1, 1]
    half = filled(scene(PlacementRules(max_spot_fraction=0.5), hazard=0.01), [0, 0, 0])
    assert half == [2, 2, 0]


@pytest.mark.parametrize(("ceiling", "bought"), [(0.5, 0), (1.7, 2), (100.0, 4)])
def test_the_ceiling_is_kept(ceiling: float, bought: int) -> None:
    numbers = replace(scene(hazard=0.01), ceiling_usd=ceiling)
    found = filled(numbers, [0, 0, 0])
    assert sum(found) == bought
    assert numbers.spend(found) <= ceiling
    assert numbers.is_affordable(found) == (bought == 4)


def test_a_base_that_cannot_be_had_in_full_keeps_no_spot_and_is_had_as_far_as_it_can() -> None:
    pools = (on_demand("X", 3.5), spot("X", "us-east-1a", 0.7))
    inputs = PlacementInputs(
        pools, (Bucket.of_means("all", 1.0, 500, 200),), Objective(), PlacementRules(on_demand_base=5, usd_per_hour=8.0)
    )
    numbers = replace(filling(problem_of(inputs), 0.7, 1.0), capacity=[1.0, 1.0])
    assert filled(numbers, [0, 11]) == [2, 0]
