"""Independent pieces of work at the same time, each in a process of its own.

A replay keeps one core busy. Processes are forked, so that a trace is not copied to them; each hands back its progress
and its value through a pipe, and one that dies is reported and not waited for. What comes back is in the order of what
was given, whatever the number of jobs.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, TypeVar

from swell.errors import SwellError

T = TypeVar("T")
Progress = Callable[[float], None]  # told how much of the work is done, 0 to 1

_LOOK_SECONDS = 0.5
_PROGRESS_STEP = 0.002  # a message per tick would cost more than the tick


class WorkerLostError(SwellError):
    """A process ended without a value, such as when the machine ran out of memory."""


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_all(tasks: Sequence[Callable[[Progress], T]], jobs: int, progress: Progress | None = None) -> list[T]:
    """What each task returns, in order; at most `jobs` run at a time. An error in one ends all and is raised.

    With one job, or one task, everything happens in this process.
    """
    report = _Shares(len(tasks), progress)
    if jobs <= 1 or len(tasks) <= 1:
        return [_reported(task, partial(report, index)) for index, task in enumerate(tasks)]
    values: dict[int, T] = {}
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    waiting = list(range(len(tasks)))
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.pop(0)
                running.update([_started(index, tasks[index])])
            ready_pipes = wait(list(running), timeout=_LOOK_SECONDS)
            for ready in [pipe for pipe in running if pipe in ready_pipes]:
                index, process = running[ready]
                kind, value = _received(ready)
                if kind == "progress":
                    report(index, value)
                    continue
                del running[ready]
                process.join()
                if kind == "error":
                    raise value
                values[index] = value
                report(index, 1.0)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()
    return [values[index] for index in range(len(tasks))]


def _reported(task: Callable[[Progress], T], report: Progress) -> T:
    value = task(report)
    report(1.0)
    return value


class _Shares:
    """The whole's progress from its parts'; never goes back."""

    def __init__(self, count: int, progress: Progress | None) -> None:
        self._done = [0.0] * count
        self._progress = progress

    def __call__(self, index: int, done: float) -> None:
        self._done[index] = max(self._done[index], min(1.0, done))
        if self._progress is not None:
            self._progress(sum(self._done) / len(self._done))


def _started(index: int, task: Callable[[Progress], Any]) -> tuple[Connection, tuple[int, ForkProcess]]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of the pipe
    return ours, (index, process)


def _received(pipe: Connection) -> tuple[str, Any]:
    try:
        kind, value = pipe.recv()
    except EOFError:
        return "error", WorkerLostError("a replay's process was killed, as happens without memory; try fewer --jobs")
    return kind, value


def _work(task: Callable[[Progress], Any], pipe: Connection) -> None:
    """In the child. Where the parent is gone, nobody wants the value."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and ends us
    told = 0.0

    def report(done: float) -> None:
        nonlocal told
        if done >= told + _PROGRESS_STEP:
            told = done
            pipe.send(("progress", done))

    try:
        try:
            outcome = ("value", task(report))
        except BrokenPipeError:
            raise
        except Exception as error:
            outcome = ("error", error)
        pipe.send(outcome)
    except BrokenPipeError:
        os._exit(1)
