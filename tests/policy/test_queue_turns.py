"""Waiting classes: weighted turns between interactive and standard, batch in what they leave, none above its key."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.queueing import PRIORITIES, WEIGHTS, best_allowed, next_class

counts = st.dictionaries(st.sampled_from(PRIORITIES), st.integers(0, 40))


def drain(waiting: dict[str, int]) -> list[str]:
    """The order in which everything that waits is served."""
    left, served, order = dict(waiting), Counter[str](), []
    while (name := next_class(left, served)) is not None:
        assert left[name] > 0
        left[name] -= 1
        served[name] += 1
        order.append(name)
    assert not any(left.values())
    return order


@given(waiting=counts)
def test_everything_that_waits_is_served_and_batch_last(waiting: dict[str, int]) -> None:
    order = drain(waiting)
    assert Counter(order) == Counter({name: count for name, count in waiting.items() if count})
    batch = waiting.get("batch", 0)
    assert order[len(order) - batch :] == ["batch"] * batch


@given(interactive=st.integers(1, 60), standard=st.integers(1, 60))
def test_while_both_wait_turns_follow_the_weights(interactive: int, standard: int) -> None:
    order = drain({"interactive": interactive, "standard": standard})
    served = Counter[str]()
    for name in order:
        if served["interactive"] == interactive or served["standard"] == standard:
            break
        served[name] += 1
        share = {each: served[each] / WEIGHTS[each] for each in WEIGHTS}
        assert abs(share["interactive"] - share["standard"]) <= 1 / min(WEIGHTS.values())


def test_the_worked_numbers_in_the_module() -> None:
    assert next_class({"interactive": 1, "standard": 1}, {"interactive": 8, "standard": 3}) == "standard"
    assert next_class({"interactive": 1, "standard": 1}, {"interactive": 8, "standard": 4}) == "interactive"
    assert next_class({"batch": 1}, {}) == "batch"
    assert next_class({}, {}) is None
    assert next_class({"standard": 0}, {}) is None


@given(asked=st.one_of(st.sampled_from(PRIORITIES), st.text()), allowed=st.sampled_from(PRIORITIES))
def test_nobody_gets_a_better_class_than_its_key_allows(asked: str, allowed: str) -> None:
    got = best_allowed(asked, allowed)
    assert PRIORITIES.index(got) >= PRIORITIES.index(allowed)
    assert got in (allowed, asked)
