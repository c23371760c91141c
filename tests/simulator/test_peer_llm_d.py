"""llm-d's saturation analyser: up, down, keep; once a minute; pending variants; cheapest and dearest."""

from dataclasses import replace

import pytest
from peer_scene import POOL, PROFILE, fleet, replica, scenario, seen

from swell.simulator.peers.llm_d import LlmD, Load, saturation_step
from swell.state.scaling import Pool, ReplicaState

L4 = Pool("L4", replace(PROFILE, accelerator="L4"), usd_per_hour=0.7, start_seconds=120.0)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([(0.5, 0.0)] * 2, 0),  # spare 0.3; on one 0.8 - 1.0 < 0
        ([(0.3, 0.0)] * 2, -1),  # on one 0.8 - 0.6 = 0.2
        ([(0.35, 0.0)] * 2, -1),  # on one exactly 0.1
        ([(0.36, 0.0)] * 2, 0),
        ([(0.71, 0.0)] * 4, 1),  # 0.09 of KV cache to spare
        ([(0.1, 2.5)] * 4, 1),  # 2.5 of queue to spare
        ([(0.1, 1.0)] * 2, -1),  # on one 5 - 2 = 3
        ([(0.1, 1.5)] * 2, 0),
        ([(0.9, 0.0), (0.1, 6.0)], 1),  # all are saturated
        ([(0.9, 0.0), (0.2, 0.0), (0.2, 0.0)], -1),  # only what is not saturated is spread
        ([(0.1, 0.0)], 0),  # the last one stays
        ([(0.9, 9.0), (0.1, 0.0)], 0),
    ],
)
def test_step(loads: list[tuple[float, float]], expected: int) -> None:
    assert saturation_step([Load(kv, queue) for kv, queue in loads], 0.8)[0] == expected


def test_a_decision_a_minute_on_the_largest_of_the_minute() -> None:
    peer = LlmD(scenario())
    assert (peer.knob, peer.interval_seconds) == (0.8, 15.0)
    uses = [0.1, 0.1, 0.75, 0.1, 0.1, 0.1]
    counts = [peer.decide(seen(15.0 * tick, fleet(2, kv=kv))).replicas for tick, kv in enumerate(uses, 1)]
    # At 15 s two replicas have much to spare: one goes, and is let go. At 75 s the 0.75 of 45 s still counts.
    assert counts[:4] == [1, 1, 1, 1]
    peer = LlmD(scenario())
    peer.decide(seen(15.0, fleet(2, kv=0.5)))
    for tick, kv in enumerate([0.1, 0.75, 0.1], 2):
        assert peer.decide(seen(15.0 * tick, fleet(2, kv=kv))).is_hold
    decision = peer.decide(seen(75.0, fleet(2, kv=0.1)))
    assert (decision.replicas, decision.binding) == (3, "saturation")


def test_what_was_asked_for_is_awaited() -> None:
    peer = LlmD(scenario())
    assert peer.decide(seen(60.0, fleet(2, kv=0.79))).replicas == 3
    pending = peer.decide(seen(120.0, fleet(2, 1, kv=0.79)))
    assert (pending.replicas, pending.binding, pending.is_hold) == (3, "pending", True)
    assert peer.decide(seen(180.0, fleet(3, kv=0.79))).replicas == 4


def test_the_gateways_queue_counts() -> None:
    peer = LlmD(scenario())
    assert peer.decide(seen(60.0, fleet(2, kv=0.1), queued=6)).replicas == 3  # 3 each: 2 to spare


def test_cheapest_first_and_dearest_goes() -> None:
    pools = (POOL, L4)
    peer = LlmD(scenario(pools=pools))
    both = (replica("a", pool="A", kv=0.79), replica("l", pool="L4", kv=0.79))
    assert dict(peer.decide(seen(60.0, both)).counts) == {"A": 1, "L4": 2}
    # L4 is pending, so the next cheapest grows.
    waits = (*both, replica("l2", ReplicaState.STARTING, pool="L4"))
    assert dict(peer.decide(seen(120.0, waits)).counts) == {"A": 2, "L4": 2}
    idle = tuple(replica(f"{pool}{i}", pool=pool, kv=0.05) for pool in ("A", "L4") for i in range(2))
    assert dict(peer.decide(seen(240.0, idle)).counts) == {"A": 1, "L4": 2}


def test_from_nothing_to_one_and_inside_the_bounds() -> None:
    peer = LlmD(scenario(0, 3))
    assert peer.decide(seen(60.0, ())).replicas == 1
    assert LlmD(scenario(0, 3)).decide(seen(60.0, fleet(3, kv=0.9))).binding == "ceiling"
    assert LlmD(scenario(2, 3)).decide(seen(60.0, fleet(2, kv=0.0))).binding == "floor"
