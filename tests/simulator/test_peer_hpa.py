"""The HPA: ratio, tolerance, pods that give no metric, rates and stabilisation. KEDA: the HPA on a queue, and zero."""

import pytest
from peer_scene import blind, fleet, followed, replica, scenario, seen

from swell.simulator.peers.hpa import Behaviour, Hpa, external_metric_replicas, pods_metric_replicas
from swell.simulator.peers.keda import Keda
from swell.state.scaling import ReplicaState


@pytest.mark.parametrize(
    ("each", "ready", "unready", "missing", "current", "expected"),
    [
        (10.0, 4, 0, 0, 4, 4),
        (10.5, 4, 0, 0, 4, 4),  # 1.05 is within the tolerance
        (9.2, 4, 0, 0, 4, 4),
        (12.0, 4, 0, 0, 4, 5),  # ceil(1.2 · 4)
        (15.0, 4, 0, 0, 4, 6),
        (5.0, 4, 0, 0, 4, 2),
        (15.0, 4, 2, 0, 6, 6),  # two at 0: 60 / 6 = 10 is the target
        (30.0, 4, 2, 0, 6, 12),  # 120 / 6 = 20: twice as many as six
        (5.0, 4, 2, 0, 6, 2),  # what is pending plays no part in shrinking
        (5.0, 4, 0, 2, 6, 4),  # two at the target: 40 / 6 = 6.7: ceil(0.67 · 6)
        (8.0, 4, 0, 4, 8, 8),  # (32 + 40) / 8 = 9: within the tolerance
        (12.0, 4, 0, 2, 6, 6),  # 48 / 6 = 8: it would turn round
        (20.0, 2, 1, 0, 10, 10),  # 1.33 · 3 pods = 4, fewer than there should be: no shrinking on a ratio above 1
    ],
)
def test_pods_metric(each: float, ready: int, unready: int, missing: int, current: int, expected: int) -> None:
    assert pods_metric_replicas([each] * ready, 10.0, current, unready=unready, missing=missing) == expected


def test_no_metric_no_change() -> None:
    assert pods_metric_replicas([], 10.0, 7, unready=7) == 7


@pytest.mark.parametrize(
    ("total", "current", "expected"), [(15, 3, 3), (16, 3, 3), (12, 3, 3), (9, 3, 2), (40, 3, 8), (0, 3, 0), (7, 0, 2)]
)
def test_external_metric(total: float, current: int, expected: int) -> None:
    assert external_metric_replicas(total, 5.0, current) == expected


def test_growth_is_four_pods_or_twice_as_many_in_fifteen_seconds() -> None:
    behaviour = Behaviour()
    assert behaviour.applied(0.0, 1, 100) == (5, "rate")
    assert behaviour.applied(5.0, 5, 100) == (5, "rate")  # the period's four are used up
    assert behaviour.applied(15.0, 5, 100) == (10, "rate")
    assert behaviour.applied(30.0, 10, 100) == (20, "rate")
    assert behaviour.applied(45.0, 20, 30) == (30, "")


def test_shrinking_waits_for_the_window_to_forget_the_most() -> None:
    behaviour = Behaviour()
    assert behaviour.applied(0.0, 4, 10) == (8, "rate")
    assert behaviour.applied(15.0, 8, 10) == (10, "")
    for tick in range(2, 21):
        assert behaviour.applied(tick * 15.0, 10, 3) == (10, "stabilisation")
    assert behaviour.applied(315.0, 10, 3) == (3, "")


def test_what_there_was_at_first_counts_as_recommended() -> None:
    peer = Hpa(scenario(), 10.0)
    counts = followed(peer, lambda now, ready: seen(now, fleet(ready, in_flight=1)), 21, ready=6)
    assert counts == [6] * 20 + [1]


def test_the_gateways_queue_is_shared_out() -> None:
    peer = Hpa(scenario(), 10.0)
    decision = peer.decide(seen(15.0, fleet(2, in_flight=10), queued=10))
    assert decision.replicas == 3
    assert (decision.binding, decision.is_hold) == ("target", False)
    assert dict(decision.inputs)["in_flight_per_pod"] == 15.0


def test_it_keeps_at_least_one_pod_and_the_scenarios_bounds() -> None:
    assert Hpa(scenario(0, 5)).decide(seen(15.0, ())).counts == (("A", 1),)
    assert Hpa(scenario(3, 5)).decide(seen(15.0, fleet(1))).replicas == 3
    over = Hpa(scenario(0, 5), 1.0).decide(seen(15.0, fleet(4, in_flight=10)))
    assert over.replicas == 5


def test_a_lost_pod_is_replaced_without_a_decision() -> None:
    peer = Hpa(scenario(), 10.0)
    peer.decide(seen(15.0, fleet(4, in_flight=10)))
    decision = peer.decide(blind(30.0, (*fleet(3, in_flight=10), replica("old", ReplicaState.DRAINING))))
    assert decision.replicas == 4
    assert decision.is_hold
    assert decision.binding == "hold"


def test_the_default_target_is_a_share_of_the_concurrency() -> None:
    assert Hpa(scenario()).knob == 8.0
    with pytest.raises(ValueError, match="positive"):
        Hpa(scenario(), 0.0)


def test_keda_follows_the_queue_whatever_is_running() -> None:
    peer = Keda(scenario())
    assert peer.knob == 5.0
    assert peer.decide(seen(15.0, fleet(2, in_flight=10, waiting=3), queued=8)).replicas == 3  # ceil(14 / 5)
    counts = followed(peer, lambda now, ready: seen(now, fleet(ready, in_flight=10)), 21, ready=3, begin=15.0)
    assert counts == [3] * 19 + [1, 1]


def test_keda_goes_to_zero_after_its_cooldown_and_back_at_once() -> None:
    peer = Keda(scenario(), scale_to_zero=True)
    counts = followed(peer, lambda now, ready: seen(now, fleet(ready, in_flight=5)), 25, ready=1)
    assert counts == [1] * 24 + [0]  # nothing waited since the first look, 360 s ago
    assert peer.decide(seen(400.0, ())).replicas == 0
    woken = peer.decide(seen(415.0, (), queued=1))
    assert (woken.replicas, woken.binding) == (1, "activation")
