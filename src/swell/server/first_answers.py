"""What adopted gateway workers are told first: no less than what they know."""

import asyncio

from swell.clock import Clock
from swell.control.fleet import Fleet
from swell.state.replica import Phase

FIND_SECONDS = 3.0  # for the first answers of endpoints, before adopted workers are told anything
FIND_POLL_SECONDS = 0.02


async def find_endpoints(fleet: Fleet, clock: Clock) -> None:
    """Adopted workers still serve from what they knew: have as good a picture before they are sent one."""
    deadline = clock.monotonic() + FIND_SECONDS
    while clock.monotonic() < deadline:
        await fleet.step(clock.monotonic())
        await asyncio.sleep(FIND_POLL_SECONDS)
        waiting = (Phase.PENDING, Phase.STARTING)
        if not any(r.phase in waiting and r.provider == "external" for r in fleet.replicas):
            return
