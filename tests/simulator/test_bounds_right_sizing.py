"""The closed form against enumeration of all plans, and against the published rate curve."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from bound_scenes import pool, scene
from hypothesis import given
from hypothesis import strategies as st

from swell.simulator.bounds.right_sizing import needed_replicas, right_sizing, right_sizing_usd

RATES = Path(__file__).parents[3] / "shared" / "data" / "servegen" / "total_rate_m-large.csv"

needs = st.lists(st.integers(0, 3), min_size=1, max_size=6)
works = st.lists(st.floats(0, 500), min_size=1, max_size=40)


def replica_seconds(plan: tuple[int, ...], slot: float, start: float, warm: int = 0) -> float:
    """What a plan costs. Warm replicas are there in the first slot only as far as the plan keeps them."""
    before = (min(warm, plan[0]), *plan[:-1])
    return sum(plan) * slot + start * sum(max(0, now - was) for now, was in zip(plan, before, strict=True))


@given(needed=needs, start=st.sampled_from((0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 400.0)), warm=st.integers(0, 3))
def test_no_plan_is_cheaper(needed: list[int], start: float, warm: int) -> None:
    slot = 60.0
    found = right_sizing(np.array(needed) * slot, slot, start, warm)
    plans = product(*(range(need, max(needed) + 1) for need in needed))
    cheapest = min(replica_seconds(plan, slot, start, warm) for plan in plans)
    assert found.replica_seconds == pytest.approx(cheapest)
    assert replica_seconds(tuple(found.plan.tolist()), slot, start, warm) == pytest.approx(cheapest)


@pytest.mark.parametrize(
    ("start", "plan", "seconds"),
    [
        (121.0, [2, 2, 2, 2], 2 * (240 + 121)),
        (120.0, [2, 2, 2, 2], 2 * (240 + 120)),  # a gap of exactly the start-up is bridged
        (119.0, [2, 0, 0, 2], 2 * (120 + 2 * 119)),
        (0.0, [2, 0, 0, 2], 240),
    ],
)
def test_the_worked_numbers_in_the_module(start: float, plan: list[int], seconds: float) -> None:
    found = right_sizing(np.array([120.0, 0, 0, 120.0]), 60.0, start)
    assert found.plan.tolist() == plan
    assert found.replica_seconds == pytest.approx(seconds)


def test_a_full_slot_needs_no_further_replica() -> None:
    assert needed_replicas(np.array([0.1] * 3).sum(keepdims=True) * 1000, 100.0).tolist() == [3]
    assert needed_replicas(np.array([0.0, 1e-3, 60.0, 60.1]), 60.0).tolist() == [0, 1, 1, 2]


def test_nothing_to_do_costs_nothing() -> None:
    found = right_sizing(np.zeros(5), 60.0, 120.0)
    assert (found.plan.tolist(), found.replica_seconds) == ([0] * 5, 0.0)


@given(work=works, start=st.floats(0, 1000), more=st.floats(0, 500))
def test_longer_starts_cost_more_and_more_work_costs_more(work: list[float], start: float, more: float) -> None:
    needed = np.array(work)
    found = right_sizing(needed, 60.0, start)
    assert found.replica_seconds >= needed.sum() - 1e-6
    assert np.all(found.plan >= needed_replicas(needed, 60.0))
    assert right_sizing(needed, 60.0, start + more).replica_seconds >= found.replica_seconds - 1e-6
    assert right_sizing(needed + more, 60.0, start).replica_seconds >= found.replica_seconds - 1e-6


def test_the_cheapest_pool_counts() -> None:
    made = scene([(0, 50.0, 5), (60, 50.0, 5)], (pool(100.0), pool(30.0, usd=7200.0, name="b")))
    assert right_sizing_usd(made, 60.0) == pytest.approx(220)
    assert right_sizing_usd(made, 60.0, made.pools[1]) == pytest.approx(300)


@pytest.mark.shared_data
@pytest.mark.skipif(
    not RATES.exists(), reason="the data sets of shared/data are not beside the checkout: put them there"
)
@pytest.mark.parametrize(("peak", "share"), [(10, 0.394), (40, 0.357)])
def test_a_published_rate_curve_as_a_share_of_a_static_fleet(peak: int, share: float) -> None:
    rates = np.loadtxt(RATES, delimiter=",", skiprows=1)[:, 1]
    work = rates / rates.max() * peak * 600
    assert right_sizing(work, 600.0, 300.0).replica_seconds / (peak * 600 * len(work)) == pytest.approx(share, abs=5e-4)
    assert rates.mean() / rates.max() == pytest.approx(0.336, abs=5e-4)
