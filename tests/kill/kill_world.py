"""One `swell up` before scripted upstreams, under seeded load, killed at seeded points, and brought to account."""

import asyncio
import http.client
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kill_asks import DEFAULT_MAX_TOKENS, End, Outcome
from kill_ledger import Tally, compare, read_journals
from kill_load import Load, Meter
from kill_upstreams import JournalWatch, UpstreamProcess, pidfd_kill

from swell.ports.store import MAX_LISTED
from swell.state.usage import LOCK_NAME
from swell_process import SwellProcess, wait_until

StartSwell = Callable[..., SwellProcess]  # the fixture `swell_up`

SEED = int(os.environ.get("SWELL_KILL_SEED", "20250611"))
POINT_SECONDS = 60.0
RECOVERY_SECONDS = 40.0
CLIENTS = 12
# What a kill point is counted in, and how far ahead it may lie: a tenth of a second to a second of this load.
_MEASURES = {"sent": (5, 80), "bytes": (2_000, 150_000), "journal": (1_000, 20_000)}
_SPEC = """
models:
  - name: m
    engine: external
    endpoints: [{urls}]
    max_tokens: {{default: {tokens}, max: 200}}
    max_in_flight: 8  # fewer than there are clients: some wait in a queue, reserved and not sent
server:
  timeouts: {{first_byte_seconds: {patience_seconds}, idle_seconds: {patience_seconds}}}
"""


def spec(upstreams: Sequence[UpstreamProcess], *, patience_seconds: float = 20.0) -> str:
    """A swell.yaml that routes model `m` to the upstreams, each of which may be silent for so long."""
    urls = ", ".join(f'"{upstream.url}"' for upstream in upstreams)
    return _SPEC.format(urls=urls, tokens=DEFAULT_MAX_TOKENS, patience_seconds=patience_seconds)


class _Admin(http.client.HTTPConnection):
    """The admin socket. A server that is killed meanwhile is as good as none."""

    def __init__(self, state: Path) -> None:
        super().__init__("swell", timeout=10)
        self._path = str(state / "admin.sock")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask_server(server: SwellProcess, method: str, path: str) -> Any:
    """What the server's admin API answers; None where it does not."""
    connection = _Admin(server.state)
    try:
        connection.request(method, path)
        return json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def status_of(server: SwellProcess) -> dict[str, Any] | None:
    """What the server says of itself; None where it does not answer."""
    found: dict[str, Any] | None = ask_server(server, "GET", "/api/status")
    return found


def serving_workers(server: SwellProcess) -> dict[str, int]:
    """Pid by incarnation of the workers that are connected to a living server."""
    found = status_of(server) or {"workers": []}
    return {worker["incarnation"]: worker["pid"] for worker in found["workers"] if worker["state"] == "serving"}


def worker_pids(server: SwellProcess) -> set[int]:
    """Every gateway worker that lives."""
    return {process.pid for process in server.workers()}


