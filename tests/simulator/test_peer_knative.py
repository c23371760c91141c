"""Knative: stable and panic windows, rates, and zero."""

import pytest
from peer_scene import fleet, followed, scenario, seen

from swell.simulator.peers.knative import Knative


def test_a_steady_load_gets_what_the_target_says() -> None:
    peer = Knative(scenario(), 10.0)
    assert followed(peer, lambda now, ready: seen(now, fleet(3), seconds=2.0, mean=25.0), 40, ready=1)[-1] == 3


def test_the_default_target_is_seventy_percent_of_the_concurrency() -> None:
    assert Knative(scenario()).knob == pytest.approx(7.0)


def test_panic_begins_at_twice_what_is_ready_and_ends_a_stable_window_later() -> None:
    peer = Knative(scenario(), 10.0)
    for tick in range(1, 31):
        assert peer.decide(seen(tick * 2.0, fleet(1), seconds=2.0, mean=5.0)).replicas == 1
    # 62 s: one sample of 95 in six seconds: (95 + 5 + 5) / 3 = 35, four replicas where one is ready.
    panicking = peer.decide(seen(62.0, fleet(1), seconds=2.0, mean=95.0))
    assert (panicking.replicas, panicking.binding) == (4, "panic")
    # The six seconds forget it, four are ready; the number stays for 60 s after the last crossing, at 62 s.
    for tick in range(32, 62):
        assert peer.decide(seen(tick * 2.0, fleet(4), seconds=2.0, mean=5.0)).replicas == 4
    calm = peer.decide(seen(124.0, fleet(4), seconds=2.0, mean=5.0))
    assert (calm.replicas, calm.binding) == (2, "stable")  # at most half as many at a time


def test_below_the_threshold_there_is_no_panic() -> None:
    peer = Knative(scenario(), 10.0)
    decisions = [peer.decide(seen(tick * 2.0, fleet(1), seconds=2.0, mean=9.0)) for tick in range(1, 31)]
    assert {d.binding for d in decisions} == {"stable"}
    # (24 + 9 + 9) / 3 = 14 in six seconds ask for two: not twice two that are ready, but twice one.
    assert peer.decide(seen(62.0, fleet(2), seconds=2.0, mean=24.0)).binding == "stable"
    assert peer.decide(seen(64.0, fleet(1), seconds=2.0, mean=24.0)).binding == "panic"


def test_it_begins_in_panic_with_what_it_finds() -> None:
    peer = Knative(scenario(), 10.0)
    counts = [peer.decide(seen(tick * 2.0, fleet(4), seconds=2.0, mean=5.0)).replicas for tick in range(1, 33)]
    assert counts == [4] * 31 + [2]


def test_to_zero_after_the_grace_and_back_at_once() -> None:
    peer = Knative(scenario(), 10.0)
    counts = followed(peer, lambda now, ready: seen(now, fleet(ready), seconds=2.0), 17, ready=1)
    assert counts == [1] * 15 + [0, 0]
    assert peer.decide(seen(36.0, (), seconds=2.0, mean=0.5)).replicas == 1
    assert peer.decide(seen(38.0, fleet(0, 1), seconds=2.0, mean=35.0)).replicas == 2  # (0 + 0.5 + 35) / 3 in panic
