"""Injected time. Nothing outside this module and the assembly reads the machine's clock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings: `monotonic` for durations, windows and leases; `unix` for what people read."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never jumps."""

    def unix(self) -> float:
        """Seconds since 1970; may jump when the machine's clock is set."""


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def unix(self) -> float:
        return time.time()


class ManualClock:
    """Time that moves only when told to, for tests and the simulator."""

    def __init__(self, start_unix: float = 1_700_000_000.0) -> None:
        self._monotonic = 0.0
        self._unix = start_unix

    def monotonic(self) -> float:
        return self._monotonic

    def unix(self) -> float:
        return self._unix

    def advance(self, seconds: float) -> None:
        """Move both readings forward by `seconds` (0 or more)."""
        if seconds < 0:
            raise ValueError("time moves forward only; use jump_unix for a clock that is set back")
        self._monotonic += seconds
        self._unix += seconds

    def jump_unix(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would."""
        self._unix += seconds


GIVE_WAY_SECONDS = 0.004


def give_way() -> None:
    """Leave the core to whoever else wants it, between two pieces of work that nobody waits for.

    Booking usage takes milliseconds at a time. Where a gateway worker shares the core, its clients would wait for the
    end of that: niceness does not help between sessions (each has a share of its own), a short sleep does.
    """
    time.sleep(GIVE_WAY_SECONDS)
