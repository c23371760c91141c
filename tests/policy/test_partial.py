"""Decisions on a part of the traffic: none is let go, and no more run than would have."""

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.scaling.diff import Drain, actions
from swell.policy.scaling.funded import BINDING as BUDGET
from swell.policy.scaling.partial import BINDING, letting_nobody_go
from swell.state.scaling import Decision, ReplicaState, ReplicaView

POOLS = ("a", "b", "c")


def views(*counts: int, draining: int = 0) -> list[ReplicaView]:
    """So many of each pool, and some of the first that leave already."""
    found = [
        ReplicaView(f"{pool}-{number}", pool, ReplicaState.READY if number % 2 else ReplicaState.STARTING, 0.0)
        for pool, count in zip(POOLS, counts, strict=False)
        for number in range(count)
    ]
    return [*found, *(ReplicaView(f"gone-{n}", "a", ReplicaState.DRAINING, 0.0) for n in range(draining))]


def decision(*counts: int, binding: str = "release") -> Decision:
    return Decision(9.0, tuple(zip(POOLS, counts, strict=False)), "down from 3 to 1: quiet", binding)


def test_more_are_ordered_and_fewer_are_not() -> None:
    assert letting_nobody_go(decision(5), views(3)) == decision(5)
    kept = letting_nobody_go(decision(1), views(3, draining=2))
    assert (kept.counts, kept.binding, kept.is_hold) == ((("a", 3),), BINDING, True)
    assert (
        kept.reason == "a gateway worker is silent and may be serving, so none is let go; else down from 3 to 1: quiet"
    )


def test_what_a_budget_forbids_goes_all_the_same() -> None:
    assert letting_nobody_go(decision(1, binding=BUDGET), views(3)).counts == (("a", 1),)


def test_one_kind_is_not_changed_for_another() -> None:
    assert letting_nobody_go(decision(0, 3), views(3, 0)).counts == (("a", 3), ("b", 0))


_COUNTS = st.lists(st.integers(0, 5), min_size=3, max_size=3)


@given(_COUNTS, _COUNTS, st.integers(0, 3))
def test_nobody_is_let_go_and_no_more_run_than_are_or_were_decided(
    wanted: list[int], here: list[int], draining: int
) -> None:
    decided, replicas = decision(*wanted), views(*here, draining=draining)
    kept = letting_nobody_go(decided, replicas)
    assert not any(isinstance(action, Drain) for action in actions(kept, replicas, {}))
    assert kept.replicas <= max(decided.replicas, sum(here))
    assert all(count >= present for (_, count), present in zip(kept.counts, here, strict=True))
    if all(count >= present for count, present in zip(wanted, here, strict=True)):
        assert kept == decided
