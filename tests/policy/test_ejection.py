"""Ejection: out after failures in a row, probed by one request at a time, longer each time, back at once."""

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.ejection import (
    FAILURES_TO_EJECT,
    FIRST_EJECTION_SECONDS,
    HEALTHY,
    LONGEST_EJECTION_SECONDS,
    Health,
    failed,
    gave_up,
    may_send,
    sent,
    succeeded,
)

steps = st.lists(
    st.one_of(
        st.just(("sent", 0.0)),
        st.just(("succeeded", 0.0)),
        st.just(("failed", 0.0)),
        st.just(("gave_up", 0.0)),
        st.tuples(st.just("wait"), st.floats(0.0, 60.0)),
    ),
    max_size=60,
)


def ejected(now: float) -> Health:
    health = HEALTHY
    for _ in range(FAILURES_TO_EJECT):
        health = failed(sent(health), now)
    return health


def probe_fails(health: Health, now: float) -> Health:
    assert may_send(health, now)
    return failed(sent(health), now)


def test_failures_in_a_row_eject_and_a_success_between_starts_anew() -> None:
    health = HEALTHY
    for _ in range(FAILURES_TO_EJECT - 1):
        health = failed(sent(health), 5.0)
    assert may_send(health, 5.0)
    health = succeeded(health)
    for _ in range(FAILURES_TO_EJECT - 1):
        health = failed(sent(health), 5.0)
    assert not health.is_ejected
    assert failed(health, 5.0).is_ejected


def test_one_probe_goes_out_when_the_time_has_come() -> None:
    health = ejected(5.0)
    assert not may_send(health, 5.0 + FIRST_EJECTION_SECONDS - 0.001)
    assert may_send(health, 5.0 + FIRST_EJECTION_SECONDS)
    probing = sent(health)
    assert not may_send(probing, 1e9)
    assert succeeded(probing) is HEALTHY
    assert may_send(gave_up(probing), 6.0)


def test_each_failed_probe_doubles_the_time_up_to_its_bound() -> None:
    now, health = 0.0, ejected(0.0)
    lasts = []
    for _ in range(20):
        lasts.append(health.ejected_until - now)
        now = health.ejected_until
        health = probe_fails(health, now)
    assert lasts[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_EJECTION_SECONDS]
    assert set(lasts[5:]) == {LONGEST_EJECTION_SECONDS}


def test_what_was_under_way_when_it_was_ejected_changes_nothing() -> None:
    health = ejected(5.0)
    for _ in range(50):
        health = failed(health, 5.1)
    assert health.ejected_until == 5.0 + FIRST_EJECTION_SECONDS


def test_after_recovery_the_first_time_is_short_again() -> None:
    health = succeeded(sent(probe_fails(ejected(0.0), 1.0)))
    for _ in range(FAILURES_TO_EJECT):
        health = failed(sent(health), 100.0)
    assert health.ejected_until == 100.0 + FIRST_EJECTION_SECONDS


@given(steps=steps)
def test_whatever_happens_a_replica_is_tried_again_in_bounded_time(steps: list[tuple[str, float]]) -> None:
    now, health = 0.0, HEALTHY
    for name, seconds in steps:
        now += seconds
        if name == "sent" and may_send(health, now):
            health = sent(health)
        elif name == "succeeded":
            health = succeeded(health)
        elif name == "failed":
            health = failed(health, now)
        elif name == "gave_up":
            health = gave_up(health)
        assert health.ejected_until <= now + LONGEST_EJECTION_SECONDS
        assert health.is_ejected or may_send(health, now)
        assert health.is_ejected or not health.probing
        assert may_send(gave_up(health), now + LONGEST_EJECTION_SECONDS)
    assert may_send(succeeded(health), now)
