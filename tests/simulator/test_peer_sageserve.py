"""SageServe: one replica at a time by memory; the hourly plan's allowance; urgency."""

import pytest
from peer_scene import fleet, scenario, seen, served, traffic

from swell.simulator.peers.sageserve import SageServe, SageServeForecast


@pytest.mark.parametrize(("use", "expected"), [(0.51, 5), (0.5, 4), (0.25, 4), (0.24, 3), (0.0, 3), (1.0, 5)])
def test_reactive(use: float, expected: int) -> None:
    peer = SageServe(scenario())
    assert peer.knob == 0.5
    assert peer.decide(seen(15.0, fleet(4, kv=use))).replicas == expected


def test_thresholds_scale_with_the_knob() -> None:
    assert SageServe(scenario(), 0.2).decide(seen(15.0, fleet(4, kv=0.21))).replicas == 5
    assert SageServe(scenario(), 0.2).decide(seen(15.0, fleet(4, kv=0.09))).replicas == 3


def test_without_a_ready_replica_it_holds_at_one_at_least() -> None:
    assert SageServe(scenario()).decide(seen(15.0, ())).replicas == 1
    assert SageServe(scenario()).decide(seen(15.0, fleet(0, 3))).replicas == 3


def hour(rate: float) -> SageServeForecast:
    """A peer whose history has `rate` requests a second: each replica carries 10."""
    return SageServeForecast(scenario(history=traffic(int(rate * 1800), 1800.0)))


def test_growth_is_what_the_plan_allows() -> None:
    peer = hour(55.0)  # six replicas
    counts = []
    ready = 4
    for tick in range(1, 5):
        ready = peer.decide(seen(tick * 15.0, fleet(ready, kv=0.6))).replicas
        counts.append(ready)
    assert counts == [5, 6, 6, 6]
    kept = peer.decide(seen(75.0, fleet(6, kv=0.6)))
    assert (kept.binding, kept.is_hold) == ("plan", True)
    urgent = peer.decide(seen(90.0, fleet(6, kv=0.91)))
    assert (urgent.replicas, urgent.binding) == (7, "urgent")
    assert peer.decide(seen(105.0, fleet(7, kv=0.1))).replicas == 7  # the plan lets nothing go


def test_shrinking_is_what_the_plan_allows_and_as_memory_empties() -> None:
    peer = hour(15.0)  # two replicas
    assert peer.decide(seen(15.0, fleet(4, kv=0.4))).replicas == 4
    assert [peer.decide(seen(15.0 * t, fleet(4, kv=0.1))).replicas for t in (2, 3, 4)] == [3, 2, 2]


def test_a_new_plan_every_hour() -> None:
    peer = hour(15.0)
    for tick in range(1, 242):  # an hour of 35 requests a second: four replicas
        shown = seen(tick * 15.0, fleet(2, kv=0.4), arrivals=525, prompt=50, completed=served(525))
        assert peer.decide(shown).replicas == 2
    assert [peer.decide(seen(3615.0 + 15.0 * t, fleet(2, kv=0.6))).replicas for t in (1, 2, 3)] == [3, 4, 4]


def test_before_the_first_plan_it_reacts() -> None:
    peer = SageServeForecast(scenario())
    assert [peer.decide(seen(15.0 * t, fleet(2, kv=0.6))).replicas for t in (1, 2, 3)] == [3, 4, 5]
