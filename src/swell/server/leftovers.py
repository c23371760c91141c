"""Ending what a killed server left running, without starting a server."""

import asyncio
from collections.abc import Callable

from swell.clock import SystemClock
from swell.control.fleet import Fleet
from swell.control.probe import HttpAsk
from swell.control.workload import GATEWAY_WORKER
from swell.errors import SwellError
from swell.metering.ingest import SpoolReader
from swell.ports.store import Store
from swell.server import assembly
from swell.server.administration import current_principal
from swell.server.draining import end_preparations, left_words
from swell.server.gateway_workload import forget_settings
from swell.server.replica_runs import end_runs
from swell.server.state_directory import StateDirectory
from swell.server.stored_intents import StoredIntents
from swell.server.writer import Writer

MAX_INGEST_TURNS = 1_000
POLL_SECONDS = 0.05


def stop_leftovers(state: StateDirectory, timeout_seconds: float) -> int:
    """Stop what runs, gateway workers first, and enter what they wrote in the ledger; how many children there were.

    The caller holds the state lock. Raises SwellError where not everything ends in `timeout_seconds`, or where all has
    but what was prepared for replicas.
    """
    if not assembly.has_store(state):
        return 0
    said: list[str] = []
    with assembly.administration(state) as office:
        found = asyncio.run(_stop(state, office.store, timeout_seconds, said.append))
        enter_spools(state, office.store)
        forget_settings(state, set())
        if found:
            office.note(current_principal(), "down", str(state.root), leftovers=found)
    if said:
        raise SwellError(said[0])
    return found


def enter_spools(state: StateDirectory, store: Store) -> None:
    """Put what gateway workers wrote into the ledger. The caller holds the state lock."""
    reader = SpoolReader(state.spool, store)
    for _ in range(MAX_INGEST_TURNS):
        if not reader.step().folders_with_more:
            return


async def _stop(state: StateDirectory, store: Store, timeout_seconds: float, say: Callable[[str], None]) -> int:
    fleet: Fleet
    writer, clock, ask = Writer(), SystemClock(), HttpAsk()
    providers = assembly.providers(state, lambda child_id: fleet.wake())
    intents = StoredIntents(store, writer)
    fleet = Fleet(providers=providers.by_name, intents=intents, ask=ask, clock=clock, renamed=providers.renamed)
    try:
        await fleet.adopt()
        found = {replica.child_id for replica in fleet.replicas}
        for replica in fleet.replicas:
            if replica.kind == GATEWAY_WORKER and replica.handle is not None:
                await providers.by_name[replica.provider].stop(replica.handle, grace_seconds=replica.stop_grace_seconds)
        running = asyncio.create_task(fleet.run())
        try:
            async with asyncio.timeout(timeout_seconds):
                while fleet.replicas:
                    fleet.report_in_flight({})
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            left = f"{len(fleet.replicas)} children still drain after {timeout_seconds:g} s"
            raise SwellError(f"{left}: {left_words(fleet.replicas)}") from None
        else:
            await end_preparations(fleet, say)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await writer.call(lambda: end_runs(store, found, clock.unix()))
        return len(found)
    finally:
        await fleet.close()
        await ask.close()
        await providers.close()
        writer.close()
