"""The one thread that touches the store, and one for long reads. Everything else asks them and awaits the answer."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swell.errors import AtCapacity

MAX_WAITING = 1_000  # calls, more than a stuck store could ever need

_Result = TypeVar("_Result")


class Writer:
    """Runs calls one after another on a thread of its own."""

    def __init__(
        self, name: str = "store", most_waiting: int | None = None, refusal: str = "the store does not keep up"
    ) -> None:
        """`most_waiting` calls are taken at once; MAX_WAITING without it."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._waiting, self._refusal = 0, refusal
        self._most_waiting = MAX_WAITING if most_waiting is None else most_waiting
        self.last_seconds = 0.0  # what the last call took

    async def call(self, function: Callable[[], _Result]) -> _Result:
        """Run `function` on the writer thread. Raises AtCapacity when as many calls wait as may."""
        if self._waiting >= self._most_waiting:
            raise AtCapacity(self._refusal, retry_after_seconds=1.0)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._timed, function)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what was begun; nothing may be called afterwards."""
        self._thread.shutdown(wait=True)

    def _timed(self, function: Callable[[], _Result]) -> _Result:
        begun = time.perf_counter()
        try:
            return function()
        finally:
            self.last_seconds = time.perf_counter() - begun
