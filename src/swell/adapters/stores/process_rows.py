"""Child processes as rows."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import bindparam, delete, select, update

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import processes
from swell.errors import AlreadyGone
from swell.state.records import ProcessRecord, StartedProcess


class ProcessRows:
    """`swell.ports.store.ProcessStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_processes(self, intents: Sequence[ProcessRecord]) -> None:
        if not intents:
            return
        values = [
            msgspec.structs.asdict(intent) | {"detail": msgspec.json.encode(intent.detail).decode()}
            for intent in intents
        ]
        with self._database.writing() as connection:
            statement = insert(connection, processes)
            changed = {name: statement.excluded[name] for name in values[0]}
            connection.execute(statement.on_conflict_do_update(index_elements=["process_id"], set_=changed), values)

    def record_started(self, started: Sequence[StartedProcess]) -> None:
        if not started:
            return
        known = select(processes.c.process_id).where(processes.c.process_id.in_([each.process_id for each in started]))
        change = update(processes).where(processes.c.process_id == bindparam("intent"))
        values = [{"intent": each.process_id, "pid": each.pid, "start_time": each.start_time} for each in started]
        with self._database.writing() as connection:
            left = set(connection.execute(known).scalars())
            for each in started:
                if each.process_id not in left:
                    raise AlreadyGone(f"the process entry {each.process_id} was removed; stop process {each.pid}")
            connection.execute(change, values)

    def remove_processes(self, process_ids: Sequence[str]) -> None:
        if not process_ids:
            return
        with self._database.writing() as connection:
            connection.execute(delete(processes).where(processes.c.process_id.in_(process_ids)))

    def list_processes(self) -> list[ProcessRecord]:
        query = select(processes).order_by(processes.c.recorded_at_unix, processes.c.process_id)
        with self._database.reading() as connection:
            return [
                ProcessRecord(**dict(row._mapping) | {"detail": msgspec.json.decode(row.detail)})
                for row in connection.execute(query)
            ]
