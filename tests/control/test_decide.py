"""Deciding is pure: whatever the records say, what comes out is legal, small and explained."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from swell.control.decide import Act, Add, Verb, backoff_seconds, decide
from swell.control.replica import Replica
from swell.control.workload import REPLICA, HealthCheck, Workload
from swell.ports.provider import Loss
from swell.state.replica import Phase, move

TARGETS = {
    Verb.START: Phase.STARTING,
    Verb.READY: Phase.READY,
    Verb.FAIL: Phase.FAILED,
    Verb.RETRY: Phase.PENDING,
    Verb.DRAIN: Phase.DRAINING,
    Verb.STOP: Phase.STOPPING,
}
LIVING_PHASES = [phase for phase in Phase if phase is not Phase.STOPPED]


def _workload(name: str, count: int) -> Workload:
    return Workload(
        name=name,
        kind=REPLICA,
        count=count,
        provider="process",
        log_dir=Path("logs"),
        fingerprint="v1",
        health=HealthCheck("/health", lambda status: status == 200),
    )


@st.composite
def _replicas(draw: st.DrawFn) -> list[Replica]:
    replicas = []
    for ordinal in range(draw(st.integers(0, 6))):
        phase = draw(st.sampled_from(LIVING_PHASES))
        replicas.append(
            Replica(
                workload=draw(st.sampled_from(["chat", "gone"])),
                kind=REPLICA,
                provider="process",
                ordinal=ordinal,
                child_id=f"r{ordinal}",
                fingerprint=draw(st.sampled_from(["v1", "v0"])),
                log_path=Path("log"),
                phase=phase,
                since=draw(st.floats(0, 1000)),
                drain_seconds=30.0,
                stop_grace_seconds=5.0,
                alive=phase is not Phase.PENDING and draw(st.booleans()),
                healthy=draw(st.none() | st.booleans()),
                unhealthy_since=draw(st.none() | st.floats(0, 1000)),
                drained=draw(st.booleans()),
                not_before=draw(st.floats(0, 2000)),
                loss=draw(st.sampled_from([None, *Loss])),
            )
        )
    return replicas


@given(_replicas(), st.integers(0, 5), st.sets(st.sampled_from([f"r{ordinal}" for ordinal in range(6)])))
def test_every_decision_is_legal_and_explained(replicas: list[Replica], count: int, let_go: set[str]) -> None:
    actions = decide({"chat": _workload("chat", count)}, replicas, 1000.0, let_go)
    acts = [action for action in actions if isinstance(action, Act)]
    by_id = {replica.child_id: replica for replica in replicas}
    assert len({act.child_id for act in acts}) == len(acts)
    for act in acts:
        assert act.reason
        if act.verb in TARGETS:
            move(by_id[act.child_id].phase, TARGETS[act.verb])  # raises for an illegal one
        if act.verb is Verb.FINISH:
            move(by_id[act.child_id].phase, Phase.STOPPED)
        if act.verb in (Verb.FINISH, Verb.RETRY):
            assert not by_id[act.child_id].alive
    added = [action.ordinal for action in actions if isinstance(action, Add)]
    own = {replica.ordinal for replica in replicas if replica.workload == "chat"}
    assert len(set(added)) == len(added)
    assert not own & set(added)
    assert len(added) <= count


@given(_replicas(), st.integers(0, 5), st.sets(st.sampled_from([f"r{ordinal}" for ordinal in range(6)])))
def test_what_is_let_go_leaves_and_is_never_started(replicas: list[Replica], count: int, let_go: set[str]) -> None:
    actions = decide({"chat": _workload("chat", count)}, replicas, 1000.0, let_go)
    staying = {Verb.START, Verb.READY, Verb.RETRY, Verb.FAIL}
    assert not [act for act in actions if isinstance(act, Act) and act.child_id in let_go and act.verb in staying]
    named = {act.child_id for act in actions if isinstance(act, Act)}
    for replica in replicas:
        if replica.child_id in let_go and replica.phase in (Phase.PENDING, Phase.STARTING, Phase.READY):
            assert replica.child_id in named


@given(st.integers(0, 5))
def test_what_is_as_wanted_is_left_alone(count: int) -> None:
    workload = _workload("chat", count)
    replicas = [
        Replica(
            workload="chat",
            kind=REPLICA,
            provider="process",
            ordinal=ordinal,
            child_id=f"r{ordinal}",
            fingerprint="v1",
            log_path=Path("log"),
            phase=Phase.READY,
            since=0.0,
            drain_seconds=30.0,
            stop_grace_seconds=5.0,
            alive=True,
            healthy=True,
        )
        for ordinal in range(count)
    ]
    assert decide({"chat": workload}, replicas, now=1e6) == []


@given(st.integers(1, 10_000), st.floats(1.0, 3600.0))
def test_the_back_off_grows_and_is_bounded(failures: int, most: float) -> None:
    assert 0 < backoff_seconds(failures, most) <= backoff_seconds(failures + 1, most) <= most
