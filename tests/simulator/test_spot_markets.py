"""Spot markets: one seed, one weather; capacity and events agree; kills take what runs; recordings are replayed."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swell.errors import UserError
from swell.policy.scaling.regions import region_of
from swell.simulator.spot import (
    Family,
    NodeEvent,
    Runs,
    Shock,
    SpotEvent,
    SpotEventKind,
    Timeline,
    Zone,
    couple,
    is_of,
    market_for,
    read_node_events,
    replay_market,
    semi_markov_market,
    typical_zones,
)
from swell.state.scaling import LatencyProfile, Market, Pool

HOUR = 3600.0
WEEK = 168 * HOUR
PROFILE = LatencyProfile("m", "L4", 1, 30, 0.1, 0, 40, 0.1, 0.0004, 100_000)


def spot_pool(zone: str, name: str = "", **more: float) -> Pool:
    return Pool(name or f"L4/spot/{zone}", PROFILE, 0.3, 120, Market.SPOT, zone, **more)  # type: ignore[arg-type]


def zone(name: str, nodes: int = 4, batches: float = 0.0, family: Family = Family.LOG_NORMAL) -> Zone:
    up, down = Runs(3 * HOUR, HOUR, family), Runs(HOUR, 0.5 * HOUR, family)
    return Zone(name, region_of(name), up, down, nodes, batches, 2.0)


def drained(market: Timeline) -> list[SpotEvent]:
    fresh, events = market.restarted(), []
    while (event := fresh.next_event()) is not None:
        events.append(event)
    return events


@given(seed=st.integers(0, 2**32), batches=st.sampled_from([0.0, 0.5, 3.0]), family=st.sampled_from(Family))
def test_a_seed_gives_the_same_events_and_events_add_up_to_capacity(seed: int, batches: float, family: Family) -> None:
    zones = [zone("us-east-1a", 6, batches, family), zone("us-east-1b", 1, batches, family)]
    shock = Shock(Runs(20 * HOUR, 10 * HOUR), Runs(HOUR, HOUR), {"us-east-1a": 1.0, "us-east-1b": 0.5})
    market = semi_markov_market(zones, seed=seed, horizon_seconds=WEEK, shocks=[shock])
    again = semi_markov_market(zones, seed=seed, horizon_seconds=WEEK, shocks=[shock])
    assert market.events == again.events
    assert drained(market) == list(market.events)
    assert drained(market) == list(market.events)  # a replay leaves the market as it was
    room: dict[str, int] = defaultdict(int)
    moments = sorted({event.at for event in market.events})
    taken: list[tuple[float, str, int]] = []
    for at in moments:
        for event in (e for e in market.events if e.at == at):
            assert event.nodes >= 1
            if event.kind is SpotEventKind.KILL:
                assert taken[-1] == (at, event.zone, event.nodes)  # right after the room went
            else:
                room[event.zone] += event.nodes if event.kind is SpotEventKind.UP else -event.nodes
                taken += [(at, event.zone, event.nodes)] if event.kind is SpotEventKind.DOWN else []
        for each in zones:
            assert market.capacity(each.name, at) == room[each.name]
            assert 0 <= room[each.name] <= each.nodes
    assert all(0 <= at < WEEK for at in moments)


def test_another_seed_another_weather_and_a_new_zone_changes_no_other() -> None:
    one = semi_markov_market([zone("a")], seed=1, horizon_seconds=WEEK)
    two = semi_markov_market([zone("a"), zone("b")], seed=1, horizon_seconds=WEEK)
    assert one.events == tuple(event for event in two.events if event.zone == "a")
    assert one.events != semi_markov_market([zone("a")], seed=2, horizon_seconds=WEEK).events


def test_what_can_be_had_is_what_the_zone_has_room_for() -> None:
    up, down = SpotEventKind.UP, SpotEventKind.DOWN
    market = Timeline(["z"], [SpotEvent(0, "z", up, 3), SpotEvent(10, "z", down, 2)], notice_seconds=30)
    pool = spot_pool("z")
    assert [market.available(pool, at) for at in (0, 9.9, 10, 1e9)] == [3, 3, 1, 1]
    assert market.available(spot_pool("z", max_replicas=2), 5) == 2
    assert market.available(Pool("L4", PROFILE, 0.8, 120), 5) == 10_000
    assert market.notice_seconds == market.restarted().notice_seconds == 30
    with pytest.raises(ValueError, match="no zone 'other'"):
        market.available(spot_pool("other"), 0)


def test_types_of_one_zone_may_have_markets_of_their_own() -> None:
    market = Timeline(["H100/spot/z", "z"], [SpotEvent(0, "H100/spot/z", SpotEventKind.UP, 2)])
    dear, cheap = spot_pool("z", "H100/spot/z"), spot_pool("z")
    assert (market.available(dear, 1), market.available(cheap, 1)) == (2, 0)
    assert [is_of(market.events[0], pool) for pool in (dear, cheap)] == [True, False]
    assert not is_of(SpotEvent(0, "z", SpotEventKind.KILL, 1), Pool("L4", PROFILE, 0.8, 120, zone="z"))


@pytest.mark.parametrize("events", [[(5, "up", 1), (4, "up", 1)], [(0, "up", 1), (1, "down", 2)], [(0, "up", 0)]])
def test_a_timeline_that_cannot_be_is_refused(events: list[tuple[float, str, int]]) -> None:
    with pytest.raises(ValueError, match=r"order of time|more nodes leave"):
        Timeline(["z"], [SpotEvent(at, "z", SpotEventKind(kind), nodes) for at, kind, nodes in events])


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(("mean", "median"), [(10.4, 1.41), (0.72, 0.33), (2.0, 2.0), (1.0, 3.0)])
def test_runs_have_the_mean_and_the_median_they_were_given(family: Family, mean: float, median: float) -> None:
    import numpy as np

    drawn = Runs(mean, median, family).draw(np.random.default_rng(7), 400_000)
    assert drawn.min() >= 0
    assert abs(float(drawn.mean()) / mean - 1) < 0.06
    assert abs(float(np.median(drawn)) / min(median, mean) - 1) < 0.06


def test_zones_that_were_coupled_fall_together_and_keep_their_availability() -> None:
    names = ("us-east-1a", "us-east-1b", "us-west-2a", "us-west-2b")
    zones = [zone(name) for name in names]
    coupling = couple(zones)
    pairs = coupling.correlations
    within = [pairs[names[0], names[1]], pairs[names[2], names[3]]]
    across = [value for pair, value in pairs.items() if region_of(pair[0]) != region_of(pair[1])]
    assert within == pytest.approx([0.43, 0.43], abs=0.01)
    assert across == pytest.approx([0.14] * 4, abs=0.01)
    horizon = 3000 * 24 * HOUR
    market = semi_markov_market(coupling.zones, seed=3, horizon_seconds=horizon, shocks=coupling.shocks)
    for each in zones:
        downs = [event.at for event in market.events if (event.zone, event.kind) == (each.name, SpotEventKind.DOWN)]
        ups = [event.at for event in market.events if (event.zone, event.kind) == (each.name, SpotEventKind.UP)]
        up_seconds = sum(downs) + horizon * (len(ups) - len(downs)) - sum(ups)
        assert up_seconds / horizon == pytest.approx(each.availability, abs=0.03)
        assert horizon / len(downs) == pytest.approx(each.cycle_seconds, rel=0.1)


def test_no_correlation_is_no_shock() -> None:
    coupling = couple([zone("us-east-1a"), zone("us-west-2a")], within=0, across=0)
    assert coupling.shocks == ()
    assert coupling.zones == (zone("us-east-1a"), zone("us-west-2a"))


def test_a_market_for_pools_has_a_zone_for_each_spot_pool() -> None:
    pools = [spot_pool("use1-az1", hazard_per_hour=0.25), spot_pool("usw2-az1"), Pool("L4", PROFILE, 0.8, 120)]
    market = market_for(pools, seed=1, horizon_seconds=WEEK, nodes=5)
    assert market.zones == ("L4/spot/use1-az1", "L4/spot/usw2-az1")
    assert {market.available(pools[0], hour * HOUR) for hour in range(168)} == {0, 5}
    assert market.events == market_for(pools, seed=1, horizon_seconds=WEEK, nodes=5).events


def test_recordings_loop_and_shift_by_zone() -> None:
    recorded = [NodeEvent(100, "a", True), NodeEvent(160, "b", True), NodeEvent(200, "a", False)]
    market = replay_market(recorded, zones=["x", "y"], horizon_seconds=301, shift_seconds=60)
    assert [market.capacity("x", at) for at in (0, 59, 60, 99, 100, 160, 200)] == [1, 1, 2, 2, 1, 2, 1]
    assert [market.capacity("y", at) for at in (0, 39, 40, 99, 100)] == [2, 2, 1, 1, 2]
    doubled = replay_market(recorded, zones=["x"], horizon_seconds=90, nodes_per_node=2)
    assert [(event.at, event.kind, event.nodes) for event in doubled.events] == [(0, "up", 2), (60, "up", 2)]


def test_recordings_of_several_zones_stay_apart() -> None:
    recorded = [NodeEvent(0, "a", True, "x"), NodeEvent(50, "b", True, "y"), NodeEvent(90, "b", False, "y")]
    market = replay_market(recorded, zones=["x", "y"], horizon_seconds=85, shift_seconds=0)
    assert [(event.zone, event.at) for event in market.events] == [("x", 0.0), ("y", 50.0)]


def test_a_file_of_node_events_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("time_ms,event,node\n2000,remove,n1\n1000,add,n1\n")
    assert read_node_events(path) == [NodeEvent(1.0, "n1", True), NodeEvent(2.0, "n1", False)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time_ms,event,node\n", "no node events"),
        ("time_ms,event,node\n1,burn,n\n", "line 2"),
        ("time_ms,event,node\nsoon,add,n\n", "line 2"),
        ("time_ms,event,node\n-5,add,n\n", "line 2"),
        ("at,what\n1,add\n", "line 2"),
        ("time_ms,event,node\n1\n", "line 2"),
    ],
)
def test_a_file_that_holds_no_events_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "events.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_node_events(path)
    with pytest.raises(UserError, match="No such file"):
        read_node_events(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("us-east-1b", "us-east-1"),
        ("us-east1-b", "us-east1"),
        ("use1-az2", "use1"),
        ("eastus-1", "eastus"),
        ("us-east-1", "us-east-1"),
        ("us-gov-west-1", "us-gov-west-1"),
        ("somewhere", "somewhere"),
        ("", ""),
    ],
)
def test_the_region_of_a_zone(name: str, region: str) -> None:
    assert region_of(name) == region


@example(hazards=[0.01, 0.0, 0.25], within=0.5, across=0.0)  # a chance of 1.0000000000000002
@settings(max_examples=30)
@given(
    hazards=st.lists(st.sampled_from([0.0, 0.01, 0.25, 2.0, 60.0]), min_size=1, max_size=6),
    within=st.floats(0, 0.95),
    across=st.floats(0, 0.95),
)
def test_any_zones_can_be_coupled(hazards: list[float], within: float, across: float) -> None:
    pools = [spot_pool(f"r{index % 2}-{'abc'[index // 2]}", hazard_per_hour=h) for index, h in enumerate(hazards)]
    zones = typical_zones(pools)
    coupling = couple(zones, within, across)
    assert all(0 <= chance <= 1 for shock in coupling.shocks for chance in shock.hits.values())
    assert all(-1e-9 <= value < 1 for value in coupling.correlations.values())
    for wanted, own in zip(zones, coupling.zones, strict=True):
        assert own.availability >= wanted.availability - 1e-9  # shocks take the rest
    market = semi_markov_market(coupling.zones, seed=1, horizon_seconds=24 * HOUR, shocks=coupling.shocks)
    assert market.zones == tuple(zone.name for zone in zones)
