"""Earliest deadline first, lost ones last, nobody lost."""

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.admission import DeadlineQueue


def test_those_who_can_still_be_served_go_before_those_who_are_lost() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue()
    for name, deadline, needs in (("lost", 1.0, 0.5), ("second", 9.0, 1.0), ("first", 8.0, 1.0), ("tight", 3.0, 1.0)):
        queue.push(name, deadline, needs)
    assert [queue.take(2.0) for _ in range(5)] == ["tight", "first", "second", "lost", None]


def test_a_model_may_refuse_the_lost_ones() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue()
    for name, deadline in (("a", 1.0), ("b", 5.0), ("c", 2.0)):
        queue.push(name, deadline, 0.0)
    late = queue.late(3.0)
    assert late == ["a", "c"]
    assert all(queue.remove(item) for item in late)
    assert len(queue) == 1
    assert queue.take(3.0) == "b"


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10))), st.lists(st.floats(0, 100)))
def test_everybody_comes_out_once(pushed: list[tuple[float, float]], times: list[float]) -> None:
    queue: DeadlineQueue[int] = DeadlineQueue()
    for item, (deadline, needs) in enumerate(pushed):
        queue.push(item, deadline, needs)
    out = [queue.take(now) for now in sorted(times)] + [queue.take(100.0) for _ in pushed]
    assert sorted(item for item in out if item is not None) == list(range(len(pushed)))
    assert len(queue) == 0
