"""Arrivals of an open loop, at the times of a seeded Poisson process."""

import asyncio
import ctypes
import os
import random
import struct
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1


class Arrivals:
    """Calls `arrive` at `rate` per second for `seconds`, then `stop`.

    A timerfd wakes it: event loops round their timers to a millisecond, which at thousands of requests
    per second would turn single arrivals into bursts.
    """

    def __init__(
        self, rate: float, seconds: float, seed: int, arrive: Callable[[], None], stop: Callable[[], None]
    ) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._arrive, self._stop = arrive, stop
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed; the open loop needs Linux")
        self._next = time.monotonic()
        self._end = self._next + seconds

    def start(self) -> None:
        """Begin, in the running loop."""
        asyncio.get_running_loop().add_reader(self._timer, self._due)
        self._arm()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._timer)
        os.close(self._timer)

    def _due(self) -> None:
        os.read(self._timer, 8)
        now = time.monotonic()
        while self._next <= now:
            if self._next >= self._end:
                self._stop()
                return
            self._arrive()
            self._next += self._random.expovariate(self._rate)
        self._arm()

    def _arm(self) -> None:
        seconds, fraction = divmod(self._next, 1.0)
        at = struct.pack("qqqq", 0, 0, int(seconds), int(fraction * 1e9))
        if self._libc.timerfd_settime(self._timer, _ABSOLUTE, at, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
