"""AIBrix: proportion with tolerance and rates (APA), totals with panic (KPA), replicas that start, the cooldown."""

import pytest
from peer_scene import fleet, scenario, seen

from swell.simulator.peers.aibrix_apa import AibrixApa, apa_replicas, with_pending
from swell.simulator.peers.aibrix_kpa import AibrixKpa, kpa_replicas


@pytest.mark.parametrize(
    ("use", "current", "expected"),
    [
        (0.50, 10, 10),
        (0.54, 10, 10),  # 1.08
        (0.46, 10, 10),  # 0.92
        (0.56, 10, 12),  # ceil(11.2)
        (0.90, 10, 18),
        (1.20, 10, 20),  # at most twice
        (0.44, 10, 9),  # ceil(8.8)
        (0.30, 10, 6),
        (0.20, 10, 5),  # at least half
        (0.00, 1, 0),
    ],
)
def test_apa(use: float, current: int, expected: int) -> None:
    assert apa_replicas(use, 0.5, current) == expected


@pytest.mark.parametrize(
    ("desired", "use", "ready", "expected"),
    [
        (8, 0.8, 6, 8),  # nothing is pending where six are wanted and six are ready
        (10, 0.8, 4, 7),  # 0.8 · 4 / 0.5 = 6.4
        (10, 0.6, 4, 6),  # 4.8: growth ends where it began
        (3, 0.2, 4, 4),  # (0.8 + 2 · 0.5) / 0.5 = 3.6
    ],
)
def test_replicas_that_start_damp_a_change(desired: int, use: float, ready: int, expected: int) -> None:
    assert with_pending(desired, use, 0.5, 6, ready) == expected


def test_apa_means_over_three_minutes_and_shrinks_after_five() -> None:
    peer = AibrixApa(scenario())
    assert peer.knob == 0.5
    for tick in range(1, 19):
        assert peer.decide(seen(tick * 10.0, fleet(4, kv=0.5), seconds=10.0)).replicas == 4
    low = [peer.decide(seen((18 + tick) * 10.0, fleet(4, kv=0.1), seconds=10.0)) for tick in range(1, 40)]
    # After six low samples of 18 the mean is 0.367: three. The last four, of 230 s, is forgotten at 530 s.
    assert (low[4].binding, low[5].binding) == ("tolerance", "cooldown")
    assert [d.replicas for d in low[:35]] == [4] * 34 + [3]


def test_apa_without_a_ready_pod_holds() -> None:
    peer = AibrixApa(scenario())
    decision = peer.decide(seen(10.0, fleet(0, 3), seconds=10.0, queued=50))
    assert (decision.replicas, decision.binding, decision.is_hold) == (3, "hold", False)
    assert peer.decide(seen(20.0, fleet(0, 3), seconds=10.0, queued=50)).is_hold


@pytest.mark.parametrize(
    ("total", "current", "expected"),
    [(2.0, 4, 4), (2.19, 4, 4), (1.81, 4, 4), (2.3, 4, 5), (9.0, 4, 8), (0.1, 4, 2), (0.7, 1, 2), (0.0, 1, 0)],
)
def test_kpa(total: float, current: int, expected: int) -> None:
    assert kpa_replicas(total, 0.5, current) == expected


def test_kpa_panics_at_twice_the_long_windows_mean() -> None:
    peer = AibrixKpa(scenario())
    for tick in range(1, 19):
        assert peer.decide(seen(tick * 10.0, fleet(2, kv=0.3), seconds=10.0)).replicas == 2
    decisions = [peer.decide(seen((18 + tick) * 10.0, fleet(2, kv=1.0), seconds=10.0)) for tick in range(1, 7)]
    # After k samples of 2.0 among 0.6: short (2k + 0.6 (6 - k)) / 6, long (2k + 0.6 (18 - k)) / 18; never over twice.
    assert {d.binding for d in decisions} == {"stable"}
    assert decisions[-1].replicas == 2  # 1.07 of 1.0: inside the dead band
    peer = AibrixKpa(scenario())
    for tick in range(1, 19):
        peer.decide(seen(tick * 10.0, fleet(4, kv=0.01), seconds=10.0))
    burst = [peer.decide(seen((18 + tick) * 10.0, fleet(4, kv=0.9), seconds=10.0)) for tick in range(1, 7)]
    assert burst[-1].binding == "panic"
    assert burst[-1].replicas == 7  # 3.01 / 0.5 = 6.01 with five samples; then 3.6 is inside the dead band of seven