class World:
    """Use it as `async with`; the load begins with it. `dice` is what all choices of the test come from."""

    def __init__(
        self,
        swell_up: StartSwell,
        folder: Path,
        seed: int,
        *,
        workers: int = 2,
        upstreams: int = 1,
        patience_seconds: float = 20.0,
    ) -> None:
        self.dice = random.Random(seed)
        self.meter = Meter()
        self.points: list[str] = []
        self._killed: set[int] = set()
        self.upstreams = self.make_upstreams(folder, upstreams)
        for upstream in self.upstreams:
            upstream.start()
        for upstream in self.upstreams:
            upstream.wait_ready()
        self._workers = workers
        self._seed = seed
        self.server = self.start_server(swell_up, self.upstreams, patience_seconds)
        limits = ("--rpm", "1000000", "--tpm", "1000000000", "--concurrent", "1000")
        self.limited_key: str = self.server.command("keys", "create", "limited", *limits)["key"]
        print(f"seed {seed} (SWELL_KILL_SEED={SEED})")

    def make_upstreams(self, folder: Path, count: int) -> list[UpstreamProcess]:
        """What answers, not started yet."""
        return [UpstreamProcess(folder, f"upstream-{number}") for number in range(count)]

    def start_server(self, swell_up: StartSwell, upstreams: Sequence[UpstreamProcess], patience: float) -> SwellProcess:
        """The server with its workers."""
        return swell_up(spec(upstreams, patience_seconds=patience), workers=self._workers)

    async def __aenter__(self) -> "World":
        await self.until_serving()
        self._watch = JournalWatch(self.upstreams, lambda grown: self.meter.add("journal", grown))
        keys = (self.server.key, self.server.key, self.limited_key)
        self.load = Load(self.server.port, keys, self._seed, CLIENTS, self.meter)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.load.stop()
        self._watch.close()
        for upstream in self.upstreams:
            upstream.end()

    @property
    def outcomes(self) -> list[Outcome]:
        return self.load.outcomes

    def ends(self, key: str | None = None) -> dict[End, int]:
        """How often asks ended how, for all keys or one."""
        of_key = [outcome.end for outcome in self.outcomes if key in (None, outcome.ask.key)]
        return {end: of_key.count(end) for end in End if end in of_key}

    def refusals(self, key: str | None = None) -> Counter[tuple[int, str]]:
        """Status and code of the asks that were refused, for all keys or one."""
        refused = (outcome for outcome in self.outcomes if outcome.end is End.REFUSED)
        return Counter((outcome.status, outcome.code) for outcome in refused if key in (None, outcome.ask.key))

    async def point(self, what: str, action: Callable[[], None]) -> None:
        """Do `action` at a point that the dice choose, and note it."""
        measure = self.dice.choice(sorted(_MEASURES))
        more = self.dice.randint(*_MEASURES[measure])
        self.points.append(f"{what}, {more} more {measure} seen")
        print(f"point {len(self.points)}: {self.points[-1]}")
        async with asyncio.timeout(POINT_SECONDS):
            await self.meter.reach(measure, more, action)

    async def served(self, more: int) -> None:
        """Wait until so many more asks were answered in full."""
        async with asyncio.timeout(POINT_SECONDS):
            await self.meter.reach(End.COMPLETE, more)

    async def kill_worker(self) -> int:
        """Kill one of the living workers at a chosen point; its pid."""
        living = await self.eventually(lambda: sorted(worker_pids(self.server) - self._killed), "a worker lives")
        victim: int = self.dice.choice(living)
        await self.point("worker killed", pidfd_kill(victim))
        self._killed.add(victim)
        return victim

    async def kill_server(self) -> None:
        """Kill the server at a chosen point."""
        await self.point("server killed", pidfd_kill(self.server.pid))
        self.server.kill()

    async def restart_server(self) -> None:
        """Start it again and wait until all workers are connected to it."""
        self.server.start()
        await self.until_serving()

    async def kill_upstream(self) -> None:
        """Kill one upstream at a chosen point, start it again at another; the others live."""
        victim = self.dice.choice(self.upstreams)
        await self.point(f"{victim.name} killed", victim.kill)
        await self.point(f"{victim.name} started again", victim.start)
        await asyncio.to_thread(victim.wait_ready)

    async def until_serving(self) -> dict[str, int]:
        """Wait until every worker is connected to the server; their pids by incarnation."""
        found: dict[str, int] = await self.eventually(
            lambda: len(workers := serving_workers(self.server)) == self._workers and workers, "all workers serve"
        )
        return found

    async def eventually(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll off the loop, so that the load goes on."""
        try:
            return await asyncio.to_thread(wait_until, condition, seconds=RECOVERY_SECONDS, what=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.server.output}\n{self.server.logs()}") from None

    async def account(self) -> Tally:
        """Stop the load and everything else; hold the ledger, before and after, to journals and clients."""
        await self.stop_load()
        await self.eventually(self.is_quiet, "nothing is in flight and the spools of the dead are gone")
        rows = await asyncio.to_thread(self.server.command, "usage")
        assert len(rows) < MAX_LISTED, "more requests than one listing holds: make the run shorter"
        tally = compare(rows, read_journals(upstream.journal() for upstream in self.upstreams), self.outcomes)
        print(f"{len(self.points)} points, {len(self.outcomes)} asks {self.ends()}, ledger {tally}")
        print(f"refused: {self.refusals()}")
        assert not tally.problems, "\n".join(tally.problems[:10])
        assert not list((self.server.state / "spool").glob("*.damaged"))
        await self.end_gateways()
        assert self.server.stop() == 0
        assert self.server.children() == []
        assert list((self.server.state / "spool").iterdir()) == []
        assert list((self.server.state / "workers").iterdir()) == []
        assert await asyncio.to_thread(self.server.command, "usage") == rows
        return tally

    async def stop_load(self) -> None:
        """Let every client finish what it asked."""
        await self.load.stop()

    async def end_gateways(self) -> None:
        """There are none elsewhere."""

    def is_quiet(self) -> bool:
        """Nothing is in flight, and every spool that is left is of a worker that lives."""
        status = status_of(self.server)
        if status is None or any(worker["in_flight"] or worker["queued"] for worker in status["workers"]):
            return False
        if any((upstream.stats() or {"in_flight": 1})["in_flight"] for upstream in self.upstreams):
            return False
        living = {worker["incarnation"] for worker in status["workers"]}
        spools = {path.name for path in (self.server.state / "spool").iterdir() if (path / LOCK_NAME).exists()}
        return len(living) == self._workers and spools == living == serving_workers(self.server).keys()
