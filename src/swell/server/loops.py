"""Loops: one turn is `step(now)`; the loop around it waits, and survives a turn that fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from swell.clock import Clock

MAX_BACK_OFF_SECONDS = 30.0
FORGIVE_SECONDS = 60.0
_FIRST_BACK_OFF_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Loop:
    """Calls `step(now)` every `every_seconds`, sooner when `wake` is set, later while it fails.

    `now` is monotonic. A turn that raises is logged with its reason and tried again after a back-off that
    doubles up to MAX_BACK_OFF_SECONDS; no loop ends silently. A step may itself be a loop that only ends
    by raising; having run for FORGIVE_SECONDS forgives its earlier failures.
    """

    def __init__(
        self, name: str, step: Callable[[float], Awaitable[object]], every_seconds: float, clock: Clock
    ) -> None:
        self.name = name
        self.wake = asyncio.Event()
        self.failures = 0  # in a row
        self._step = step
        self._every_seconds = every_seconds
        self._clock = clock

    async def turn(self) -> float:
        """One step; the seconds to wait before the next."""
        begun = self._clock.monotonic()
        try:
            await self._step(begun)
        except Exception:
            if self._clock.monotonic() - begun >= FORGIVE_SECONDS:
                self.failures = 0
            self.failures += 1
            pause: float = min(_FIRST_BACK_OFF_SECONDS * 2 ** min(self.failures - 1, 10), MAX_BACK_OFF_SECONDS)
            _log.exception(
                "a loop's turn failed and will be tried again",
                extra={"loop": self.name, "attempt": self.failures, "retry_after_seconds": pause},
            )
            return pause
        self.failures = 0
        return self._every_seconds

    async def run(self) -> None:
        """Turn forever, until cancelled."""
        while True:
            pause = await self.turn()
            # A failing loop is not woken early: waking would turn its back-off into a busy loop. No `wait_for`: in
            # Python 3.11 it forgets a cancellation that comes together with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await (asyncio.Event() if self.failures else self.wake).wait()
            self.wake.clear()
