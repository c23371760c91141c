"""A fleet in a world of make-believe: machine, store and health answers that survive a killed server."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from swell.clock import ManualClock
from swell.control.fleet import Fleet, FleetTimes
from swell.control.probe import Answer
from swell.control.replica import Replica
from swell.control.workload import REPLICA, HealthCheck, Slot, Workload
from swell.errors import AlreadyGone, AtCapacity, SwellError
from swell.ports.engine import LaunchCommand
from swell.state.records import ProcessRecord, StartedProcess
from swell.state.replica import Phase
from swell.testing.fake_provider import FakeMachine, FakeProvider

STEP_SECONDS = 0.25


class ServerKilledError(BaseException):
    """The server is gone in the middle of something: nothing catches this."""


@dataclass
class FakeIntents:
    """The store's processes, in memory, with faults."""

    records: dict[str, ProcessRecord] = field(default_factory=dict)
    before_call: Callable[[str], None] = lambda _: None
    failing: SwellError | None = None

    def _check(self, name: str) -> None:
        self.before_call(name)
        if self.failing is not None:
            raise self.failing

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        self._check("record_processes")
        self.records |= {process.process_id: process for process in processes}
        self.before_call("recorded")

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        self._check("record_started")
        for each in started:
            if each.process_id not in self.records:
                raise AlreadyGone(each.process_id)
        for each in started:
            intent = self.records[each.process_id]
            self.records[each.process_id] = replace(intent, pid=each.pid, start_time=each.start_time)

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        self._check("remove_processes")
        for process_id in process_ids:
            self.records.pop(process_id, None)

    async def list_processes(self) -> list[ProcessRecord]:
        self._check("list_processes")
        return list(self.records.values())


class World:
    """One machine, one store, and a server that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.machine = FakeMachine(self.clock)
        self.intents = FakeIntents()
        self.health: dict[str, int | None] = {}  # by child id; otherwise 200
        self.calls = 0
        self.kill_at_call: int | None = None
        self.changes = 0
        self.is_away = False  # the machine cannot be asked what runs there
        self.fleet = self._new_fleet()

    def _before_call(self, call: str) -> None:
        if self.is_away and call in ("adopt", "end_orphans"):
            raise AtCapacity("nobody answers", retry_after_seconds=2.0)
        self.calls += 1
        if self.kill_at_call is not None and self.calls >= self.kill_at_call:
            self.kill_at_call = None
            raise ServerKilledError

    async def _ask(self, url: str, key: str) -> Answer:
        for replica in self.fleet.replicas:
            if replica.address is not None and replica.address.url("/health") == url:
                if replica.provider == "process" and replica.child_id not in self.machine.living:
                    return Answer(None, "refused")
                status = self.health.get(replica.child_id, 200)
                return Answer(status, "" if status else "timed out")
        return Answer(None, "nobody listens")

    def _new_fleet(self) -> Fleet:
        provider = FakeProvider(self.machine, self._before_call)
        self.intents.before_call = self._before_call
        return Fleet(
            providers={"process": provider, "external": FakeProvider(FakeMachine(self.clock))},
            intents=self.intents,
            ask=self._ask,
            clock=self.clock,
            times=FleetTimes(),
            on_change=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def restart(self, *workloads: Workload) -> None:
        """What a restarted server does; the one before is simply gone."""
        await self.fleet.close()
        self.fleet = self._new_fleet()
        self.fleet.want(workloads)
        await self.fleet.adopt(())

    async def steps(self, count: int = 1, seconds: float = STEP_SECONDS) -> None:
        for _ in range(count):
            self.clock.advance(seconds)
            await self.fleet.step(self.clock.monotonic())
            if self.fleet.awaited:
                await asyncio.sleep(0)  # whoever asks again runs beside

    def workload(self, name: str = "chat", count: int = 1, fingerprint: str = "v1", **changes: object) -> Workload:
        def launch(slot: Slot) -> LaunchCommand:
            return LaunchCommand(("engine", str(slot.port), fingerprint), {"KEY": slot.key})

        settings: dict[str, object] = {
            "name": name,
            "kind": REPLICA,
            "count": count,
            "provider": "process",
            "log_dir": self.folder,
            "fingerprint": fingerprint,
            "launch": launch,
            "health": HealthCheck("/health", lambda status: status == 200),
            **changes,
        }
        return Workload(**settings)  # type: ignore[arg-type]

    def only(self) -> Replica:
        (replica,) = self.fleet.replicas
        return replica

    def phases(self) -> list[Phase]:
        return [replica.phase for replica in self.fleet.replicas]

    def ready(self) -> set[str]:
        return {replica.child_id for replica in self.fleet.replicas if replica.routable}
