"""The least work of a request, and the fluid bound, against sums made by hand and against the engine."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from bound_scenes import pool, scene
from hypothesis import given
from hypothesis import strategies as st

from swell.simulator.bounds.fluid import allowed_misses, fluid_usd
from swell.simulator.bounds.work import cached_tokens, work_per_slot, work_replica_seconds
from swell.simulator.engine import Engine, Job
from swell.state.scaling import LatencyProfile, Market, Objective
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("m", "a", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, 400_000, max_sequences=1000)
OBJECTIVE = Objective(ttft_ms=5000, itl_ms=52.0)


def traffic_of(*lengths: tuple[int, int], blocks: tuple[tuple[int, ...], ...] = ()) -> Traffic:
    return Traffic(
        np.zeros(len(lengths)),
        np.array([n for n, _ in lengths], dtype=np.int32),
        np.array([o for _, o in lengths], dtype=np.int32),
        prefix_blocks=blocks,
        block_tokens=100,
    )


def test_work_by_hand() -> None:
    # 1000 prompt tokens: 50 + 1 ms. Two steps at contexts 1001 and 1002: 2 · 0.03 + 2003 · 8e-5 = 0.22024 ms, which is
    # 0.22024 / (52 - 12) of a step at the limit, of whose fixed 12 ms it is charged that share.
    work = work_replica_seconds(traffic_of((1000, 3)), PROFILE, OBJECTIVE)
    assert work[0] * 1000 == pytest.approx(51 + 0.22024 * (1 + 12 / 40))


def test_one_output_token_takes_no_step() -> None:
    assert work_replica_seconds(traffic_of((1000, 1)), PROFILE, OBJECTIVE)[0] * 1000 == pytest.approx(51)


def test_the_scarcest_of_time_memory_and_places_shares_the_fixed_part() -> None:
    lengths = traffic_of((1000, 3))
    own = 51 + 0.22024
    few_places = work_replica_seconds(lengths, replace(PROFILE, max_sequences=4), OBJECTIVE)[0] * 1000
    assert few_places == pytest.approx(own + 2 * 12 / 4)
    little_memory = work_replica_seconds(lengths, replace(PROFILE, kv_tokens=2003), OBJECTIVE)[0] * 1000
    assert little_memory == pytest.approx(own + 12 * 2003 / 2003)
    hopeless = work_replica_seconds(lengths, PROFILE, replace(OBJECTIVE, itl_ms=10.0))[0] * 1000
    assert hopeless == pytest.approx(own + 2 * 12)  # nobody to share with


def test_only_what_no_earlier_prompt_had_is_computed() -> None:
    blocks = ((1, 2, 3), (1, 2, 4), (5, 2, 3), (1, 2, 3))
    traffic = traffic_of((350, 1), (350, 1), (350, 1), (300, 1), blocks=blocks)
    assert cached_tokens(traffic).tolist() == [0, 200, 0, 299]
    work = work_replica_seconds(traffic, PROFILE, OBJECTIVE) * 1000
    assert work[1] == pytest.approx(0.05 * 150 + 1e-6 * (350**2 - 200**2))


def test_work_falls_into_the_slot_of_the_arrival() -> None:
    traffic = replace(traffic_of((1, 1), (1, 1), (1, 1)), arrival_seconds=np.array([0.0, 59.9, 180.0]))
    assert work_per_slot(traffic, np.array([1.0, 2.0, 4.0]), 60.0).tolist() == [3, 0, 0, 4]


@given(
    lengths=st.lists(st.tuples(st.integers(1, 3000), st.integers(2, 200)), min_size=1, max_size=40),
    itl_ms=st.sampled_from((20.0, 40.0, 100.0)),
)
def test_no_engine_is_busy_for_less(lengths: list[tuple[int, int]], itl_ms: float) -> None:
    """An engine that got everything at once and kept every mean ITL inside the limit was busy at least for the work."""
    engine = Engine(PROFILE, 0.0)
    jobs = [Job(index, 0.0, n, o, 1e9) for index, (n, o) in enumerate(lengths)]
    for job in jobs:
        engine.submit(job, 0.0)
    slowest = 0.0
    while (now := engine.next_event()) != inf:
        for job in engine.run_to(now):
            if job.output > 1:
                slowest = max(slowest, (now - job.first_at) / (job.output - 1))
    # Whatever limit it is held to, it met one that is as long as its own slowest.
    objective = replace(OBJECTIVE, itl_ms=max(itl_ms, slowest * 1000))
    work = work_replica_seconds(traffic_of(*lengths), PROFILE, objective)
    assert work.sum() <= engine.busy_seconds * (1 + 1e-9)


def test_fluid_takes_the_cheapest_pool_of_each_request_and_drops_the_dearest_requests() -> None:
    flat = LatencyProfile("m", "b", 1, 0.0, 0.0, 1 / 4000, 1.0, 1.0, 0.0, 1_000_000)  # n²/4000 ms
    pools = (pool(0.0), pool(0.0, name="b", profile=flat))
    made = scene([(0, 2.0, 5), (0, 4.0, 5), (0, 6.0, 5)], pools)
    # 2000 tokens: 2 s or 1 s. 4000: 4 s either way. 6000: 6 s or 9 s.
    assert fluid_usd(made) == pytest.approx(1 + 4 + 6)
    assert fluid_usd(made, 0.67) == pytest.approx(1 + 4 + 6)
    assert fluid_usd(made, 0.66) == pytest.approx(1 + 4)
    assert fluid_usd(made, 0.0) == 0.0


def test_fluid_pays_spot_prices_only_where_there_was_spot() -> None:
    pools = (pool(0.0), pool(0.0, usd=900.0, name="s", market=Market.SPOT))
    made = scene([(10, 4.0, 30), (70, 4.0, 30), (100, 4.0, 30)], pools)
    # There is spot from 120 s on: the last may wait for it until 130 s.
    limits = {"s": np.array([0, 0, 1])}
    assert fluid_usd(made, None, limits) == pytest.approx(4 + 4 + 1)
    assert fluid_usd(made) == pytest.approx(3)


@given(count=st.integers(1, 5000), attainment=st.floats(0, 1))
def test_misses_keep_the_attainment(count: int, attainment: float) -> None:
    misses = allowed_misses(traffic_of(*[(1, 1)] * count), attainment)
    assert (count - misses) / count >= attainment - 1e-9
