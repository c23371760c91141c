"""Injected time, and time zones by name. Nothing outside this module and the assembly reads the machine's clock."""

import difflib
import time
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, available_timezones

LONGEST_ZONE = 100  # characters of a mistyped zone that are compared and shown
# Not zones of their own: what the machine happens to be set to, and a mark for "never set".
_NOT_ZONES = {"localtime", "Factory"}


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


@lru_cache(maxsize=1024)  # the database's folders are gone through each time
def zone_of(name: str) -> ZoneInfo:
    """The time zone of that name in the IANA database, such as Europe/Berlin. Names are told apart by case.

    ValueError with a sentence, without the name of the field, that says which known zone comes nearest.
    """
    known = available_timezones() - _NOT_ZONES
    if name in known:  # asked first, since the database also has files that are no zones, or count leap seconds
        return ZoneInfo(name)
    shown = repr(name[:LONGEST_ZONE])
    if not known:
        raise ValueError(f"{shown} cannot be looked up: this machine has no time zones; install its tzdata package")
    raise ValueError(f"{shown} is not a time zone; did you mean {_nearest(name, sorted(known))}?")


def _nearest(name: str, known: list[str]) -> str:
    """By the whole name or by its city alone, whichever is closer: people write `Berlin`, or the wrong continent."""
    wanted = name[:LONGEST_ZONE].strip().lower().replace(" ", "_")
    city = wanted.rpartition("/")[2]

    def likeness(zone: str) -> tuple[float, float]:
        whole = difflib.SequenceMatcher(None, wanted, zone.lower()).ratio()
        return max(whole, difflib.SequenceMatcher(None, city, zone.lower().rpartition("/")[2]).ratio()), whole

    # Etc/GMT+2 is two hours behind UTC; nobody who writes GMT+2 means that.
    return max((zone for zone in known if "GMT+" not in zone and "GMT-" not in zone), key=likeness)
