"""The store's processes as the fleet uses them: each call on the store's thread."""

from dataclasses import dataclass

from swell.ports.store import Store
from swell.server.writer import Writer
from swell.state.records import ProcessRecord


@dataclass(frozen=True)
class StoredIntents:
    """`swell.control.intents.Intents` on the store."""

    store: Store
    writer: Writer

    async def record_process(self, process: ProcessRecord) -> None:
        """Store or replace an intent."""
        await self.writer.call(lambda: self.store.record_process(process))

    async def record_started(self, process_id: str, pid: int, start_time: float) -> None:
        """Add what the started process is known by."""
        await self.writer.call(lambda: self.store.record_started(process_id, pid, start_time))

    async def remove_process(self, process_id: str) -> None:
        """Forget a child."""
        await self.writer.call(lambda: self.store.remove_process(process_id))

    async def list_processes(self) -> list[ProcessRecord]:
        """All of them."""
        return await self.writer.call(self.store.list_processes)
