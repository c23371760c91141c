"""Many slow streams held open, a process of its own: `python -m benchmarks.gateway.slow_load '{"port": 8080, …}'`.

Opens streams at a steady pace, prints `ready` once each has had its first chunk, waits for a line on
its input, and prints its results as JSON when the last stream has ended.
"""

import asyncio
import collections
import json
import sys
import time
from dataclasses import dataclass
from typing import Any, cast

import uvloop

from benchmarks.gateway.load import percentiles
from benchmarks.gateway.processes import raise_open_files
from benchmarks.gateway.work import STREAMED_WORD, Work, request_bytes

STREAMS_PER_ADDRESS = 20_000  # a loopback address has fewer than 28,000 ports to give
FIRST_CHUNK_SECONDS = 60.0
PATIENCE_SECONDS = 60.0  # beyond the time that the last stream should take


@dataclass(frozen=True)
class SlowPlan:
    """Streams, their pace, and how fast they are opened."""

    port: int
    host: str = "127.0.0.1"
    key: str = "none"
    streams: int = 5000
    interval_seconds: float = 1.0
    chunks: int = 30
    opened_per_second: int = 500


class _Stream(asyncio.Protocol):
    def __init__(self, run: "_Run") -> None:
        self.run = run
        self.received = 0
        self.last_at = 0.0
        self.tail = b""
        self.over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        words = data.count(STREAMED_WORD)
        if words:
            if self.received:
                self.run.lateness.append(now - self.last_at - self.run.plan.interval_seconds)
            else:
                self.run.opened()
            self.received += words
            self.last_at = now
        elif not self.received and not self.tail and not data.startswith(b"HTTP/1.1 200 "):
            self.end(f"status {data[9:12].decode('latin-1')}")
            return
        self.tail = (self.tail + data)[-7:]
        if self.tail == b"\r\n0\r\n\r\n":
            self.end("" if self.received == self.run.plan.chunks else "chunks missing")

    def connection_lost(self, exc: Exception | None) -> None:
        self.end("connection lost")

    def end(self, error: str) -> None:
        if not self.over:
            self.over = True
            self.transport.abort()
            self.run.ended(error)


class _Run:
    def __init__(self, plan: SlowPlan) -> None:
        self.plan = plan
        work = Work("slow", stream=True, chunks=plan.chunks)
        script = json.dumps({"chunks": plan.chunks, "delay_ms": plan.interval_seconds * 1000})
        self.request = request_bytes(work, plan.host, plan.port, plan.key, script)
        self.lateness: list[float] = []
        self.errors: collections.Counter[str] = collections.Counter()
        self.completed = 0
        self._first = self._ended = 0
        self.all_open = asyncio.Event()
        self.all_ended = asyncio.Event()

    async def open_all(self) -> None:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        for number in range(self.plan.streams):
            address = (f"127.0.0.{1 + number // STREAMS_PER_ADDRESS}", 0)
            try:
                await loop.create_connection(lambda: _Stream(self), self.plan.host, self.plan.port, local_addr=address)
            except OSError:
                self.opened()
                self.ended("cannot connect")
            ahead = (number + 1) / self.plan.opened_per_second - (time.monotonic() - started)
            if ahead > 0:
                await asyncio.sleep(ahead)
        await asyncio.wait_for(self.all_open.wait(), FIRST_CHUNK_SECONDS)

    def opened(self) -> None:
        self._first += 1
        if self._first == self.plan.streams:
            self.all_open.set()

    def ended(self, error: str) -> None:
        self._ended += 1
        if error:
            self.errors[error] += 1
        else:
            self.completed += 1
        if self._ended == self.plan.streams:
            self.all_ended.set()
            self.all_open.set()

    def document(self) -> dict[str, Any]:
        return {
            "completed": self.completed,
            "errors": dict(self.errors),
            "lateness_ms": percentiles(self.lateness),
        }


async def _main(plan: SlowPlan) -> None:
    raise_open_files()
    run = _Run(plan)
    await run.open_all()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        await asyncio.wait_for(run.all_ended.wait(), plan.chunks * plan.interval_seconds + PATIENCE_SECONDS)
    except TimeoutError:
        run.errors["did not end in time"] += plan.streams - run.completed - sum(run.errors.values())
    print(json.dumps(run.document()), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(SlowPlan(**json.loads(sys.argv[1]))))
