"""Ending what a killed server left running, without starting a server."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

from swell.clock import SystemClock
from swell.control.fleet import Fleet
from swell.control.intents import from_record
from swell.control.probe import HttpAsk
from swell.control.workload import GATEWAY_WORKER
from swell.errors import AtCapacity, SwellError, UserError
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
FORGET = "Where a place is gone for good, run: swell down --forget PLACE"


def stop_leftovers(state: StateDirectory, timeout_seconds: float, forget: str = "") -> int:
    """Stop what runs, gateway workers first, and enter what they wrote in the ledger; how many children there were.

    The place `forget` is gone for good: nothing is looked for there, and what the store knows of it is forgotten.

    The caller holds the state lock. Raises UserError for a place unheard of, and SwellError where not everything ends
    in `timeout_seconds`, or where all has but what was prepared for replicas.
    """
    if forget:
        assembly.forget_place(state, forget)
    if not assembly.has_store(state):
        return 0
    said: list[str] = []
    with assembly.administration(state) as office:
        found = asyncio.run(_stop(state, office.store, timeout_seconds, said.append, forget))
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


async def _stop(
    state: StateDirectory, store: Store, timeout_seconds: float, say: Callable[[str], None], forget: str
) -> int:
    fleet: Fleet
    writer, clock, ask = Writer(), SystemClock(), HttpAsk()
    intents = StoredIntents(store, writer)
    async with AsyncExitStack() as opened:
        opened.callback(writer.close)
        opened.push_async_callback(ask.close)
        places = await _places(intents, clock.monotonic())
        await intents.remove_processes(places.pop(forget, []))
        try:  # where nothing is known to run, nothing need answer
            providers = assembly.providers(state, lambda child_id: fleet.wake(), named=places)
            opened.push_async_callback(providers.close)
            fleet = Fleet(
                providers=providers.by_name,
                intents=intents,
                ask=ask,
                clock=clock,
                renamed=providers.renamed,
                spared=providers.spared,
            )
            opened.push_async_callback(fleet.close)
            await fleet.adopt()
        except (AtCapacity, UserError) as away:
            raise SwellError(f"what runs cannot be found: {away}. {FORGET}") from away
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
            is_kept = any(replica.waiting for replica in fleet.replicas)
            told = f"{left}: {left_words(fleet.replicas)}" + f". {FORGET}" * is_kept
            raise SwellError(told) from None
        else:
            await end_preparations(fleet, say)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await writer.call(lambda: end_runs(store, found, clock.unix()))
        return len(found)


async def _places(intents: StoredIntents, now: float) -> dict[str, list[str]]:
    """What the store knows of, by place."""
    places: dict[str, list[str]] = {}
    for record in await intents.list_processes():
        try:
            places.setdefault(from_record(record, now).provider, []).append(record.process_id)
        except ValueError:
            continue
    return places
