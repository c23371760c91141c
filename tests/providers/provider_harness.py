"""Harnesses for the provider suite: the fake machine, and real processes of this one."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from swell.adapters.providers import proc
from swell.adapters.providers.process import ProcessProvider
from swell.clock import ManualClock
from swell.errors import LaunchFailed, SpotRefused
from swell.ports.provider import ChildHandle, ChildSpec, Machine
from swell.testing.fake_provider import FakeMachine, FakeProvider

WAIT_SECONDS = 10.0
POLL_SECONDS = 0.01

_STEADY = "import signal; print('steady', flush=True); signal.pause()"
_STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('steady', flush=True)\nwhile True: signal.pause()"


class FakeHarness:
    """A fake machine whose faults make the children that are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.clock = ManualClock()
        self.machine = FakeMachine(self.clock)

    def provider(self) -> FakeProvider:
        return FakeProvider(self.machine)

    def steady(self) -> ChildSpec:
        child_id = secrets.token_hex(4)
        return ChildSpec(child_id, ("child",), self._folder / f"{child_id}.log")

    def stubborn(self) -> ChildSpec:
        self.machine.stubborn = True
        return self.steady()

    def failing(self) -> ChildSpec:
        self.machine.crash_at_start = 1
        return self.steady()

    def impossible(self) -> ChildSpec:
        self.machine.refuse_next.append(LaunchFailed("there is no such program"))
        return self.steady()

    def spot(self) -> tuple[ChildSpec, Machine]:
        self.machine.machine = Machine("spot", "us-east1-b", "L4")
        return self.steady(), self.machine.machine

    def unavailable(self) -> ChildSpec:
        self.machine.refuse_next.append(SpotRefused("none left", retry_after_seconds=5.0, zone="us-east1-b"))
        return self.steady()

    def give_notice(self, handle: ChildHandle) -> None:
        self.machine.give_notice(handle.child_id)

    def reclaim(self, handle: ChildHandle) -> None:
        self.machine.reclaim(handle.child_id)

    async def settled(self, handle: ChildHandle) -> None:
        return

    async def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def until(self, condition: Callable[[], bool]) -> None:
        assert condition()

    def crash(self, handle: ChildHandle) -> None:
        self.machine.crash(handle.child_id)

    def living(self) -> set[str]:
        return set(self.machine.living)


class LateHarness(FakeHarness):
    """A market that takes every order, and says later that no machine comes."""

    _refused = ""

    def unavailable(self) -> ChildSpec:
        child, _ = self.spot()
        self._refused = child.child_id
        return child

    async def until(self, condition: Callable[[], bool]) -> None:
        if self._refused in self.machine.living:
            self.machine.refuse(self._refused)
        assert condition()


class ProcessHarness:
    """Real children of this process, all killed with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[str] = []
        self._providers: list[ProcessProvider] = []

    def provider(self) -> ProcessProvider:
        provider = ProcessProvider()
        self._providers.append(provider)
        return provider

    def python(self, code: str, *arguments: str) -> ChildSpec:
        """A child that runs `code`."""
        child_id = f"test-{secrets.token_hex(8)}"
        self.ids.append(child_id)
        return ChildSpec(child_id, (sys.executable, "-c", code, *arguments), self.folder / "logs" / f"{child_id}.log")

    def steady(self) -> ChildSpec:
        return self.python(_STEADY)

    def stubborn(self) -> ChildSpec:
        return self.python(_STUBBORN)

    def failing(self) -> ChildSpec:
        return self.python("raise SystemExit(1)")

    def impossible(self) -> ChildSpec:
        child = self.steady()
        return ChildSpec(child.child_id, (str(self.folder / "absent"),), child.log_path)

    async def settled(self, handle: ChildHandle) -> None:
        await self.until(lambda: "steady\n" in handle.log_path.read_text())

    async def pass_seconds(self, seconds: float) -> None:
        return

    async def until(self, condition: Callable[[], bool]) -> None:
        """Polls: nothing else tells what another process did."""
        async with asyncio.timeout(WAIT_SECONDS):
            turn = asyncio.Event()
            while not condition():
                asyncio.get_running_loop().call_later(POLL_SECONDS, turn.set)
                await turn.wait()
                turn.clear()

    def crash(self, handle: ChildHandle) -> None:
        os.kill(handle.pid, signal.SIGKILL)

    def living(self) -> set[str]:
        return {child_id for child_id in self.ids if any(proc.find_marked(child_id))}

    async def close(self) -> None:
        """Leave nothing behind."""
        for child_id in self.ids:
            proc.kill_marked(child_id)
        for provider in self._providers:
            await provider.close()
