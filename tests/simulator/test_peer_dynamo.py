"""Dynamo: forecasts, the throughput loop with its cap, the load loop; and the predictors by themselves."""

import numpy as np
import pytest
from peer_scene import PROFILE, fleet, scenario, seen, served, traffic

from swell.simulator.peers.dynamo import Dynamo, DynamoLoad
from swell.simulator.peers.dynamo_load import load_step
from swell.simulator.peers.predictors import AutoRegression, Constant, LocalTrend, is_stationary
from swell.state.scaling import LatencyProfile, Objective, Observation, ReplicaView


def interval(tick: int, rate: float, replicas: tuple[ReplicaView, ...], output: int = 100) -> Observation:
    count = round(rate * 180)
    completed = served(count, output=output)
    return seen(tick * 180.0, replicas, seconds=180.0, arrivals=count, prompt=50, completed=completed)


def test_replicas_for_the_rate_at_the_observed_lengths() -> None:
    peer = Dynamo(scenario(), predictor=Constant)
    assert (peer.knob, peer.interval_seconds) == (1.0, 180.0)
    assert peer.decide(interval(1, 50.0, fleet(1))).replicas == 5  # 10 a second each
    assert peer.decide(interval(2, 50.0, fleet(5), output=200)).replicas == 10  # 5 a second each
    assert peer.decide(interval(3, 61.0, fleet(10))).replicas == 7
    idle = peer.decide(interval(4, 0.0, fleet(7)))
    assert (idle.replicas, idle.binding) == (1, "forecast")


def test_the_knob_is_a_factor_on_the_forecast() -> None:
    assert Dynamo(scenario(), 1.5, predictor=Constant).decide(interval(1, 50.0, fleet(1))).replicas == 8


def test_eight_more_or_fewer_at_a_time() -> None:
    peer = Dynamo(scenario(), predictor=Constant)
    up = [peer.decide(interval(tick, 200.0, fleet(1))) for tick in range(1, 5)]
    assert [d.replicas for d in up] == [9, 17, 20, 20]
    assert [d.binding for d in up] == ["rate", "rate", "forecast", "forecast"]
    assert [peer.decide(interval(tick, 10.0, fleet(20))).replicas for tick in range(5, 9)] == [12, 4, 1, 1]


def test_a_history_warms_the_forecast_up() -> None:
    past = traffic(requests=18_000, seconds=1800.0)  # ten intervals of 10 a second
    warm = Dynamo(scenario(history=past))
    assert dict(warm.decide(interval(1, 10.0, fleet(1))).inputs)["requests"] == pytest.approx(1800, rel=0.01)


def test_shorter_windows_add_up_to_an_interval() -> None:
    peer = DynamoLoad(scenario(), predictor=Constant)
    peer_replicas = fleet(3, kv=0.7)  # would not fit on two
    for tick in range(1, 36):
        shown = seen(tick * 5.0, peer_replicas, seconds=5.0, arrivals=300, prompt=50, completed=served(300))
        assert peer.decide(shown).replicas == 3
    shown = seen(180.0, peer_replicas, seconds=5.0, arrivals=300, prompt=50, completed=served(300))
    assert peer.decide(shown).replicas == 6  # 60 a second


# A prompt of 1000 tokens takes 100 ms; a step takes 10 ms and 2 ms a sequence; 10,000 tokens fit.
SLOW = LatencyProfile("m", "A", 1, 0.0, 0.1, 0.0, 10.0, 2.0, 0.0, kv_tokens=10_000)
LIMITS = Objective(ttft_ms=500.0, itl_ms=50.0)


