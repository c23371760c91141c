"""Batch: how much of it there is, where it runs, and that nobody else pays for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mix_scene import MIX, OBJECTIVE, POOLS, PROFILE, TICK, A, B, C, Fleet

from swell.policy.queueing import BATCH_FILL, OTHERS_SECONDS, batch_room
from swell.policy.scaling.batch import CATCH_UP_SECONDS, LEVEL_SECONDS, BatchMemory, batch_need
from swell.policy.scaling.capacity import Mix, capacity
from swell.policy.scaling.mix_batch import PATIENCE_SECONDS, Place, place_batch
from swell.policy.scaling.placement import PlacementRules
from swell.state.scaling import LengthSums, Market, ReplicaState, Window

SPOT = (A, B, C)
RATE = capacity(PROFILE, OBJECTIVE, MIX)[0]


def window(arrivals: int, **more: float) -> Window:
    sums = LengthSums(arrivals, 1000.0 * arrivals, 1e6 * arrivals, 200.0 * arrivals, 4e4 * arrivals, 2e5 * arrivals)
    return Window(0.0, TICK, arrivals, 1000 * arrivals, sums, **more)  # type: ignore[arg-type]


def needs(memory: BatchMemory, seen: Window | None, turns: int = 1) -> tuple[float, BatchMemory]:
    need = 0.0
    for _ in range(turns):
        need, memory = batch_need(memory, PROFILE, OBJECTIVE, seen, Mix.of_means(500, 100), TICK)
    return need, memory


def test_what_arrives_is_the_need_on_average_from_the_first_turn_on() -> None:
    one = int(RATE * TICK)
    first, memory = needs(BatchMemory(), window(2 * one))
    assert first == pytest.approx(2.0, rel=0.05)
    steady, memory = needs(memory, window(2 * one), 300)
    assert steady == pytest.approx(2.0, rel=0.05)
    burst, memory = needs(memory, window(20 * one))
    assert burst < 2.5, "a burst is waited out"
    over, _ = needs(memory, None, int(3 * LEVEL_SECONDS / TICK))
    assert over < 0.15


def test_what_waits_is_worked_off_and_one_who_waits_is_served() -> None:
    waiting = int(3 * RATE * CATCH_UP_SECONDS)
    need, _ = needs(BatchMemory(window(1).completed), window(0, queued=waiting))
    assert need == pytest.approx(3.0, rel=0.01)
    alone, _ = needs(BatchMemory(), window(0, in_flight=1))
    assert 0 < alone < 1


@given(st.integers(0, 10_000), st.floats(0, 2 * OTHERS_SECONDS))
def test_room_for_others_is_kept_while_others_come(limit: int, ago: float) -> None:
    room = batch_room(limit, ago)
    assert limit * BATCH_FILL <= room <= limit
    assert room > 0 or limit == 0
    assert ago <= OTHERS_SECONDS or room == limit


counts = st.integers(0, 1000)
part = st.builds(
    Window, st.just(0.0), st.just(TICK), counts, counts, st.just(LengthSums(3, 30.0, 300.0, 3.0, 3.0, 30.0)), counts,
    counts, counts, in_flight=counts, queued=counts, mean_in_flight=counts.map(float),
)  # fmt: skip


@given(part, part)
def test_others_and_batch_make_up_the_window(others: Window, batch: Window) -> None:
    whole = replace(
        others,
        arrivals=others.arrivals + batch.arrivals,
        completed=others.completed + batch.completed,
        in_flight=others.in_flight + batch.in_flight,
        queued=others.queued + batch.queued,
        batch=batch,
    )
    found = whole.of_others
    assert (found.arrivals, found.in_flight, found.queued) == (others.arrivals, others.in_flight, others.queued)
    assert found.completed == others.completed
    assert found.batch is None
    assert 0 <= found.running_share <= 1


places = st.lists(
    st.builds(
        lambda pool, capacity, spare, more, proven: Place(
            pool, capacity, pool.usd_per_hour, spare, spare + more, proven
        ),
        st.sampled_from(POOLS), st.floats(0.2, 3), st.integers(0, 5), st.integers(0, 20), st.booleans(),
    ),
    max_size=4, unique_by=lambda place: place.pool.name,
)  # fmt: skip


@given(places, st.floats(0.01, 20), st.integers(0, 30), st.floats(0, 30), st.booleans())
def test_batch_has_no_more_than_it_needs_and_than_it_may(
    given_places: list[Place], need: float, most: int, usd: float, may: bool
) -> None:
    found = place_batch(need, given_places, most=most, usd_left=usd, may_be_on_demand=may)
    assert sum(found.values()) <= most
    assert sum(place.pool.usd_per_hour * found[place.pool.name] for place in given_places) <= usd + 1e-6
    used = [place for place in given_places if found[place.pool.name]]
    for place in given_places:
        count = found[place.pool.name]
        assert 0 <= count <= place.room
        if place.pool.market is not Market.SPOT:
            assert may or not count
        elif not place.is_proven:
            assert count <= place.spare + 1
    carried = sum(place.capacity * found[place.pool.name] for place in given_places)
    one_more = max((place.capacity for place in used), default=0.0)
    assert may or carried < need + 2 * one_more, "one rounded up, one that moves"
    on_demand = sum(place.capacity * found[place.pool.name] for place in used if place.pool.market is not Market.SPOT)
    assert on_demand < need + one_more


def count_of(fleet: Fleet, *pools: str) -> int:
    return sum(fleet.count(pool) for pool in pools)


def test_batch_is_on_spot_whatever_base_and_fraction_others_have() -> None:
    rules = PlacementRules(on_demand_base=2, max_spot_fraction=0.5)
    alone, with_batch = Fleet(rules=rules), Fleet(rules=rules)
    alone.run(60, 6)
    with_batch.run(60, 6, batch=5.0)
    assert with_batch.count("X") == alone.count("X")
    spot = [pool.name for pool in SPOT]
    assert count_of(with_batch, *spot) - count_of(alone, *spot) == 5
    assert "besides for 5.00 of batch, which may wait" in with_batch.decisions[-1].reason
    before = with_batch.decisions[-1].counts
    with_batch.run(60, 6, batch=5.0)
    assert all(decision.is_hold for decision in with_batch.decisions[-60:])
    assert with_batch.decisions[-1].counts == before
    with_batch.run(60, 6)
    assert count_of(with_batch, *spot) == count_of(alone, *spot)


def test_batch_alone_goes_where_spot_is_cheapest_and_keeps_no_reserve() -> None:
    fleet = Fleet()
    fleet.run(60, 0, batch=3.0)
    assert (fleet.count(A.name), fleet.ready) == (3, 3)
    assert fleet.decisions[-1].binding == "batch"


def test_nothing_stands_in_for_batch_before_it_has_waited_and_then_on_demand_until_spot_is_back() -> None:
    fleet = Fleet()
    fleet.run(60, 2, batch=4.0)
    for pool in SPOT:
        fleet.take(pool.name)
        fleet.closed.add(pool.name)
    turns = int(PATIENCE_SECONDS / TICK)
    fleet.run(turns - 2, 2, batch=4.0)
    assert fleet.count("X") == 2, "for the others"
    fleet.run(20, 2, batch=4.0)
    assert fleet.count("X", ReplicaState.READY) == 6
    fleet.closed.clear()
    fleet.run(200, 2, batch=4.0)
    assert (fleet.count("X"), fleet.ready >= 6) == (0, True)


def test_others_keep_what_they_need_when_a_zone_goes() -> None:
    fleet = Fleet()
    fleet.run(60, 4, batch=4.0)
    lost = max(SPOT, key=lambda pool: fleet.count(pool.name))
    fleet.take(lost.name)
    fleet.closed.add(lost.name)
    decision = fleet.turn(4, batch=4.0)
    assert sum(count for name, count in decision.counts if name != lost.name) >= 4
    fleet.run(30, 4, batch=4.0)
    assert fleet.ready >= 8


@pytest.mark.parametrize("ceiling", [3.0, 5.0, 8.0])
def test_a_ceiling_of_spend_is_kept_and_others_come_first(ceiling: float) -> None:
    fleet, alone = (Fleet(rules=PlacementRules(usd_per_hour=ceiling)) for _ in range(2))
    for _ in range(100):
        decision = fleet.turn(4, batch=6.0)
        assert fleet.spend(decision) <= ceiling + 1e-9
        alone.turn(4)
    assert fleet.ready >= alone.ready
