"""From what shall be to what must be done."""

from hypothesis import given
from hypothesis import strategies as st

from swell.policy.scaling.diff import Drain, Start, actions
from swell.state.scaling import Decision, LatencyProfile, Market, Pool, ReplicaState, ReplicaView

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 0.0, 12.0, 0.03, 8e-5, kv_tokens=400_000)
POOLS = {
    "a": Pool("a", PROFILE, 2.0, 60.0),
    "b": Pool("b", PROFILE, 1.0, 60.0, Market.SPOT, "z", hazard_per_hour=0.1),
}
READY, STARTING, DRAINING = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING


def view(
    name: str, state: ReplicaState = READY, pool: str = "a", in_flight: int = 0, since: float = 0.0
) -> ReplicaView:
    return ReplicaView(name, pool, state, since, in_flight, ordered_at=since)


def decided(**counts: int) -> Decision:
    return Decision(0.0, tuple(counts.items()), "because", "forecast")


def test_what_is_missing_is_ordered_and_what_starts_counts() -> None:
    there = [view("1"), view("2", STARTING), view("3", DRAINING)]
    assert actions(decided(a=4), there, POOLS) == [Start("a", 2)]
    assert actions(decided(a=2), there, POOLS) == []


def test_what_has_not_started_goes_first_then_what_has_least_to_finish() -> None:
    there = [
        view("old", in_flight=1),
        view("busy", in_flight=9),
        view("late", STARTING, since=50),
        view("early", STARTING, since=40),
    ]
    gone = [action.replica_id for action in actions(decided(a=0), there, POOLS) if isinstance(action, Drain)]
    assert gone == ["late", "early", "old", "busy"]


def test_a_pool_that_is_not_named_stays_as_it_is() -> None:
    assert actions(decided(a=1), [view("1"), view("2", pool="b")], POOLS) == []


views = st.lists(
    st.builds(
        view, st.uuids().map(str), st.sampled_from(list(ReplicaState)), st.sampled_from(["a", "b"]),
        st.integers(0, 50), st.floats(0, 1e6),
    ),
    max_size=12,
)  # fmt: skip


@given(views, st.integers(0, 10), st.integers(0, 10))
def test_applying_what_is_said_gives_what_was_decided_and_then_nothing(
    there: list[ReplicaView], a: int, b: int
) -> None:
    decision = decided(a=a, b=b)
    found = actions(decision, there, POOLS)
    gone = {action.replica_id for action in found if isinstance(action, Drain)}
    after = [replica for replica in there if replica.replica_id not in gone]
    for action in found:
        if isinstance(action, Start):
            after += [view(f"new-{action.pool}-{i}", STARTING, action.pool) for i in range(action.count)]
    assert actions(decision, after, POOLS) == []
    for pool, wanted in decision.counts:
        assert sum(r.pool == pool and r.state is not DRAINING for r in after) == wanted
