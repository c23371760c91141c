"""The queue of all classes: weighted turns, deadlines inside a class, batch in what is left, nobody lost or starved."""

from heapq import heappop, heappush
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.admission import AdmissionQueue, DeadlineQueue
from swell.policy.queueing import PRIORITIES, WEIGHTS

classes = st.sampled_from(PRIORITIES)
moments = st.floats(0, 100)
requests = st.tuples(moments, st.floats(0, 10))  # deadline, needs


class Plain:
    """What a single class does, said as plainly as possible; without a bound on the wait."""

    def __init__(self) -> None:
        self.on_time: list[tuple[float, int, float]] = []
        self.late: list[int] = []

    def push(self, item: int, deadline: float, needs: float) -> None:
        heappush(self.on_time, (deadline, item, needs))

    def take(self, now: float) -> int | None:
        while self.on_time:
            deadline, item, needs = heappop(self.on_time)
            if now + needs <= deadline:
                return item
            self.late.append(item)
        return self.late.pop(0) if self.late else None


@given(st.lists(st.one_of(requests, moments)))
def test_one_class_goes_by_deadline_and_those_who_are_lost_go_last(steps: list[tuple[float, float] | float]) -> None:
    """A pair is pushed; at a number one is taken."""
    queue: AdmissionQueue[int] = AdmissionQueue()
    plain = Plain()
    for item, step in enumerate(steps):
        if isinstance(step, tuple):
            queue.push(item, *step)
            plain.push(item, *step)
        else:
            assert queue.take(step) == plain.take(step)
    while (expected := plain.take(100.0)) is not None:
        assert queue.take(100.0) == expected
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from(["push", "take", "try", "remove"]), classes, moments, st.integers(0, 30))))
def test_nobody_is_lost_doubled_or_counted_wrongly(steps: list[tuple[str, str, float, int]]) -> None:
    queue: AdmissionQueue[int] = AdmissionQueue()
    waiting: dict[int, str] = {}
    for item, (what, priority, at, other) in enumerate(steps):
        if what == "push":
            queue.push(item, at, priority=priority, gives_up_at=at + other)
            waiting[item] = priority
        elif what == "remove":
            assert queue.remove(other) == (waiting.pop(other, None) is not None)
        else:
            taken = queue.take(at, None if what == "take" else lambda each, other=other: each % 3 != other % 3)
            if taken is not None:
                waiting.pop(taken)
            elif what == "take":
                assert not waiting
            else:
                assert all(each % 3 == other % 3 for each in waiting)
        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        for name in PRIORITIES:
            assert queue.waiting(name) == list(waiting.values()).count(name)
    left = [queue.take(50.0) for _ in waiting]
    assert sorted(item for item in left if item is not None) == sorted(waiting)
    assert queue.take(50.0) is None


@given(st.lists(st.tuples(classes, moments, st.booleans())), moments)
def test_batch_goes_out_only_where_nobody_else_waits(steps: list[tuple[str, float, bool]], now: float) -> None:
    queue: AdmissionQueue[tuple[str, int]] = AdmissionQueue()
    for number, (priority, deadline, takes) in enumerate(steps):
        queue.push((priority, number), deadline, priority=priority)
        if takes:
            others = queue.waiting("interactive") + queue.waiting("standard")
            taken = queue.take(now)
            assert taken is not None
            assert (taken[0] == "batch") == (others == 0)


@given(st.lists(moments, min_size=1), moments)
def test_batch_goes_in_order_of_arrival_and_is_never_late(deadlines: list[float], now: float) -> None:
    queue: AdmissionQueue[int] = AdmissionQueue()
    for item, deadline in enumerate(deadlines):
        queue.push(item, deadline, priority="batch")
    assert queue.late(now) == []
    assert [queue.take(now) for _ in deadlines] == list(range(len(deadlines)))


