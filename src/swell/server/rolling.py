"""Summing up the ledger by the hour, beside everything else."""

from functools import partial

from swell.clock import Clock
from swell.ports.store import UsageStore
from swell.server.writer import Writer

MAX_TURNS = 300  # in one turn of housekeeping: a day that a server was away, in slices of five minutes


async def roll_usage(store: UsageStore, writer: Writer, clock: Clock) -> None:
    """Sum up what is settled by now, in small pieces, so that nothing else waits for long."""
    for _ in range(MAX_TURNS):
        if not await writer.call(partial(store.roll_usage, int(clock.unix() * 1000))):
            return
