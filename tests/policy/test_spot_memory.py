"""What is remembered of spot pools: losses, refusals, how long to stay away, and the hazard that follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mix_scene import START, A, X

from swell.policy.scaling.spot_memory import (
    AVOID_FIRST_SECONDS,
    AVOID_MOST_SECONDS,
    LATE,
    PoolRecord,
    SpotMemory,
    hazard_per_hour,
    is_late,
    remember,
)
from swell.state.scaling import Observation, ReplicaState, ReplicaView

READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING


def seen(now: float, *names: str, state: ReplicaState = READY, since: float = 0.0, pool: str = A.name) -> Observation:
    return Observation(now, None, tuple(ReplicaView(n, pool, state, since, ordered_at=since) for n in names))


def record(memory: SpotMemory) -> PoolRecord:
    return dict(memory.records)[A.name]


def test_on_demand_is_not_remembered() -> None:
    memory = remember(SpotMemory(), (X, A), seen(10.0, "x", pool=X.name), ((X.name, 1),))
    assert dict(memory.records).keys() == {A.name}


def test_who_goes_without_having_been_asked_to_was_taken() -> None:
    memory = remember(SpotMemory(), (A,), seen(10.0, "a", "b", "c", "d"), ((A.name, 4),))
    let_go = remember(memory, (A,), seen(20.0, "a", "b", "c"), ((A.name, 3),))
    assert record(let_go).losses == 0
    taken = remember(memory, (A,), seen(20.0, "a"), ((A.name, 4),))
    assert record(taken).losses == pytest.approx(0.75)
    assert record(taken).avoid_until == 20.0 + AVOID_FIRST_SECONDS
    drained = Observation(20.0, None, (*seen(20.0, "a").replicas, *seen(20.0, "b", "c", "d", state=DRAINING).replicas))
    assert record(remember(memory, (A,), drained, ((A.name, 4),))).losses == pytest.approx(0.75)


def test_a_refused_order_is_no_loss_and_each_in_a_row_is_avoided_for_longer() -> None:
    memory, waits = remember(SpotMemory(), (A,), seen(0.0), ()), []
    now = 0.0
    for _ in range(6):
        now = max(now, record(memory).avoid_until if record(memory).failures else 0.0) + 10
        memory = remember(memory, (A,), seen(now), ((A.name, 1),))
        waits.append(record(memory).avoid_until - now)
    assert record(memory).losses == 0
    assert waits[:3] == [AVOID_FIRST_SECONDS, 2 * AVOID_FIRST_SECONDS, 4 * AVOID_FIRST_SECONDS]
    assert waits[-1] == AVOID_MOST_SECONDS
    memory = remember(memory, (A,), seen(now + 10, "a", state=STARTING, since=now), ((A.name, 1),))
    assert record(memory).failures == 6
    memory = remember(memory, (A,), seen(now + 200, "a", since=now + 130), ((A.name, 1),))
    assert (record(memory).failures, record(memory).avoid_until) == (0, float("-inf"))


def test_a_start_that_takes_much_too_long_is_not_counted_on() -> None:
    (replica,) = seen(0.0, "a", state=STARTING).replicas
    assert not is_late(replica, A, LATE * START)
    assert is_late(replica, A, LATE * START + 1)
    late = seen(LATE * START + 1, "a", state=STARTING)
    memory = remember(remember(SpotMemory(), (A,), seen(0.0, "a", state=STARTING), ()), (A,), late, ((A.name, 1),))
    assert record(memory).avoid_until > late.now


@given(losses=st.floats(0, 50), hours=st.floats(0, 500), expected=st.floats(0, 5), more=st.floats(0, 5))
def test_the_hazard_rises_with_losses_falls_with_quiet_hours_and_is_the_prior_where_nothing_was_seen(
    losses: float, hours: float, expected: float, more: float
) -> None:
    here = hazard_per_hour(PoolRecord(losses, hours), expected)
    assert here > 0
    assert hazard_per_hour(PoolRecord(losses + more, hours), expected) >= here
    assert hazard_per_hour(PoolRecord(losses, hours + more), expected) <= here
    assert hazard_per_hour(PoolRecord(), 0.25) == pytest.approx(0.25)
    assert hazard_per_hour(PoolRecord(0.0, 1.0), 0.25) == pytest.approx(0.25)  # a quiet hour changes no plan
    assert hazard_per_hour(PoolRecord(10.0, 2.0), 0.25) > 0.25
