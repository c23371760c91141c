"""Steps of budgets: each begins at its share, and ends only when spend has fallen well below it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.metering.accounts import Standing
from swell.metering.ladder import HYSTERESIS_PERCENT, steps_now
from swell.spec.steps import STEPS, Step, parse_step
from swell.state.budgets import BudgetLimit

LADDER = tuple(map(parse_step, ("shed_batch", "cheaper_variant", "throttle")))


def standing(spent: int, *, cap: int = 1000, grace: int = 0, held: int = 0, has_refused: bool = False) -> Standing:
    limit = BudgetLimit("budget:x:0", "budget:x", "tenant", "search", cap, "2026-11", grace_usd_nanos=grace)
    return Standing(limit, spent, held, has_refused)


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (0, ()),
        (899, ()),
        (900, ("shed_batch",)),
        (950, ("shed_batch", "cheaper_variant")),
        (980, ("shed_batch", "cheaper_variant", "throttle")),
        (1000, STEPS),
        (1200, STEPS),  # the budget was lowered
    ],
)
def test_steps_begin_at_their_shares_of_what_is_spent(spent: int, expected: tuple[str, ...]) -> None:
    assert steps_now(standing(spent), LADDER, ()) == expected


def test_what_is_merely_held_begins_no_step() -> None:
    assert steps_now(standing(899, held=101), LADDER, ()) == ()


def test_with_a_grace_steps_may_lie_in_it_and_it_blocks_at_its_end() -> None:
    ladder = (Step(105, "throttle"), Step(90, "shed_batch"))
    found = [steps_now(standing(spent, grace=100), ladder, ()) for spent in (1000, 1050, 1100)]
    assert found == [("shed_batch",), ("shed_batch", "throttle"), ("shed_batch", "throttle", "block")]


def test_it_blocks_when_requests_of_ordinary_size_are_refused() -> None:
    assert steps_now(standing(990, has_refused=True), (), ()) == ("block",)
    assert steps_now(standing(500, has_refused=True), (), ()) == ()
    assert steps_now(standing(0, cap=0), LADDER, ()) == ()


def test_a_step_ends_only_well_below_its_share() -> None:
    assert steps_now(standing(899), LADDER, ("shed_batch",)) == ("shed_batch",)
    assert steps_now(standing(850), LADDER, ("shed_batch",)) == ("shed_batch",)
    assert steps_now(standing(849), LADDER, ("shed_batch",)) == ()


@given(base=st.integers(1, 1100), wobbles=st.lists(st.integers(0, HYSTERESIS_PERCENT * 10), max_size=50))
def test_steps_do_not_flap_where_spend_wobbles_by_no_more_than_the_hysteresis(base: int, wobbles: list[int]) -> None:
    before: tuple[str, ...] = ()
    for wobble in wobbles:
        now = steps_now(standing(base + wobble), LADDER, before)
        assert set(before) - {"block"} <= set(now)
        assert set(steps_now(standing(base + wobble), LADDER, ())) <= set(now)
        before = now
