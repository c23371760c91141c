"""What holds for every peer: bounds, holds, equal decisions for equal observations, a knob that does what it says."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peer_scene import POOL, fleet, scenario, seen, served, spot_pool

from swell.ports.scaler import Scaler
from swell.simulator.peers import KNOBS, PEERS
from swell.simulator.peers.static import Static
from swell.state.scaling import Market, Observation

Moment = tuple[bool, int, int, int, float, int, int]


@st.composite
def moments(draw: st.DrawFn) -> list[Moment]:
    """(observed?, fewer ready, starting, in flight, KV use, queued, arrivals) in a row."""
    one = st.tuples(
        st.booleans(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 10), st.floats(0.0, 1.0),
        st.integers(0, 200), st.integers(0, 5000),
    )  # fmt: skip
    return draw(st.lists(one, min_size=1, max_size=40))


def shown(peer: Scaler, now: float, wanted: int, moment: Moment) -> Observation:
    observed, fewer, starting, in_flight, kv, queued, arrivals = moment
    replicas = fleet(max(0, wanted - fewer), starting, in_flight=in_flight, waiting=in_flight // 3, kv=kv)
    mean = float(queued + in_flight * wanted)
    found = seen(
        now, replicas, seconds=peer.interval_seconds, mean=mean, queued=queued, arrivals=arrivals, prompt=500,
        completed=served(arrivals, 500, 200),
    )  # fmt: skip
    return found if observed else replace(found, window=None)


def trail(peer: Scaler, row: list[Moment]) -> list[tuple[Observation, object]]:
    now, wanted, found = 0.0, 2, []
    for moment in row:
        now += peer.interval_seconds
        observation = shown(peer, now, wanted, moment)
        decision = peer.decide(observation)
        wanted = min(decision.replicas, 30)
        found.append((observation, decision))
    return found


@pytest.mark.parametrize("name", PEERS)
@given(row=moments(), bounds=st.tuples(st.integers(0, 5), st.integers(5, 20)), share=st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_bounds_holds_and_determinism(name: str, row: list[Moment], bounds: tuple[int, int], share: float) -> None:
    low, high = bounds
    knob = KNOBS[name].low * (KNOBS[name].high / KNOBS[name].low) ** share
    decided = trail(PEERS[name](scenario(low, high), knob), row)
    before = None
    for observation, decision in decided:
        assert low <= decision.replicas <= high
        assert decision.reason
        assert decision.binding
        assert decision.at == observation.now
        if observation.window is None:
            assert decision.is_hold
            assert before is None or decision.counts == before
        before = decision.counts
    assert [d for _, d in trail(PEERS[name](scenario(low, high), knob), row)] == [d for _, d in decided]


@given(row=moments(), bounds=st.tuples(st.integers(0, 5), st.integers(5, 20)))
@settings(max_examples=50, deadline=None)
def test_with_spot_neither_market_leaves_the_bounds(row: list[Moment], bounds: tuple[int, int]) -> None:
    low, high = bounds
    pools = (POOL, spot_pool("a"), spot_pool("b"), spot_pool("c"))
    markets = {pool.name: pool.market for pool in pools}
    for _, decision in trail(PEERS["skyserve"](scenario(low, high, pools=pools), 0.5), row):
        by_market = dict.fromkeys(Market, 0)
        for pool, count in decision.counts:
            by_market[markets[pool]] += count
        assert low <= by_market[Market.SPOT] <= high
        assert 0 <= by_market[Market.ON_DEMAND] <= high


def test_every_peer_has_a_knob_whose_default_is_in_its_range() -> None:
    assert set(KNOBS) == set(PEERS)
    for name, make in PEERS.items():
        knob = make(scenario()).knob
        assert 0 < KNOBS[name].low <= knob <= KNOBS[name].high, name


def replicas_at(make: Callable[..., Scaler], knob: float, kv: float, requests: int) -> int:
    """After an hour of steady load on a fleet of 8 that follows."""
    peer = make(scenario(), knob)
    now, ready = 0.0, 8
    while now < 3600.0:
        seconds = peer.interval_seconds
        now += seconds
        each = requests // max(1, ready)
        arrivals = round(10.0 * requests * seconds / 60)
        load = fleet(ready, in_flight=each, kv=min(1.0, kv * 8 / max(1, ready)))
        observation = seen(
            now, load, seconds=seconds, mean=requests, queued=requests // 4, arrivals=arrivals, prompt=50,
            completed=served(arrivals),
        )  # fmt: skip
        decision = peer.decide(observation)
        ready = min(decision.replicas, 100)
    return ready


@pytest.mark.parametrize("name", PEERS)
def test_the_knob_turns_the_way_it_says(name: str) -> None:
    low, high, larger_means_more = KNOBS[name]
    middle = (low * high) ** 0.5
    found = [replicas_at(PEERS[name], knob, 0.3, 64) for knob in (low, middle, high)]
    assert found == sorted(found, reverse=not larger_means_more)
    assert found[0] != found[-1]


@pytest.mark.parametrize("name", PEERS)
def test_a_request_to_an_empty_fleet_is_answered_in_the_end(name: str) -> None:
    peer = PEERS[name](scenario())
    now, wanted = 0.0, 0
    for _ in range(200):
        now += peer.interval_seconds
        queued = 1 if not wanted else 0
        observation = seen(now, fleet(wanted), seconds=peer.interval_seconds, mean=1.0, queued=queued, arrivals=1)
        wanted = max(wanted, peer.decide(observation).replicas)
        if wanted:
            break
    assert wanted >= 1 or name == "static"


def test_a_static_fleet_is_what_it_began_with_or_what_it_was_told() -> None:
    peer = Static(scenario())
    assert [peer.decide(seen(60.0 * t, fleet(n))).replicas for t, n in ((1, 7), (2, 5))] == [7, 7]
    assert Static(scenario(), 3.2).decide(seen(60.0, fleet(7))).replicas == 4
