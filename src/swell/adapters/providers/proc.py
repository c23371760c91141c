"""Reading Linux's /proc: who a process is, and which processes carry a marker."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from swell.ports.provider import MARKER

_PROC = Path("/proc")
_ENDED_STATES = "ZX"  # a zombie holds nothing but its exit code
_SESSION, _START_TIME = 3, 19  # fields 6 and 22 of stat(5), counted from the state, which is field 3
MAX_KILL_ROUNDS = 50
KILL_ROUND_MS = 100


@dataclass(frozen=True)
class Identity:
    """What tells one process from every other, past and present, until the machine restarts."""

    pid: int
    session: int
    start_time: float  # clock ticks since the machine started


def identity_of(pid: int) -> Identity | None:
    """Who `pid` is; None if there is no such living process."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(b")") + 2 :].decode("ascii").split()  # the name before it may hold anything
    if fields[0] in _ENDED_STATES:
        return None
    return Identity(pid, int(fields[_SESSION]), float(fields[_START_TIME]))


def carries(pid: int, child_id: str) -> bool:
    """Whether the process was started with this marker. What cannot be read is somebody else's."""
    try:
        environ = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return False
    return f"{MARKER}={child_id}".encode() in environ.split(b"\0")


def find_marked(child_id: str) -> Iterator[Identity]:
    """All living processes that carry the marker, in no order."""
    for name in os.listdir(_PROC):  # noqa: PTH208  a thousand Path objects for their names alone
        if name.isdigit() and carries(int(name), child_id):
            identity = identity_of(int(name))
            if identity is not None:
                yield identity


def kill_marked(child_id: str) -> bool:
    """Kill every process that carries the marker and wait until none is left; whether that came true in time."""
    for _ in range(MAX_KILL_ROUNDS):
        found = False
        for identity in find_marked(child_id):
            found = True
            with suppress(ProcessLookupError, PermissionError):
                _kill_and_wait(identity)
        if not found:
            return True
    return False


def _kill_and_wait(identity: Identity) -> None:
    descriptor = os.pidfd_open(identity.pid)
    try:
        if identity_of(identity.pid) == identity:  # the pid may be another's by now
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            ended.poll(KILL_ROUND_MS)
    finally:
        os.close(descriptor)
