"""The load generator, a process of its own: `python -m benchmarks.gateway.load '{"port": 8080, …}'`.

It connects, warms up, prints `ready`, waits for a line on its input, runs, and prints its results as
JSON. Between `ready` and the results the caller can read the contender's CPU time.

Closed loop: each connection sends its next request when the last one is answered. Open loop: requests
leave at the times of a seeded Poisson process, whether or not earlier ones are answered.
"""

import asyncio
import collections
import json
import ssl
import sys
import time
from dataclasses import dataclass, field
from math import nan
from typing import Any, cast

import uvloop

from benchmarks.gateway.answers import AnswerReader, BadAnswerError
from benchmarks.gateway.arrivals import Arrivals
from benchmarks.gateway.work import WORKS, request_bytes

ANSWER_TIMEOUT_SECONDS = 30.0
LATENCIES_KEPT = 2_000_000


_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


def percentiles(seconds: list[float]) -> dict[str, float]:
    """By name, in milliseconds; not a number where nothing was measured."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {name: ordered[round(part * last)] * 1e3 if ordered else nan for name, part in _PERCENTILES.items()}


@dataclass(frozen=True)
class Plan:
    """What to run. `requests` 0 means as many as fit into `seconds`; `rate` 0 means closed loop."""

    port: int
    work: str = "json"
    host: str = "127.0.0.1"
    key: str = "none"
    tls: bool = False
    script: str = ""
    connections: int = 32
    warm_seconds: float = 1.0
    seconds: float = 4.0
    requests: int = 0
    rate: float = 0.0  # requests per second
    seed: int = 1


@dataclass
class Results:
    """What happened between the start and the end of the run."""

    completed: int = 0
    seconds: float = 0.0
    load_cpu_seconds: float = 0.0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        return {
            "completed": self.completed,
            "seconds": self.seconds,
            "load_cpu_seconds": self.load_cpu_seconds,
            "errors": dict(self.errors),
            "latency_ms": percentiles(self.latencies),
        }


class _Client(asyncio.Protocol):
    """One keep-alive connection with at most one request on it."""

    def __init__(self, run: "_Run") -> None:
        self.run = run
        self.reader = AnswerReader(run.work)
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it

    def send(self, due_at: float) -> None:
        """Send a request whose latency counts from `due_at`."""
        self.sent_at = due_at
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        try:
            complete = self.reader.feed(data)
        except BadAnswerError as error:
            self.run.failed(self, str(error))
            return
        if complete:
            now = time.perf_counter()
            self.run.answered(self, now - self.sent_at)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.sent_at:
            self.run.failed(self, "connection lost")


class _Run:
    """All connections and the counts of one phase."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.work = WORKS[plan.work]
        self.request = request_bytes(self.work, plan.host, plan.port, plan.key, plan.script)
        self.results = Results()
        self.clients: list[_Client] = []
        self.idle: list[_Client] = []
        self.backlog: collections.deque[float] = collections.deque()  # open loop: arrivals without a free connection
        self.open = False
        self.running = False
        self.quota = 0  # requests that may still start; below 0 for no quota
        self.in_flight = 0
        self.finished = asyncio.Event()
        self.replacing: set[asyncio.Task[None]] = set()

    async def connect(self, count: int) -> None:
        context = None
        if self.plan.tls:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE  # a benchmark's own certificate on loopback
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        loop = asyncio.get_running_loop()
        for _ in range(count):
            _, client = await loop.create_connection(lambda: _Client(self), self.plan.host, self.plan.port, ssl=context)
            self.clients.append(client)
            self.idle.append(client)

    async def closed_loop(self, seconds: float, requests: int) -> Results:
        """Every connection busy until time or quota is over, then the last answers are awaited."""
        self._begin(requests or -1, is_open=False)
        for client in list(self.idle):
            self.idle.remove(client)
            self._start(client)
        timer = asyncio.get_running_loop().call_later(seconds, self._stop) if not requests else None
        await self._end(seconds)
        if timer is not None:
            timer.cancel()
        return self._result()

    async def open_loop(self, seconds: float, rate: float, seed: int) -> Results:
        """Arrivals at `rate` for `seconds`."""
        self._begin(-1, is_open=True)
        arrivals = Arrivals(rate, seconds, seed, self._arrive, self._stop)
        arrivals.start()
        await self._end(seconds)
        arrivals.close()
        return self._result()

    def answered(self, client: _Client, latency: float) -> None:
        results = self.results
        results.completed += 1
        if len(results.latencies) < LATENCIES_KEPT:
            results.latencies.append(latency)
        client.sent_at = 0.0
        self._free(client)

    def failed(self, client: _Client, reason: str) -> None:
        """Count it and go on with a fresh connection."""
        self.results.errors[reason] += 1
        client.sent_at = 0.0
        client.transport.abort()
        self.clients.remove(client)
        task = asyncio.get_running_loop().create_task(self._replace())
        self.replacing.add(task)
        task.add_done_callback(self.replacing.discard)

    async def _replace(self) -> None:
        try:
            await self.connect(1)
        except OSError:
            self.results.errors["cannot connect"] += 1
            self._left()
            return
        self._free(self.idle.pop())

    def _begin(self, quota: int, *, is_open: bool) -> None:
        self.results = Results()
        self.open = is_open
        self.finished.clear()
        self.running, self.quota = True, quota
        self.started, self.cpu_started = time.perf_counter(), time.process_time()

    def _start(self, client: _Client) -> None:
        if not self.running or self.quota == 0:
            self.idle.append(client)
            self._maybe_finished()
            return
        self.quota -= 1
        self.in_flight += 1
        client.send(time.perf_counter())

    def _free(self, client: _Client) -> None:
        """A connection is free again: give it what waits, or the next of a closed loop."""
        self.in_flight -= 1
        if not self.open:
            self._start(client)
        elif self.backlog:
            self.in_flight += 1
            client.send(self.backlog.popleft())
        else:
            self.idle.append(client)
            self._maybe_finished()

    def _arrive(self) -> None:
        now = time.perf_counter()
        if self.idle:
            self.in_flight += 1
            self.idle.pop().send(now)
        else:
            self.backlog.append(now)

    def _left(self) -> None:
        self.in_flight -= 1
        self._maybe_finished()

    def _stop(self) -> None:
        self.running = False
        self._maybe_finished()

    def _maybe_finished(self) -> None:
        if self.in_flight == 0 and not self.backlog and (not self.running or self.quota == 0):
            self.finished.set()

    async def _end(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.finished.wait(), None if self.quota > 0 else seconds + ANSWER_TIMEOUT_SECONDS)
        except TimeoutError:
            self.results.errors["no answer in time"] += self.in_flight + len(self.backlog)
            self.in_flight = 0
            self.backlog.clear()
        self.running = False

    def _result(self) -> Results:
        self.results.seconds = time.perf_counter() - self.started
        self.results.load_cpu_seconds = time.process_time() - self.cpu_started
        return self.results


async def _main(plan: Plan) -> None:
    run = _Run(plan)
    await run.connect(plan.connections)
    if plan.warm_seconds:
        warm = await run.closed_loop(plan.warm_seconds, 0)
        if not warm.completed:
            raise SystemExit(f"nothing was answered while warming up: {dict(warm.errors)}")
    print("ready", flush=True)
    sys.stdin.readline()
    if plan.rate:
        results = await run.open_loop(plan.seconds, plan.rate, plan.seed)
    else:
        results = await run.closed_loop(plan.seconds, plan.requests)
    print(json.dumps(results.document()), flush=True)
    for client in run.clients:
        client.sent_at = 0.0
        client.transport.abort()


if __name__ == "__main__":
    uvloop.run(_main(Plan(**json.loads(sys.argv[1]))))