@pytest.mark.parametrize(
    ("workers", "in_flight", "waiting", "kv", "queued", "expected"),
    [
        (2, 10, 0, 0.1, 0, 0),  # 30 ms; on one worker 50
        (2, 7, 0, 0.1, 0, -1),  # on one worker 38 ms < 40
        (2, 21, 0, 0.1, 0, 1),  # 52 ms
        (2, 10, 5, 0.1, 0, 1),  # 500 + 100 ms to the first token
        (2, 5, 4, 0.1, 0, 0),  # on one worker 800 ms of queue
        (2, 0, 0, 0.1, 9, 1),  # the gateway's queue: 450 + 100 ms
        (2, 5, 0, 0.6, 0, 0),  # would not fit on one
        (1, 0, 0, 0.0, 0, 0),
        (5, 5, 1, 0.1, 0, -1),  # queue 125 < 320 ms, 20 ms
    ],
)
def test_load_step(workers: int, in_flight: int, waiting: int, kv: float, queued: int, expected: int) -> None:
    replicas = fleet(workers, in_flight=in_flight, waiting=waiting, kv=kv)
    assert load_step(replicas, queued, SLOW, LIMITS, (1000.0, 100.0))[0] == expected


def test_one_worker_inside_the_objective_keeps_the_rest_from_growing() -> None:
    replicas = (*fleet(2, in_flight=30), *fleet(1, in_flight=15))
    assert load_step(replicas, 0, SLOW, LIMITS, (1000.0, 100.0))[0] == 0


def test_the_load_loop_steps_by_one_not_while_replicas_start_and_not_below_the_throughput_loop() -> None:
    peer = DynamoLoad(scenario(), predictor=Constant)
    assert peer.interval_seconds == 5.0

    def shown(tick: int, replicas: tuple[ReplicaView, ...], arrivals: int = 100, queued: int = 0) -> Observation:
        completed = served(arrivals)
        return seen(tick * 5.0, replicas, seconds=5.0, arrivals=arrivals, prompt=50, completed=completed, queued=queued)

    assert peer.decide(shown(1, fleet(4))).replicas == 3
    assert peer.decide(shown(2, fleet(4))).replicas == 3  # four are ready where three are wanted: it moves
    assert peer.decide(shown(3, fleet(3))).replicas == 2
    for tick in range(4, 36):
        assert peer.decide(shown(tick, fleet(1, 1))).replicas == 2
    assert peer.decide(shown(36, fleet(2))).replicas == 2  # 19.4 a second: two replicas are the floor now
    assert peer.decide(shown(37, fleet(2))).is_hold


def test_the_latency_profile_of_these_tests() -> None:
    assert PROFILE.step_ms(10, 0) == 10.0
    assert SLOW.step_ms(10, 1000) == 30.0


def added(predictor: AutoRegression | Constant | LocalTrend, values: list[float]) -> list[float]:
    for value in values:
        predictor.add(value)
    return predictor.forecast(3)


def test_constant() -> None:
    assert added(Constant(), [3.0, 9.0]) == [9.0] * 3
    assert Constant().forecast() == [0.0]


def test_local_trend_goes_on_along_the_line_and_never_below_zero() -> None:
    line = [100.0 + 5 * i for i in range(50)]
    assert added(LocalTrend(), line) == pytest.approx([350.0, 355.0, 360.0], rel=0.01)
    assert added(LocalTrend(), [*line[::-1], 50.0, 25.0, 0.0])[-1] == 0.0


def test_autoregression_needs_five_points_and_forgets_leading_zeros() -> None:
    assert added(AutoRegression(), [0.0, 0.0, 4.0, 8.0]) == [8.0] * 3
    assert AutoRegression().forecast(2) == [0.0, 0.0]
    assert added(AutoRegression(), [7.0] * 10) == pytest.approx([7.0] * 3)


def test_autoregression_follows_a_trend_and_a_swing() -> None:
    line = [10.0 + 2 * i for i in range(50)]
    assert added(AutoRegression(), line) == pytest.approx([110.0, 112.0, 114.0], rel=0.01)
    swing = [100 + 50 * np.sin(2 * np.pi * i / 10) for i in range(50)]
    ahead = [100 + 50 * np.sin(2 * np.pi * i / 10) for i in (50, 51, 52)]
    assert added(AutoRegression(), [float(x) for x in swing]) == pytest.approx(ahead, rel=0.02)


def test_noise_is_stationary_and_a_walk_is_not() -> None:
    noise = np.random.default_rng(7).normal(size=200)
    assert is_stationary(noise)
    assert not is_stationary(np.cumsum(noise))
