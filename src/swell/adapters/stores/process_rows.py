"""Child processes as rows."""

import msgspec
from sqlalchemy import delete, select, update

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import processes
from swell.errors import AlreadyGone
from swell.state.records import ProcessRecord


class ProcessRows:
    """`swell.ports.store.ProcessStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_process(self, process: ProcessRecord) -> None:
        values = msgspec.structs.asdict(process) | {"detail": msgspec.json.encode(process.detail).decode()}
        with self._database.writing() as connection:
            statement = insert(connection, processes).values(values)
            connection.execute(statement.on_conflict_do_update(index_elements=["process_id"], set_=values))

    def record_started(self, process_id: str, pid: int, start_time: float) -> None:
        statement = update(processes).where(processes.c.process_id == process_id)
        with self._database.writing() as connection:
            if connection.execute(statement.values(pid=pid, start_time=start_time)).rowcount == 0:
                raise AlreadyGone(f"the process entry {process_id} was removed; stop process {pid}")

    def remove_process(self, process_id: str) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(processes).where(processes.c.process_id == process_id))

    def list_processes(self) -> list[ProcessRecord]:
        query = select(processes).order_by(processes.c.recorded_at_unix, processes.c.process_id)
        with self._database.reading() as connection:
            return [
                ProcessRecord(**dict(row._mapping) | {"detail": msgspec.json.decode(row.detail)})
                for row in connection.execute(query)
            ]
