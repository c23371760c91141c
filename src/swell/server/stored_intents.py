"""The store's processes as the fleet uses them: each call on the store's thread."""

from collections.abc import Sequence
from dataclasses import dataclass

from swell.ports.store import Store
from swell.server.writer import Writer
from swell.state.records import ProcessRecord, StartedProcess


@dataclass(frozen=True)
class StoredIntents:
    """`swell.control.intents.Intents` on the store."""

    store: Store
    writer: Writer

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        """Store or replace intents, together."""
        await self.writer.call(lambda: self.store.record_processes(processes))

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        """Add what started processes are known by."""
        await self.writer.call(lambda: self.store.record_started(started))

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        """Forget children, together."""
        await self.writer.call(lambda: self.store.remove_processes(process_ids))

    async def list_processes(self) -> list[ProcessRecord]:
        """All of them."""
        return await self.writer.call(self.store.list_processes)
