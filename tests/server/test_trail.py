"""The trail: changes are lines of their own, holds by one rule are one line, and the store misses nothing."""

from swell.cli.trail import trail_lines
from swell.server.trail import MAX_WAITING, Trail
from swell.state.records import DecisionRecord
from swell.state.scaling import Decision, Option
from swell.testing.memory_store import MemoryStore


def hold(binding: str = "forecast", replicas: int = 1, reason: str = "enough") -> Decision:
    return Decision(0.0, (("process", replicas),), reason, binding, is_hold=True)


def change(replicas: int) -> Decision:
    return Decision(
        0.0, (("process", replicas),), "more is coming", "forecast",
        inputs=(("demand", 2.0),), rejected=(Option(1, "what there is"),),
    )  # fmt: skip


def flushed(trail: Trail, store: MemoryStore) -> list[DecisionRecord]:
    store.put_decisions(trail.take(), 100)
    return store.list_decisions(None, 100)[::-1]


def test_holds_by_one_rule_are_one_line_with_the_last_reason() -> None:
    trail, store = Trail(1), MemoryStore()
    for second, reason in enumerate(("a", "b", "c")):
        trail.add("m", hold(reason=reason), 1, float(second))
        flushed(trail, store)
    [line] = flushed(trail, store)
    assert (line.times, line.reason, line.at_unix, line.until_unix) == (3, "c", 0.0, 2.0)


def test_a_change_another_rule_or_number_begins_a_new_line() -> None:
    trail, store = Trail(1), MemoryStore()
    for decision in (hold(), change(3), hold(replicas=3), hold(replicas=3), hold("ceiling", 3), hold("ceiling", 2)):
        trail.add("m", decision, 1, 5.0)
    lines = flushed(trail, store)
    assert [(line.is_hold, line.replicas, line.times) for line in lines] == [
        (True, 1, 1), (False, 3, 1), (True, 3, 2), (True, 3, 1), (True, 2, 1),
    ]  # fmt: skip
    assert lines[1].rejected == ((1, "what there is"),)
    assert lines[1].inputs == {"demand": 2.0}


def test_models_do_not_disturb_each_other() -> None:
    trail, store = Trail(1), MemoryStore()
    for _ in range(3):
        trail.add("m", hold(), 1, 1.0)
        trail.add("n", hold(), 1, 1.0)
    assert [(line.model, line.times) for line in flushed(trail, store)] == [("m", 3), ("n", 3)]


def test_what_has_not_changed_is_not_stored_again() -> None:
    trail, store = Trail(1), MemoryStore()
    trail.add("m", hold(), 1, 1.0)
    flushed(trail, store)
    assert trail.take() == []


def test_what_the_store_refused_is_offered_again_in_order() -> None:
    trail, store = Trail(1), MemoryStore()
    trail.add("m", hold(), 1, 1.0)
    refused = trail.take()
    trail.add("m", hold(), 1, 2.0)
    trail.add("m", change(2), 1, 3.0)
    trail.put_back(refused)
    assert [(line.is_hold, line.times) for line in flushed(trail, store)] == [(True, 2), (False, 1)]


def test_a_store_that_never_answers_costs_bounded_memory() -> None:
    trail = Trail(1)
    for number in range(MAX_WAITING + 50):
        trail.add("m", change(number), 1, 1.0)
    assert len(trail.take()) == MAX_WAITING


def test_runs_do_not_overwrite_one_another() -> None:
    store = MemoryStore()
    for run in (1, 2):
        trail = Trail(run)
        trail.add("m", change(run), 1, 1.0)
        flushed(trail, store)
    assert [line.replicas for line in store.list_decisions("m", 10)] == [2, 1]


def test_a_line_tells_time_change_rule_reason_inputs_and_what_was_not_taken() -> None:
    base = {"model": "m", "at_unix": 0.0, "until_unix": 65.0, "times": 1, "before": 1, "replicas": 3, "rejected": []}
    changed = {**base, "is_hold": False, "binding": "forecast", "reason": "more is coming",
               "inputs": {"demand": 2.0}, "rejected": [(1, "what there is")]}  # fmt: skip
    assert list(trail_lines(changed)) == [
        "1970-01-01 00:00:00  m  1 -> 3  [forecast] more is coming",
        "    from demand 2",
        "    not 1: what there is",
    ]
    held = {**base, "is_hold": True, "times": 9, "binding": "idle", "reason": "quiet", "inputs": {"demand": 0.0}}
    assert list(trail_lines(held)) == ["1970-01-01 00:00:00  m  stays at 3 (9 times, until 00:01:05)  [idle] quiet"]
