"""A provider without processes, with fault injection: what tests and the simulator run a fleet on.

`FakeMachine` is what survives a server (the operating system, so to speak), `FakeProvider` what one server knows of it.
Time is the injected clock's; nothing here waits.
"""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swell.clock import Clock
from swell.errors import SwellError
from swell.ports.engine import Address
from swell.ports.provider import (
    OWN_MACHINE,
    Binding,
    ChildHandle,
    ChildSpec,
    ChildStatus,
    Expected,
    Loss,
    Machine,
    Preparation,
    Presence,
)

SIGKILL_CODE = -9
SIGTERM_CODE = -15
MAX_REMEMBERED = 10_000  # starts


@dataclass
class FakeProcess:
    """A child as the machine sees it. `stubborn` ones do not end when asked to."""

    spec: ChildSpec
    handle: ChildHandle
    stubborn: bool = False
    kill_at: float | None = None
    machine: Machine = OWN_MACHINE
    has_notice: bool = False


class FakeMachine:
    """Runs make-believe children, and goes wrong on demand.

    `refuse_next`: errors that the next starts raise, first one first. `crash_at_start`: that many of the next starts
    end at once with exit code 1. `stubborn`: children started from now on ignore SIGTERM. `machine` is what they
    run on. `preparations` go only when a test takes them away.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.living: dict[str, FakeProcess] = {}
        self.started: deque[ChildSpec] = deque(maxlen=MAX_REMEMBERED)
        self.starts: Counter[str] = Counter()  # by child id: one that is over 1 is a double start
        self.exit_codes: dict[str, int] = {}
        self.logs: dict[Path, str] = {}
        self.refuse_next: deque[SwellError] = deque()
        self.crash_at_start = 0
        self.stubborn = False
        self.binding = Binding()
        self.addresses: dict[str, Address] = {}  # by child id, of those that were given one
        self.waiting: dict[str, str] = {}  # by child id, what it waits for
        self.machine = OWN_MACHINE
        self.ended: dict[str, tuple[Machine, Loss | None]] = {}
        self.ready: dict[str, bool] = {}  # by child id, of those whose place asks their health path itself
        self.adoptions_over = 0
        self.expected: tuple[Expected, ...] = ()  # as last told
        self.preparations: tuple[Preparation, ...] = ()  # what is said to be prepared
        self._pids = 0

    def crash(self, child_id: str, exit_code: int = SIGKILL_CODE) -> None:
        """End a child, as a fault of its own would. Raises KeyError where it does not run."""
        self._end(child_id, exit_code, None)

    def give_notice(self, child_id: str) -> None:
        """Say that a child's machine will be taken. Raises KeyError where it does not run."""
        self.living[child_id].has_notice = True

    def reclaim(self, child_id: str) -> None:
        """Take a child's machine away, with notice or without. Raises KeyError where it does not run."""
        self._end(child_id, SIGKILL_CODE, Loss.RECLAIMED)

    def refuse(self, child_id: str) -> None:
        """No machine comes for a child that was taken on. Raises KeyError where it does not run."""
        self._end(child_id, None, Loss.REFUSED)

    def _end(self, child_id: str, exit_code: int | None, loss: Loss | None) -> None:
        process = self.living.pop(child_id)
        self.ended[child_id] = process.machine, loss
        if exit_code is not None:
            self.exit_codes[child_id] = exit_code

    def spawn(self, child: ChildSpec) -> ChildHandle:
        """Start a child, or do what fault injection says."""
        if self.refuse_next:
            raise self.refuse_next.popleft()
        self._pids += 1
        self.starts[child.child_id] += 1
        self.started.append(child)
        handle = ChildHandle(child.child_id, child.log_path, self._pids, self.clock.monotonic())
        self.living[child.child_id] = FakeProcess(child, handle, self.stubborn, machine=self.machine)
        self.logs[child.log_path] = f"{child.child_id} began"
        if self.crash_at_start > 0:
            self.crash_at_start -= 1
            self.crash(child.child_id, exit_code=1)
        return handle

    def settle(self) -> None:
        """Kill what was asked to end and has had its grace."""
        now = self.clock.monotonic()
        due = [child_id for child_id, process in self.living.items() if _is_due(process, now)]
        for child_id in due:
            self.crash(child_id, SIGKILL_CODE)


def _is_due(process: FakeProcess, now: float) -> bool:
    return process.kill_at is not None and now >= process.kill_at


class FakeProvider:
    """One server's view of a FakeMachine. `before_call` is told every call's name and may raise, as a kill would."""

    def __init__(self, machine: FakeMachine, before_call: Callable[[str], None] = lambda _: None) -> None:
        self._machine = machine
        self._before_call = before_call
        self._known: set[str] = set()

    @property
    def binding(self) -> Binding:
        return self._machine.binding

    async def start(self, child: ChildSpec) -> ChildHandle:
        self._before_call("start")
        self._machine.settle()
        process = self._machine.living.get(child.child_id)
        if process is not None and child.child_id in self._known:
            return process.handle
        handle = self._machine.spawn(child)
        self._known.add(child.child_id)
        self._before_call("started")
        return handle

    async def adopt(self, child_id: str, log_path: Path, known: ChildHandle | None) -> ChildHandle | None:
        self._before_call("adopt")
        self._machine.settle()
        process = self._machine.living.get(child_id)
        if process is None:
            return None
        self._known.add(child_id)
        return process.handle

    def status(self, handle: ChildHandle) -> ChildStatus:
        self._machine.settle()
        if handle.child_id not in self._known:
            return ChildStatus(Presence.GONE)
        child_id, machine = handle.child_id, self._machine
        process = machine.living.get(child_id)
        if process is not None:
            return ChildStatus(
                Presence.RUNNING,
                address=machine.addresses.get(child_id),
                waiting=machine.waiting.get(child_id, ""),
                ready=machine.ready.get(child_id),
                machine=process.machine,
                loss=Loss.NOTICE if process.has_notice else None,
            )
        lost_machine, loss = machine.ended.get(child_id, (OWN_MACHINE, None))
        return ChildStatus(Presence.GONE, machine.exit_codes.get(child_id), machine=lost_machine, loss=loss)

    async def stop(self, handle: ChildHandle, *, grace_seconds: float) -> None:
        self._before_call("stop")
        process = self._machine.living.get(handle.child_id)
        if process is None or handle.child_id not in self._known:
            return
        if not process.stubborn and grace_seconds > 0:
            self._machine.crash(handle.child_id, SIGTERM_CODE)
            return
        kill_at = self._machine.clock.monotonic() + max(0.0, grace_seconds)
        process.kill_at = kill_at if process.kill_at is None else min(process.kill_at, kill_at)
        self._machine.settle()

    async def end_orphans(self) -> None:
        self._before_call("end_orphans")
        self._machine.adoptions_over += 1

    def expect(self, expected: Sequence[Expected]) -> None:
        self._machine.expected = tuple(expected)

    def preparations(self) -> Sequence[Preparation]:
        return self._machine.preparations

    async def log_tail(self, log_path: Path) -> str:
        return self._machine.logs.get(log_path, "")

    async def rotate_log(self, log_path: Path, *, max_bytes: int, files: int) -> None:
        if len(self._machine.logs.get(log_path, "")) > max_bytes:
            self._machine.logs[log_path] = ""

    async def forget(self, handle: ChildHandle) -> None:
        self._known.discard(handle.child_id)
