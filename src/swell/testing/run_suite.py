"""The part of the store's contract that is about lives of replicas."""

# ruff: noqa: S101  asserting is what a suite is for

import pytest
from msgspec.structs import replace

from swell.errors import UserError
from swell.ports import store as store_port
from swell.ports.store import Store
from swell.state.replica_runs import ReplicaRun


def replica_run(replica_id: str = "chat-0-a", **changes: object) -> ReplicaRun:
    """A run with every field set."""
    fields: dict[str, object] = {
        "replica_id": replica_id,
        "model": "chat",
        "provider": "process",
        "market": "own",
        "accelerator": "4xH100",
        "usd_nanos_per_hour": 2_500_000_000,
        "started_unix_ms": 1000,
        "ready_unix_ms": 2000,
        "ended_unix_ms": 9000,
        "seen_unix_ms": 8000,
    }
    return ReplicaRun(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


class RunSuite:
    """The contract of `swell.ports.store.RunStore`."""

    def test_a_run_is_added_and_then_replaced(self, store: Store) -> None:
        begun = replica_run(ready_unix_ms=None, ended_unix_ms=None, seen_unix_ms=1000)
        store.put_runs([begun])
        assert store.list_runs() == store.open_runs() == [begun]
        ended = replace(begun, ready_unix_ms=3000, ended_unix_ms=5000, seen_unix_ms=5000)
        other = replica_run("b", market="spot", model="embed")
        store.put_runs([other, ended])
        store.put_runs([])
        assert store.list_runs() == [other, ended]
        assert store.open_runs() == []

    def test_runs_are_found_by_the_time_that_they_took(self, store: Store) -> None:
        early, open_run = replica_run("early"), replica_run("open", ended_unix_ms=None, started_unix_ms=5000)
        store.put_runs([open_run, early])
        assert store.list_runs(8999, None) == [early]
        assert store.list_runs(9000, None) == []
        assert store.list_runs(7999, None) == [early, open_run]
        assert store.list_runs(None, 5000) == [early]
        assert store.list_runs(0, 5001) == [early, open_run]
        assert store.list_runs(None, 1000) == []

    def test_runs_are_found_by_model(self, store: Store) -> None:
        chat, embed = replica_run(), replica_run("b", model="embed")
        store.put_runs([chat, embed])
        assert store.list_runs(model="embed") == [embed]
        assert store.list_runs(0, 10_000, "chat") == [chat]
        assert store.list_runs(model="none") == []

    def test_more_runs_than_a_read_may_return_are_refused(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        store.put_runs([replica_run(f"r{number}") for number in range(3)])
        monkeypatch.setattr(store_port, "MAX_RUNS", 2)
        with pytest.raises(UserError, match="shorter period"):
            store.list_runs()
