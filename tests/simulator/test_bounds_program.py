"""The linear and the integer program against enumeration of all plans for tiny horizons, and by their properties."""

from collections.abc import Iterable
from itertools import combinations, product

import numpy as np
import pytest
from bound_scenes import pool, scene
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.errors import UserError
from swell.simulator.bounds.demand import build_lots, build_optimistic_lots, requests_of
from swell.simulator.bounds.fluid import allowed_misses, fluid_usd
from swell.simulator.bounds.program import integer_bound, linear_bound
from swell.simulator.bounds.right_sizing import right_sizing_usd
from swell.simulator.result import Scenario
from swell.simulator.spot.market import SpotEvent, SpotEventKind, Timeline
from swell.state.scaling import LatencyProfile, Market

TICK = 60.0
TINY_TICKS = 4

Requests = list[tuple[float, float, float]]


@st.composite
def tiny(draw: st.DrawFn) -> Requests:
    """A few requests of the same size within four ticks, that may wait for one tick, or two, or none."""
    wait = draw(st.sampled_from((0.0, 60.0, 120.0)))
    work = draw(st.sampled_from((10.0, 25.0, 40.0)))
    ticks = TINY_TICKS - int(wait // TICK)
    arrivals = draw(st.lists(st.integers(0, ticks - 1), min_size=1, max_size=6))
    return [(at * TICK, work, wait) for at in arrivals]


def serves(plan: tuple[int, ...], windows: Iterable[tuple[int, int, float]]) -> bool:
    """Whether the plan can do the work of (first tick, last tick, work): earliest deadline first, tick by tick."""
    left = [[last, first, work] for first, last, work in windows]
    for tick, replicas in enumerate(plan):
        capacity = replicas * TICK
        for item in sorted(left):
            if item[1] <= tick:
                done = min(capacity, item[2])
                item[2] -= done
                capacity -= done
        if any(item[0] <= tick and item[2] > 1e-9 for item in left):
            return False
    return True


def cheapest(made: Scenario, most: int = 5) -> float:
    """Of all plans, with any requests missed that may be."""
    requests = requests_of(made, TICK)
    windows = list(zip(requests.first_tick, requests.last_tick, requests.works[0], strict=True))
    kept = len(windows) - allowed_misses(made.traffic, made.objective.attainment)
    start = made.pools[0].start_seconds
    costs = []
    for plan in product(range(most), repeat=requests.ticks):
        before = (plan[0], *plan[:-1])  # warm at first
        starts = sum(max(0, now - was) for now, was in zip(plan, before, strict=True))
        cost = sum(plan) * TICK + starts * start
        if (not costs or cost < min(costs)) and any(serves(plan, some) for some in combinations(windows, kept)):
            costs.append(cost)
    return min(costs)


@settings(max_examples=25)
@given(requests=tiny(), start=st.sampled_from((0.0, 60.0, 90.0, 300.0)))
def test_with_whole_replicas_it_is_the_cheapest_plan(requests: Requests, start: float) -> None:
    made = scene(requests, (pool(start),))
    found = integer_bound(made, TICK, relative_gap=0.0)
    assert found.usd == pytest.approx(cheapest(made))
    assert found.plan_usd == pytest.approx(found.usd)
    assert found.gap == pytest.approx(0, abs=1e-9)


@settings(max_examples=25)
@given(requests=tiny(), start=st.sampled_from((0.0, 90.0, 300.0)), attainment=st.sampled_from((1.0, 0.8, 0.5)))
def test_no_plan_undercuts_a_bound(requests: Requests, start: float, attainment: float) -> None:
    made = scene(requests, (pool(start),), attainment)
    fluid, linear, whole = fluid_usd(made), linear_bound(made, TICK), integer_bound(made, TICK, relative_gap=0.0)
    assert fluid <= linear.usd + 1e-6
    assert linear.usd <= whole.usd + 1e-6
    assert whole.usd <= cheapest(made) + 1e-6
    assert linear.usd <= linear.plan_usd + 1e-6


@settings(max_examples=20)
@given(
    arrivals=st.lists(st.floats(0, 1800), min_size=2, max_size=60),
    work=st.floats(1, 30),
    start=st.floats(0, 400),
    seed=st.integers(0, 99),
)
def test_the_order_of_bounds_and_what_moves_them(arrivals: list[float], work: float, start: float, seed: int) -> None:
    works = np.random.default_rng(seed).uniform(0.1, 2 * work, len(arrivals))
    requests = [(at, each, 45.0) for at, each in zip(arrivals, works, strict=True)]
    made = [scene(requests, (pool(start),), attainment) for attainment in (1.0, 0.9, 0.6)]
    linear = [linear_bound(each, TICK).usd for each in made]
    assert linear[0] >= linear[1] - 1e-6 >= linear[2] - 2e-6  # asking for less costs less
    assert all(fluid_usd(each) <= usd + 1e-6 for each, usd in zip(made, linear, strict=True))
    assert linear[0] <= right_sizing_usd(made[0], TICK) + 1e-6
    assert linear_bound(scene(requests, (pool(start + 100),)), TICK).usd >= linear[0] * (1 - 2e-3)


@pytest.mark.parametrize(("start", "usd"), [(121.0, 240.0), (120.0, 240.0), (119.0, 239.0)])
def test_a_gap_is_bridged_up_to_the_start_up(start: float, usd: float) -> None:
    made = scene([(0, 60.0, 0), (180, 60.0, 0)], (pool(start),))
    for bound in (linear_bound(made, TICK), integer_bound(made, TICK, relative_gap=0.0)):
        assert bound.usd == pytest.approx(usd)
        assert start == 120.0 or bound.starts == pytest.approx(1.0 if start < 120 else 0.0)  # a tie at 120 s


def test_work_moves_to_where_there_is_room_before_its_deadline() -> None:
    arrivals = (0, 60, 60)  # one replica does for the first tick; a second that is warm from then on is paid for it
    at_once = scene([(at, 60.0, 0) for at in arrivals], (pool(300.0),))
    can_wait = scene([(at, 60.0, 60) for at in arrivals], (pool(300.0),))
    assert integer_bound(at_once, TICK).plan["a"].tolist() == [2, 2]
    assert integer_bound(can_wait, TICK).plan_usd == pytest.approx(180)


def test_what_is_missed_is_what_saves_most() -> None:
    # One heavy request keeps a second replica on; of eight, one may be missed.
    requests = [(tick * TICK, 30.0, 0.0) for tick in range(7)] + [(180.0, 80.0, 0.0)]
    assert integer_bound(scene(requests, (pool(100.0),)), TICK).usd == pytest.approx(7 * 60 + 60 + 100)
    # With it missed, half a replica would do, but replicas are whole.
    assert integer_bound(scene(requests, (pool(100.0),), 0.87), TICK).usd == pytest.approx(7 * 60)
    assert linear_bound(scene(requests, (pool(100.0),), 0.87), TICK).usd == pytest.approx(7 * 30)


def test_spot_is_used_while_it_is_there_and_coming_back_is_paid() -> None:
    pools = (pool(10.0), pool(20.0, usd=1800.0, name="s", market=Market.SPOT))
    made = scene([(tick * TICK, 60.0, 0) for tick in range(4)], pools)
    found = integer_bound(made, TICK, {"s": np.array([1, 0, 1, 1])}, relative_gap=0.0)
    # On demand in the second tick (60 + 10), spot in the others (30 each), started twice (10 each).
    assert found.usd == pytest.approx(70 + 90 + 20)
    assert found.plan["s"].tolist() == [1, 0, 1, 1]
    assert linear_bound(made, TICK, {"s": np.array([1, 0, 1, 1])}).usd == pytest.approx(found.usd)


def test_a_market_of_the_scenario_limits_spot_and_notice_still_serves() -> None:
    pools = (pool(0.0), pool(0.0, usd=1800.0, name="s", market=Market.SPOT))
    events = [
        SpotEvent(0.0, "s", SpotEventKind.UP, 2),
        SpotEvent(70.0, "s", SpotEventKind.DOWN, 2),
        SpotEvent(70.0, "s", SpotEventKind.KILL, 2),
        SpotEvent(200.0, "s", SpotEventKind.UP, 1),
    ]
    made = scene([(tick * TICK, 60.0, 0) for tick in range(5)], pools)
    given_market = Scenario(made.traffic, pools, made.objective, spot=Timeline(["s"], events, notice_seconds=30.0))
    # Until 100 s, and from 200 s on: in ticks 0, 1, 3 and 4.
    assert linear_bound(given_market, TICK).usd == pytest.approx(4 * 30 + 60)
    assert fluid_usd(given_market) == pytest.approx(4 * 30 + 60)


def test_each_request_runs_where_it_is_cheapest() -> None:
    flat = LatencyProfile("m", "b", 1, 0.0, 0.0, 1 / 40_000, 1.0, 1.0, 0.0, 1_000_000)  # n²/40000 ms
    pools = (pool(0.0), pool(0.0, name="b", profile=flat))
    made = scene([(0, 20.0, 0), (0, 60.0, 0)], pools)
    # 20 s or 10 s; 60 s or 90 s.
    assert linear_bound(made, TICK).usd == pytest.approx(70)
    assert integer_bound(made, TICK, relative_gap=0.0).usd == pytest.approx(120)


def test_the_fleets_own_bounds_hold() -> None:
    made = [(tick * TICK, 30.0, 0.0) for tick in range(5)]
    assert linear_bound(scene(made, (pool(0.0),), min_replicas=2), TICK).usd == pytest.approx(4 * 120 + 30)
    with pytest.raises(UserError, match="no fleet"):
        linear_bound(scene([(0, 90.0, 0)], (pool(0.0),), max_replicas=1), TICK)
    with pytest.raises(UserError, match="no fleet"):
        integer_bound(scene([(0, 90.0, 0)], (pool(0.0),), max_replicas=1), TICK)


def test_lots_lose_no_work_and_err_to_their_side() -> None:
    random = np.random.default_rng(5)
    requests = [(float(at), float(work), 200.0) for at, work in random.uniform(0.1, 900, (200, 2))]
    seen = requests_of(scene(requests, (pool(0.0),)), TICK)
    plan = build_lots(seen, np.ones(200, dtype=bool))
    bound = build_optimistic_lots(seen, 0.05)
    for lots in (plan, bound):
        assert lots.work.sum() == pytest.approx(sum(work for _, work, _ in requests), rel=1e-4)
    assert bound.piece_work.sum() == pytest.approx(bound.work.sum())
    spans = seen.last_tick - seen.first_tick
    assert (plan.last_tick - plan.first_tick).max() <= spans.max() <= (bound.last_tick - bound.first_tick).max()


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(1)
    requests = [(float(at), 20.0, 60.0) for at in random.uniform(0, 1200, 100)]
    integer_bound(scene(requests, (pool(130.0),), 0.97), TICK, nodes=5)
    linear_bound(scene(requests, (pool(130.0),), 0.97), TICK)
    assert capfd.readouterr() == ("", "")
