"""SkyServe: request rate with hysteresis; spot first with on-demand replicas until it is ready; zones."""

import pytest
from peer_scene import POOL, blind, fleet, replica, scenario, seen, spot_pool

from swell.simulator.peers.skyserve import SkyServe
from swell.simulator.peers.spot_placer import SpotPlacer
from swell.state.scaling import Decision, Observation, ReplicaState, ReplicaView

A, B, C = spot_pool("a", 1.0), spot_pool("b", 1.1), spot_pool("c", 1.2)


def qps(tick: int, rate: float, ready: int) -> Observation:
    return seen(tick * 20.0, fleet(ready), seconds=20.0, arrivals=round(rate * 20))


def test_more_is_adopted_at_the_fifteenth_decision_in_a_row() -> None:
    peer = SkyServe(scenario())
    assert (peer.knob, peer.interval_seconds) == (2.5, 20.0)
    # The first minute's rate is a third, then two thirds of 10 a second: 2, then 3, then 4 replicas.
    counts = [peer.decide(qps(tick, 10.0, 1)).replicas for tick in range(1, 17)]
    assert counts == [1] * 14 + [4, 4]


def test_fewer_is_adopted_at_the_sixtieth_and_a_turn_starts_anew() -> None:
    peer = SkyServe(scenario())
    counts = [peer.decide(qps(tick, 2.0, 4)).replicas for tick in range(1, 61)]
    assert counts == [4] * 59 + [1]
    peer = SkyServe(scenario())
    rates = [2.0] * 50 + [30.0] + [2.0] * 58
    assert {peer.decide(qps(tick, rate, 4)).replicas for tick, rate in enumerate(rates, 1)} == {4}


def test_from_zero_at_once_and_asked_more_often() -> None:
    peer = SkyServe(scenario())
    assert peer.decide(seen(20.0, (), seconds=20.0)).replicas == 0
    assert peer.interval_seconds == 5.0
    woken = peer.decide(seen(25.0, (), seconds=5.0, arrivals=1))
    assert (woken.replicas, woken.binding) == (1, "activation")
    peer.decide(seen(45.0, fleet(0, 1), seconds=20.0))
    assert peer.interval_seconds == 20.0


def spot_fleet(**states: str) -> tuple[ReplicaView, ...]:
    """Such as `a1="ready"`: the pool's letter and a number."""
    pools = {"a": A.name, "b": B.name, "c": C.name, "o": "A"}
    return tuple(replica(name, ReplicaState(state), pool=pools[name[0]]) for name, state in states.items())


def at(decision: Decision) -> dict[str, int]:
    return {name.removeprefix("A/spot/"): count for name, count in decision.counts}


def test_on_demand_replicas_stand_in_until_spot_is_ready() -> None:
    peer = SkyServe(scenario(3, 10, pools=(POOL, A, B, C)))
    first = peer.decide(seen(20.0, spot_fleet(o1="ready", o2="ready", o3="ready"), seconds=20.0))
    assert at(first) == {"a": 1, "b": 1, "c": 1, "A": 3}
    one = spot_fleet(o1="ready", o2="ready", o3="ready", a1="ready", b1="starting", c1="starting")
    assert at(peer.decide(seen(40.0, one, seconds=20.0))) == {"a": 1, "b": 1, "c": 1, "A": 2}
    three = spot_fleet(o1="ready", o2="ready", a1="ready", b1="ready", c1="ready")
    assert at(peer.decide(seen(60.0, three, seconds=20.0))) == {"a": 1, "b": 1, "c": 1, "A": 0}
    settled = peer.decide(seen(80.0, spot_fleet(a1="ready", b1="ready", c1="ready"), seconds=20.0))
    assert settled.is_hold
    # a1 is preempted: its zone is avoided, the next cheapest gets a second one, and on-demand stands in.
    lost = peer.decide(seen(100.0, spot_fleet(b1="ready", c1="ready"), seconds=20.0))
    assert at(lost) == {"a": 0, "b": 2, "c": 1, "A": 1}


def test_a_notice_is_a_loss_and_letting_go_is_none() -> None:
    peer = SkyServe(scenario(2, 10, pools=(POOL, A, B, C)))
    peer.decide(seen(20.0, spot_fleet(a1="ready", b1="ready"), seconds=20.0))
    noticed = peer.decide(seen(40.0, spot_fleet(a1="draining", b1="ready"), seconds=20.0))
    assert at(noticed) == {"a": 0, "b": 1, "c": 1, "A": 1}
    peer = SkyServe(scenario(0, 10, pools=(POOL, A, B, C)))
    peer.decide(seen(20.0, spot_fleet(a1="ready", b1="ready"), seconds=20.0))
    for tick in range(2, 61):
        shrunk = peer.decide(seen(tick * 20.0, spot_fleet(a1="ready", b1="ready"), seconds=20.0))
    assert at(shrunk) == {"a": 0, "b": 0, "c": 0, "A": 0}
    woken = peer.decide(seen(1220.0, (), seconds=20.0, arrivals=10))
    assert at(woken) == {"a": 1, "b": 0, "c": 0, "A": 1}  # zone a was not preempted


def test_a_spot_replica_that_does_not_start_in_time_has_failed() -> None:
    peer = SkyServe(scenario(1, 10, pools=(POOL, A, B, C)))
    late = (replica("a1", ReplicaState.STARTING, pool=A.name, since=0.0),)
    assert at(peer.decide(seen(1200.0, late, seconds=20.0))) == {"a": 1, "b": 0, "c": 0, "A": 1}
    assert at(peer.decide(seen(1220.0, late, seconds=20.0))) == {"a": 0, "b": 1, "c": 0, "A": 1}


def test_unobserved_it_keeps_what_it_decided() -> None:
    peer = SkyServe(scenario(2, 10, pools=(POOL, A, B, C)))
    before = peer.decide(seen(20.0, spot_fleet(a1="ready", b1="ready"), seconds=20.0))
    kept = peer.decide(blind(40.0, spot_fleet(b1="ready")))
    assert kept.is_hold
    assert kept.counts == before.counts


def test_the_placer_takes_unused_zones_first_and_forgives_when_few_are_left() -> None:
    placer = SpotPlacer([C, A, B])
    assert [placer.next({}), placer.next({A.name: 1}), placer.next({A.name: 1, B.name: 1})] == [A.name, B.name, C.name]
    assert placer.next({A.name: 1, B.name: 1, C.name: 1}) == A.name
    placer.preempted(A.name)
    assert placer.next({}) == B.name
    placer.ready(A.name)
    assert placer.next({}) == A.name
    placer.preempted(A.name)
    placer.preempted(B.name)  # one would be left: all are tried again
    assert [zone.name for zone in placer.active] == [A.name, B.name, C.name]


def test_the_placer_respects_what_a_zone_may_have() -> None:
    placer = SpotPlacer([spot_pool("a", 1.0, most=1), B])
    assert placer.next({"A/spot/a": 1, B.name: 1}) == B.name
    assert SpotPlacer([spot_pool("a", most=1)]).next({"A/spot/a": 1}) is None


@pytest.mark.parametrize("most", [1, 2])
def test_only_the_same_accelerator_counts(most: int) -> None:
    peer = SkyServe(scenario(most, 10, pools=(POOL,)))
    other = (*fleet(most), replica("x", pool="L4"))
    assert peer.decide(seen(20.0, other, seconds=20.0)).counts == (("A", most),)
