"""Ray Serve: what the total asks for, and directions that last."""

import pytest
from peer_scene import fleet, followed, scenario, seen

from swell.simulator.peers.ray_serve import RayServe, desired_replicas


@pytest.mark.parametrize(
    ("total", "current", "up", "down", "expected"),
    [
        (20.0, 5, 1.0, 1.0, 10),
        (21.0, 5, 1.0, 1.0, 11),
        (6.0, 5, 1.0, 1.0, 3),
        (0.0, 5, 1.0, 1.0, 0),
        (20.0, 5, 0.5, 1.0, 8),  # half the way to 10, rounded up
        (9.0, 10, 1.0, 0.5, 8),  # half the way to 4.5
        (16.0, 10, 1.0, 0.25, 9),  # 10 - 0.25 · 2 = 9.5 would stay 10: one less
    ],
)
def test_ray_desires(total: float, current: int, up: float, down: float, expected: int) -> None:
    assert desired_replicas(total, current, 2.0, up, down) == expected


def ray_ticks(peer: RayServe, begin: int, means: list[float], ready: int) -> list[int]:
    return [
        peer.decide(seen((begin + i) * 10.0, fleet(ready), seconds=10.0, mean=mean)).replicas
        for i, mean in enumerate(means)
    ]


def test_ray_grows_after_thirty_seconds() -> None:
    peer = RayServe(scenario())
    assert peer.knob == 2.0
    assert ray_ticks(peer, 1, [10.0] * 4, ready=2) == [2, 2, 2, 5]
    assert ray_ticks(peer, 5, [20.0] * 4, ready=5) == [5, 5, 5, 10]


def test_ray_shrinks_after_ten_minutes_and_a_turn_starts_anew() -> None:
    peer = RayServe(scenario())
    assert ray_ticks(peer, 1, [4.0] * 61, ready=5) == [5] * 60 + [2]
    peer = RayServe(scenario())
    assert ray_ticks(peer, 1, [4.0] * 50 + [40.0] + [4.0] * 60, ready=5) == [5] * 111


def test_ray_steps_to_one_before_zero_and_from_zero_at_once() -> None:
    peer = RayServe(scenario())
    counts = followed(peer, lambda now, ready: seen(now, fleet(ready), seconds=10.0), 123, ready=3)
    assert counts == [3] * 60 + [1] * 61 + [0, 0]
    woken = peer.decide(seen(1240.0, (), seconds=10.0, mean=0.1))
    assert (woken.replicas, woken.binding) == (1, "activation")


def test_ray_means_over_thirty_seconds() -> None:
    peer = RayServe(scenario())
    ray_ticks(peer, 1, [0.0, 30.0, 30.0, 30.0], ready=1)
    assert dict(peer.decide(seen(50.0, fleet(1), seconds=10.0, mean=0.0)).inputs)["ongoing"] == 20.0