@given(st.lists(st.sampled_from(sorted(WEIGHTS)), max_size=80), st.integers(0, 80))
def test_a_class_that_waits_gets_its_share_whenever_it_came(joins: list[str], already: int) -> None:
    """Between two turns of a class, others get what their weights allow, and never more for what they missed before."""
    queue: AdmissionQueue[tuple[str, int]] = AdmissionQueue()
    passed = dict.fromkeys(WEIGHTS, 0)  # turns of others since the class's last, or since it came
    allowed = {name: sum(WEIGHTS.values()) / weight for name, weight in WEIGHTS.items()}
    first = joins[0] if joins else "standard"
    for number in range(already):
        queue.push((first, -number), inf, priority=first)
    for _ in range(already // 2):
        queue.take(0.0)
    for number, name in enumerate(joins):
        queue.push((name, number), inf, priority=name)
        queue.push((name, 1000 + number), inf, priority=name)
        taken = queue.take(0.0)
        assert taken is not None
        for other in WEIGHTS:
            passed[other] = 0 if other == taken[0] or not queue.waiting(other) else passed[other] + 1
            assert passed[other] <= allowed[other] + 1


def test_turns_that_were_missed_are_not_made_up_for() -> None:
    queue: AdmissionQueue[tuple[str, int]] = AdmissionQueue()
    for number in range(200):
        queue.push(("interactive", number), inf, priority="interactive")
    for _ in range(81):
        queue.take(0.0)
    for number in range(20):
        queue.push(("standard", number), inf, priority="standard")
    turns = [taken[0] for _ in range(12) if (taken := queue.take(0.0)) is not None]
    assert (turns.count("interactive"), turns.count("standard")) == (8, 4)


def test_a_demoted_request_gets_every_other_turn_when_half_of_what_was_left_is_over() -> None:
    queue: DeadlineQueue[str] = DeadlineQueue()
    for number in range(3):
        queue.push(f"old{number}", deadline=5.0, gives_up_at=25.0)
    for number in range(9):
        queue.push(f"new{number}", deadline=30.0, gives_up_at=60.0)
    assert [queue.take(14.9) for _ in range(2)] == ["new0", "new1"]
    assert [queue.take(15.0) for _ in range(6)] == ["old0", "new2", "old1", "new3", "old2", "new4"]


@given(st.integers(20, 60), st.floats(0.05, 0.5))
def test_under_a_lasting_overload_the_oldest_does_not_wait_for_ever(count: int, spacing: float) -> None:
    """Fresh requests come as fast as places become free: the demoted are served all the same, by their order."""
    queue: DeadlineQueue[int] = DeadlineQueue()
    for item in range(5):
        queue.push(item, deadline=1.0, gives_up_at=9.0)
    served = []
    for turn in range(count):
        now = 5.0 + turn * spacing
        queue.push(100 + turn, deadline=now + 1.0, gives_up_at=now + 9.0)
        served.append(queue.take(now))
    assert [item for item in served[:10] if item is not None and item < 100] == [0, 1, 2, 3, 4]


def test_one_that_may_not_go_keeps_its_place_and_lets_others_pass() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue()
    for name, deadline in (("lost", 1.0), ("lost too", 1.5), ("a", 8.0), ("lost last", 1.7), ("b", 9.0)):
        queue.push(name, deadline, priority="interactive")
    queue.push("c", 9.0, priority="standard")
    assert queue.take(2.0, lambda name: name not in ("a", "b", "lost")) == "lost too"
    assert queue.late(2.0) == ["lost", "lost last"]
    assert queue.take(2.0, lambda name: name == "c") == "c"
    assert queue.take(2.0, lambda name: False) is None
    assert [queue.take(2.0) for _ in range(5)] == ["a", "b", "lost", "lost last", None]


def test_whoever_goes_out_may_leave_others_and_bring_more() -> None:
    queue: AdmissionQueue[str] = AdmissionQueue()
    for name in ("a", "b", "c"):
        queue.push(name, 9.0)

    def goes_out(name: str) -> bool:
        assert name not in set(queue)
        queue.remove("b")
        queue.push("d", 8.0)
        return True

    assert queue.take(0.0, goes_out) == "a"
    assert [queue.take(0.0) for _ in range(3)] == ["d", "c", None]


def test_requests_that_left_are_cleared_away() -> None:
    """A model without replicas for hours: clients come, wait and leave, and nothing is ever taken."""
    queue: DeadlineQueue[int] = DeadlineQueue()
    queue.push(-1, 0.5)
    assert queue.late(1.0) == [-1]
    for item in range(5000):
        queue.push(item, float(item))
        assert queue.remove(item)
        assert not queue.remove(item)
    assert len(queue._on_time) + len(queue._late) < 100
    assert queue.take(0.0) == -1
