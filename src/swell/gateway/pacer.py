"""Pacing of bursts: under load, events that follow one another faster than anybody reads are fetched together.

A read and a write cost some twenty microseconds, however few bytes they move. A replica that sends many events in a
burst (several tokens a step, text from a cache) would cost that for each. So while the worker is busy, a stream whose
last read is younger than BURST_SECONDS rests for PAUSE_SECONDS, and what arrived meanwhile is one read. The first
event of a burst is never held back, and no event for longer than the pause. A worker with time to spare reads
everything at once. Network drivers moderate their interrupts the same way.
"""

import asyncio
import ctypes
import os
from typing import Protocol

BURST_SECONDS = 0.001
PAUSE_SECONDS = 0.0008
BUSY_SHARE = 0.5  # of a core, from which bursts are paced; pacing itself lowers it, hence two bounds
CALM_SHARE = 0.3  # below which they are not paced any more

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_CLOEXEC = os.O_CLOEXEC


class _Interval(ctypes.Structure):
    """`struct itimerspec`: repetition, then first expiry, each as seconds and nanoseconds."""

    _fields_ = (
        ("repeat_seconds", ctypes.c_long),
        ("repeat_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class Resting(Protocol):
    """A stream that can rest."""

    def rested(self) -> None:
        """Go on."""


class Pacer:
    """Wakes the streams that rest, all at once. The event loop's own timers are as coarse as a millisecond."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Raises OSError where the kernel has no timer to give."""
        self.is_busy = False
        self._looked_at = 0.0
        self._cpu_seconds = 0.0
        self._loop = loop
        self._resting: list[Resting] = []
        libc = ctypes.CDLL(None, use_errno=True)
        self._arm = libc.timerfd_settime
        self._file = libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self._file < 0:
            raise OSError(ctypes.get_errno(), "no timer for pacing streams")
        self._pause = ctypes.byref(_Interval(0, 0, 0, round(PAUSE_SECONDS * 1e9)))
        loop.add_reader(self._file, self._wake)

    def look(self, now: float, cpu_seconds: float) -> None:
        """Tell how busy the worker is: its clock, and what its event loop has used of a core since it began."""
        passed = now - self._looked_at
        if passed > 0:
            share = (cpu_seconds - self._cpu_seconds) / passed
            self.is_busy = share > (CALM_SHARE if self.is_busy else BUSY_SHARE)
        self._looked_at, self._cpu_seconds = now, cpu_seconds

    def rest(self, stream: Resting) -> None:
        """Call `stream.rested` after the pause, or earlier if others rest already."""
        if not self._resting:
            self._arm(self._file, 0, self._pause, None)
        self._resting.append(stream)

    def close(self) -> None:
        """Wake everybody for the last time."""
        self._loop.remove_reader(self._file)
        os.close(self._file)
        self._go_on()

    def _wake(self) -> None:
        os.read(self._file, 8)
        self._go_on()

    def _go_on(self) -> None:
        resting, self._resting = self._resting, []
        for stream in resting:
            stream.rested()
