"""What the scaling policy has learnt outlives the server that learnt it."""

from dataclasses import replace
from pathlib import Path

import pytest

from pool_scene import OBJECTIVE, POOL, PROFILE
from swell.clock import ManualClock
from swell.policy.scaling.capacity import Mix, capacity, throughput
from swell.policy.scaling.swell import SwellScaler
from swell.server.scaler_memory import FRESH_SECONDS, OLDEST_SECONDS, ScalerMemories
from swell.state.scaling import (
    LengthSums,
    Observation,
    Pool,
    ReplicaState,
    ReplicaView,
    Window,
)

MIX = Mix.of_means(1000, 200)
RATE, BATCH = capacity(PROFILE, OBJECTIVE, MIX)
TICK, LOAD = 10.0, 6.0


def scaler(pool: Pool = POOL) -> SwellScaler:
    return SwellScaler({"X": pool}, OBJECTIVE, 0, 100)


def run(own: SwellScaler, clock: ManualClock, seconds: float, ready: int) -> list[int]:
    """A load that never changes, on a fleet that follows at once."""
    found = []
    for _ in range(round(seconds / TICK)):
        clock.advance(TICK)
        low, high = 0.0, float(BATCH)
        for _ in range(50):
            middle = (low + high) / 2
            below = throughput(PROFILE, MIX, middle) < min(LOAD / ready, 1.0) * RATE
            low, high = (middle, high) if below else (low, middle)
        count = round(LOAD * RATE * TICK)
        done = LengthSums(count, count * 1e3, count * 1e6, count * 200.0, count * 4e4, count * 2e5)
        now = clock.monotonic()
        window = Window(now, TICK, count, count * 1000, done, in_flight=round(low * ready), mean_in_flight=low * ready)
        views = tuple(ReplicaView(f"r{n}", "X", ReplicaState.READY, 0.0) for n in range(ready))
        ready = own.decide(Observation(now, window, views, now_unix=clock.unix())).replicas
        found.append(ready)
    return found


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(1000.0)
    return clock


@pytest.fixture
def memories(tmp_path: Path, clock: ManualClock) -> ScalerMemories:
    return ScalerMemories(tmp_path / "scaling", clock)


def test_a_restarted_server_keeps_the_fleet_that_a_steady_load_needs(
    memories: ScalerMemories, clock: ManualClock
) -> None:
    first = scaler()
    steady = run(first, clock, 4 * 3600, 8)[-1]
    memories.save("chat/a:b", first)
    second = scaler()
    assert memories.restore("chat/a:b", second)
    assert second.memory == first.memory
    assert max(run(second, clock, 1800, steady)) <= steady
    assert max(run(scaler(), clock, 1800, steady)) > steady  # who knows nothing is more careful


def test_after_a_reboot_times_are_those_of_the_new_clock(memories: ScalerMemories, clock: ManualClock) -> None:
    first = scaler()
    run(first, clock, 3600, 8)
    memories.save("m", first)
    rebooted = ManualClock(clock.unix() + 55.0)
    rebooted.advance(5.0)
    second = scaler()
    assert ScalerMemories(memories._folder, rebooted).restore("m", second)
    past, now = first.memory.forecast.samples, second.memory.forecast.samples
    assert now[-1][0] == pytest.approx(past[-1][0] - clock.monotonic() + 5.0 - 60.0)
    assert [sample[1:] for sample in now] == [sample[1:] for sample in past]


def test_away_for_long_what_was_learnt_counts_and_what_was_seen_last_does_not(
    memories: ScalerMemories, clock: ManualClock
) -> None:
    first = scaler()
    run(first, clock, 3600, 8)
    memories.save("m", first)
    clock.advance(FRESH_SECONDS + 1)
    second = scaler()
    assert memories.restore("m", second)
    assert second.memory.forecast.samples == ()
    assert second.memory.forecast.learnt == first.memory.forecast.learnt
    clock.advance(OLDEST_SECONDS)
    assert not memories.restore("m", scaler())


@pytest.mark.parametrize("content", [b"", b"{", b'{"version":1}', b"\xff\xfe", b'{"version":2,"what":"","unix":0}'])
def test_what_cannot_be_read_is_as_good_as_none(content: bytes, memories: ScalerMemories, tmp_path: Path) -> None:
    (tmp_path / "scaling").mkdir()
    (tmp_path / "scaling" / "m.json").write_bytes(content)
    assert not memories.restore("m", scaler())


def test_another_profile_is_another_unit_of_demand(memories: ScalerMemories, clock: ManualClock) -> None:
    first = scaler()
    run(first, clock, 600, 8)
    memories.save("m", first)
    assert not memories.restore("m", scaler(replace(POOL, profile=replace(PROFILE, step_fixed_ms=20.0))))
    assert memories.restore("m", scaler())
