"""The lives of replicas of the store in memory."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager

from swell.ports.store import require_few_runs
from swell.state.replica_runs import ReplicaRun


class MemoryRuns:
    """`swell.ports.store.RunStore` in a dictionary. `guarded` wraps each call."""

    def __init__(self, guarded: Callable[[], AbstractContextManager[None]]) -> None:
        self._guarded = guarded
        self._runs: dict[str, ReplicaRun] = {}

    def put_runs(self, runs: Sequence[ReplicaRun]) -> None:
        with self._guarded():
            self._runs.update((run.replica_id, run) for run in runs)

    def list_runs(
        self, since_unix_ms: int | None = None, until_unix_ms: int | None = None, model: str | None = None
    ) -> list[ReplicaRun]:
        with self._guarded():
            return _in_order(
                run
                for run in self._runs.values()
                if (since_unix_ms is None or run.until_unix_ms > since_unix_ms)
                and (until_unix_ms is None or run.started_unix_ms < until_unix_ms)
                and model in (None, run.model)
            )

    def open_runs(self) -> list[ReplicaRun]:
        with self._guarded():
            return _in_order(run for run in self._runs.values() if run.ended_unix_ms is None)


def _in_order(runs: Iterable[ReplicaRun]) -> list[ReplicaRun]:
    found = sorted(runs, key=lambda run: (run.started_unix_ms, run.replica_id))
    require_few_runs(len(found))
    return found
