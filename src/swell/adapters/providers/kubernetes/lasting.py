"""Loops that nothing but their cancellation ends: whoever waits for what one does would wait without a word."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from swell.adapters.providers.kubernetes.pacing import Pause

AGAIN_SECONDS = 5.0  # until a loop that failed is run again

_log = logging.getLogger(__name__)


def lasting(run: Callable[[], Awaitable[None]], pause: Pause) -> "asyncio.Task[None]":
    """A task that runs it until it returns or is cancelled, and again after a fault, which is in the log then."""
    return asyncio.ensure_future(_again_and_again(run, pause))


async def _again_and_again(run: Callable[[], Awaitable[None]], pause: Pause) -> None:
    while True:
        try:
            await run()
            return
        except Exception:  # a fault in our own code: what it was about may be over by the next turn
            _log.exception("a loop that looks after a cluster failed and begins anew")
        await pause(AGAIN_SECONDS)
