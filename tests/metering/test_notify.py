"""When alerts are tried again, in which order, and when they are given up; in virtual time."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.clock import ManualClock
from swell.metering.notify import Delivery, GivenUp, Outbox, OutboxBounds
from swell.state.alerts import Severity
from swell.testing.alert_sink_suite import sample_alert

NOW = ManualClock().unix()
BOUNDS = OutboxBounds()


def outbox(seed: int = 1, bounds: OutboxBounds = BOUNDS) -> Outbox:
    return Outbox(random.Random(seed), bounds)


def delivery(
    alert_id: str = "a", sink: str = "pager", *, severity: Severity = "warning", age: float = 0.0, due_in: float = 0.0
) -> Delivery:
    return Delivery(sample_alert(alert_id, severity=severity, at_unix=NOW - age), sink, 0, NOW + due_in)


def ids(deliveries: tuple[Delivery, ...]) -> list[str]:
    return [one.alert.alert_id for one in deliveries]


def failed(box: Outbox, one: Delivery, now: float, asked: float = 0.0) -> Delivery:
    later = box.failed(one, now, "busy", asked)
    assert isinstance(later, Delivery)
    return later


def test_what_is_new_is_tried_at_once() -> None:
    turn = outbox().plan([Delivery(sample_alert("a"), "pager")], ["pager"], NOW)
    assert ids(turn.tries) == ["a"]
    assert (turn.given_up, turn.next_unix) == ((), None)


def test_nothing_waits_for_nothing() -> None:
    turn = outbox().plan([], ["pager"], NOW)
    assert (turn.tries, turn.given_up, turn.next_unix) == ((), (), None)


def test_what_is_not_due_waits_and_says_until_when() -> None:
    waiting = [delivery("late", due_in=60), delivery("soon", due_in=5), delivery("due", due_in=0)]
    turn = outbox().plan(waiting, ["pager"], NOW)
    assert ids(turn.tries) == ["due"]
    assert turn.next_unix == NOW + 5


def test_the_most_severe_come_first_and_of_those_the_oldest() -> None:
    waiting = [
        delivery("info", severity="info", age=900),
        delivery("new", age=1),
        delivery("old", age=100),
        delivery("critical", severity="critical"),
    ]
    assert ids(outbox().plan(waiting, ["pager"], NOW).tries) == ["critical", "old", "new", "info"]


def test_tries_are_bounded_per_sink_and_turn_and_the_rest_follows_at_once() -> None:
    waiting = [delivery(str(number), sink, age=9 - number) for number in range(10) for sink in ("chat", "pager")]
    turn = outbox().plan(waiting, ["pager", "chat"], NOW)
    assert len(turn.tries) == 2 * BOUNDS.max_tries
    assert [one.sink for one in turn.tries].count("chat") == BOUNDS.max_tries
    assert turn.next_unix == NOW


def test_waits_double_up_to_a_bound_and_are_rolled() -> None:
    box, one, now = outbox(), delivery(), NOW
    waits = []
    for _ in range(12):
        later = failed(box, one, now)
        waits.append(later.next_try_unix - now)
        one, now = later, later.next_try_unix
    assert one.attempts == 12
    for number, wait in enumerate(waits):
        longest = min(900.0, 5.0 * 2**number)
        assert longest / 2 <= wait <= longest
    assert len({round(wait / min(900.0, 5.0 * 2**number), 6) for number, wait in enumerate(waits)}) == 12


def test_the_same_seed_gives_the_same_waits() -> None:
    first, second, other = (failed(outbox(seed), delivery(), NOW).next_try_unix for seed in (7, 7, 8))
    assert first == second != other


@pytest.mark.parametrize(("asked", "least"), [(120.0, 120.0), (1e9, 3600.0), (float("inf"), 3600.0), (0.0, 2.5)])
def test_a_receiver_that_asks_for_time_gets_it_within_bounds(asked: float, least: float) -> None:
    wait = failed(outbox(), delivery(), NOW, asked).next_try_unix - NOW
    assert least <= wait <= max(least, 5.0)


def test_attempts_are_bounded() -> None:
    box = outbox(bounds=OutboxBounds(max_attempts=3))
    one = failed(box, failed(box, delivery(), NOW), NOW)
    end = box.failed(one, NOW, "connection refused")
    assert end == GivenUp(
        Delivery(one.alert, "pager", 3, one.next_try_unix), "it was tried 3 times; at last: connection refused"
    )


def test_age_is_bounded() -> None:
    old = delivery(age=24 * 3600 + 1)
    (gone,) = outbox().plan([old], ["pager"], NOW).given_up
    assert gone == GivenUp(old, "it is older than 24 hours")
    end = outbox().failed(delivery(age=24 * 3600 - 1), NOW, "busy")
    assert isinstance(end, GivenUp)
    assert end.reason == "it is older than 24 hours; at last: busy"


def test_a_refusal_is_the_end() -> None:
    end = outbox().refused(delivery(), "no such hook")
    assert (end.delivery.attempts, end.reason) == (1, "it was refused: no such hook")


def test_what_waits_for_a_sink_that_is_gone_is_given_up() -> None:
    turn = outbox().plan([delivery("a", "gone"), delivery("b")], ["pager"], NOW)
    assert ids(turn.tries) == ["b"]
    assert [one.reason for one in turn.given_up] == ["there is no sink gone any more"]


def test_too_many_waiting_push_out_the_least_severe_and_of_those_the_oldest() -> None:
    waiting = [
        delivery("critical", severity="critical", age=500),
        delivery("info-old", severity="info", age=400, due_in=9),
        delivery("info-new", severity="info", age=1, due_in=9),
        delivery("warning-old", age=300),
        delivery("warning-new", age=2),
        delivery("elsewhere", "chat", severity="info", age=999),
    ]
    turn = outbox(bounds=OutboxBounds(max_waiting=3)).plan(waiting, ["pager", "chat"], NOW)
    assert ids(tuple(one.delivery for one in turn.given_up)) == ["info-old", "info-new"]
    assert {one.reason for one in turn.given_up} == {"more than 3 alerts wait for this sink"}
    assert sorted(ids(turn.tries)) == ["critical", "elsewhere", "warning-new", "warning-old"]


def test_a_clock_that_was_set_back_delays_nothing() -> None:
    """A try that stands further ahead than any wait can be was set by a clock that ran ahead."""
    turn = outbox().plan([delivery("set-back", due_in=3601), delivery("asked", due_in=3600)], ["pager"], NOW)
    assert ids(turn.tries) == ["set-back"]
    assert turn.next_unix == NOW + 3600


def test_a_dead_sink_is_tried_a_day_long_and_then_no_more() -> None:
    box, clock = outbox(), ManualClock()
    waiting = [Delivery(sample_alert("a"), "pager")]
    tried_at: list[float] = []
    while waiting:
        turn = box.plan(waiting, ["pager"], clock.unix())
        waiting = []
        for one in turn.tries:
            tried_at.append(clock.unix() - NOW)
            later = box.failed(one, clock.unix(), "down")
            waiting += [later] if isinstance(later, Delivery) else []
        if waiting:
            clock.advance(waiting[0].next_try_unix - clock.unix())
    assert 23 * 3600 < tried_at[-1] <= 24 * 3600
    assert 100 <= len(tried_at) < BOUNDS.max_attempts


SEVERITIES: st.SearchStrategy[Severity] = st.sampled_from(["info", "warning", "critical"])
WAITING = st.lists(
    st.builds(
        Delivery,
        alert=st.builds(
            sample_alert,
            st.sampled_from("abcdef"),
            severity=SEVERITIES,
            at_unix=st.floats(min_value=NOW - 200_000, max_value=NOW + 1_000),
        ),
        sink=st.sampled_from(["pager", "chat", "gone"]),
        attempts=st.integers(min_value=0, max_value=200),
        next_try_unix=st.floats(min_value=NOW - 1e4, max_value=NOW + 1e5),
    ),
    max_size=30,
)


@given(waiting=WAITING, max_waiting=st.integers(min_value=1, max_value=10), max_tries=st.integers(1, 5))
def test_every_delivery_is_tried_given_up_or_kept_for_a_moment_that_is_told(
    waiting: list[Delivery], max_waiting: int, max_tries: int
) -> None:
    bounds = OutboxBounds(max_waiting=max_waiting, max_tries=max_tries)
    turn = outbox(bounds=bounds).plan(waiting, ["pager", "chat"], NOW)
    handled = [*map(id, turn.tries), *(id(one.delivery) for one in turn.given_up)]
    assert len(set(handled)) == len(handled)
    kept = [one for one in waiting if id(one) not in handled]
    for sink in ("pager", "chat"):
        assert sum(one.sink == sink for one in turn.tries) <= max_tries
        assert sum(one.sink == sink for one in (*turn.tries, *kept)) <= max_waiting
    assert (turn.next_unix is None) == (not kept)
    assert turn.next_unix is None or NOW <= turn.next_unix <= NOW + 3600
