"""A small supervising server over real processes, with its intents in a file: what a test kills, and what comes after.

As a program: `supervising.py FOLDER COUNT` keeps COUNT little HTTP servers and prints their child ids once all answer.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from swell.adapters.providers.process import ProcessProvider
from swell.clock import SystemClock
from swell.control.fleet import Fleet
from swell.control.probe import HttpAsk
from swell.control.workload import REPLICA, HealthCheck, Slot, Workload
from swell.errors import AlreadyGone
from swell.ports.engine import LaunchCommand
from swell.state.records import ProcessRecord, StartedProcess

READY_SECONDS = 20.0

_ENGINE = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.send_header("content-length", "0")
        self.end_headers()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class FileIntents:
    """The store's processes as one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _read(self) -> dict[str, ProcessRecord]:
        if not self._path.exists():
            return {}
        return msgspec.json.decode(self._path.read_bytes(), type=dict[str, ProcessRecord])

    def _write(self, records: dict[str, ProcessRecord]) -> None:
        temporary = self._path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(records))
        temporary.replace(self._path)

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        self._write({**self._read(), **{process.process_id: process for process in processes}})

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        records = self._read()
        for process_id, pid, start_time in started:
            if process_id not in records:
                raise AlreadyGone(process_id)
            records[process_id] = msgspec.structs.replace(records[process_id], pid=pid, start_time=start_time)
        self._write(records)

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        self._write({other: record for other, record in self._read().items() if other not in process_ids})

    async def list_processes(self) -> list[ProcessRecord]:
        return list(self._read().values())


class Supervisor:
    """A fleet, its loop and everything under it."""

    def __init__(self, folder: Path, workload: Workload) -> None:
        self.workload = workload
        self.provider = ProcessProvider(on_exit=lambda _: self.fleet.wake())
        self.ask = HttpAsk()
        self._changed = asyncio.Event()
        self.fleet = Fleet(
            providers={"process": self.provider},
            intents=FileIntents(folder / "intents.json"),
            ask=self.ask,
            clock=SystemClock(),
            on_change=self._changed.set,
        )

    async def ready(self, count: int) -> set[str]:
        """Run until `count` are ready; their child ids."""
        async with asyncio.timeout(READY_SECONDS):
            await self.fleet.run(lambda: len(self.routable()) == count)
        return self.routable()

    def routable(self) -> set[str]:
        """Child ids of those that are ready."""
        return {replica.child_id for replica in self.fleet.replicas if replica.routable}

    async def end(self) -> None:
        """Stop everything, then itself."""
        self.fleet.want([])
        async with asyncio.timeout(READY_SECONDS):
            await self.fleet.run(lambda: not self.fleet.replicas)
        await self.close()

    async def close(self) -> None:
        """Stop looking; children go on."""
        await self.fleet.close()
        await self.ask.close()
        await self.provider.close()


def little_servers(folder: Path, count: int, code: str = _ENGINE) -> Workload:
    """A workload of HTTP servers that answer /health."""

    def launch(slot: Slot) -> LaunchCommand:
        return LaunchCommand((sys.executable, "-c", code, str(slot.port)))

    return Workload(
        name="little",
        kind=REPLICA,
        count=count,
        provider="process",
        log_dir=folder / "logs",
        fingerprint="v1",
        launch=launch,
        health=HealthCheck("/health", lambda status: status == 200),
        drain_seconds=0.0,
    )


async def main(folder: Path, count: int) -> None:
    """Keep them until killed."""
    supervisor = Supervisor(folder, little_servers(folder, count))
    supervisor.fleet.want([supervisor.workload])
    await supervisor.fleet.adopt()
    print(*sorted(await supervisor.ready(count)), flush=True)
    await supervisor.fleet.run()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
