"""Lives of replicas as rows."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import Select, func, select

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import replica_runs
from swell.ports import store as store_port
from swell.state.replica_runs import ReplicaRun

_ENDED = func.coalesce(replica_runs.c.ended_unix_ms, replica_runs.c.seen_unix_ms)


class RunRows:
    """`swell.ports.store.RunStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_runs(self, runs: Sequence[ReplicaRun]) -> None:
        if not runs:
            return
        names = [name for name in ReplicaRun.__struct_fields__ if name != "replica_id"]
        with self._database.writing() as connection:
            statement = insert(connection, replica_runs)
            changed = {name: statement.excluded[name] for name in names}
            statement = statement.on_conflict_do_update(index_elements=["replica_id"], set_=changed)
            connection.execute(statement, [asdict(run) for run in runs])

    def list_runs(
        self, since_unix_ms: int | None = None, until_unix_ms: int | None = None, model: str | None = None
    ) -> list[ReplicaRun]:
        query = select(replica_runs)
        if since_unix_ms is not None:
            query = query.where(since_unix_ms < _ENDED)
        if until_unix_ms is not None:
            query = query.where(replica_runs.c.started_unix_ms < until_unix_ms)
        if model is not None:
            query = query.where(replica_runs.c.model == model)
        return self._read(query)

    def open_runs(self) -> list[ReplicaRun]:
        return self._read(select(replica_runs).where(replica_runs.c.ended_unix_ms.is_(None)))

    def _read(self, query: Select[Any]) -> list[ReplicaRun]:
        query = query.order_by(replica_runs.c.started_unix_ms, replica_runs.c.replica_id)
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(store_port.MAX_RUNS + 1)).all()
        store_port.require_few_runs(len(rows))
        return [ReplicaRun(**row._mapping) for row in rows]
