"""Gateways on other machines, as the server knows them: which workers they have, and what their spools say (RFC 7).

A gateway names the workers whose processes run, once a second. Who is named lives; who is named no more has ended. A
lost connection says nothing, until a gateway has been silent for longer than its workers may serve without a server.
After a restart those are taken for living whose spools are not finished, until their gateway says otherwise.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from swell.clock import Clock
from swell.errors import RetryLater, SwellError
from swell.metering.ingest import Ingested
from swell.ports.store import UsageStore
from swell.server.writer import Writer
from swell.state.gateway_messages import (
    Answer,
    ApplyUsage,
    AskPosition,
    FinaliseSpool,
    ForgetSpools,
    GatewayHello,
    UsageCall,
)
from swell.state.messages import Load
from swell.state.records import SpoolPosition

NOTED = (1, 0)  # the position of a spool of which nothing is in the ledger yet
MAX_WORKERS = 256  # of one gateway
SURELY_THERE_SECONDS = 5.0  # after its last report, of which there is one a second; then a connection may be a dead one

_log = logging.getLogger(__name__)


@dataclass
class _Gateway:
    """One of them. `name` is empty until it has said something to this server."""

    gateway: str
    name: str = ""
    version: str = ""
    workers: set[str] = field(default_factory=set)
    heard: float = 0.0  # monotonic seconds
    run: str = ""  # which process of it is connected
    connections: int = 0  # that report, of this process


class RemoteGateways:
    """Made once per server. `changed` is called when other workers live, `ended` when the ledger has all of some."""

    def __init__(
        self,
        store: UsageStore,
        writer: Writer,
        clock: Clock,
        *,
        max_silence_seconds: float,
        changed: Callable[[], None],
        ingested: Callable[[Ingested], Awaitable[None]],
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._max_silence_seconds = max_silence_seconds
        self._changed = changed
        self._ingested = ingested
        self._gateways: dict[str, _Gateway] = {}
        self._owners: dict[str, str] = {}  # spool: gateway

    async def begin(self) -> None:
        """Take up what an earlier server knew."""
        self._owners = await self._writer.call(self._store.gateway_spools)
        for spool, gateway in self._owners.items():
            self._known(gateway).workers.add(spool)

    def living(self) -> set[str]:
        """The incarnations that may be serving."""
        return {worker for gateway in self._gateways.values() for worker in gateway.workers}

    def unfinished(self) -> set[str]:
        """The spools of which the ledger may lack something."""
        return set(self._owners)

    def look(self) -> None:
        """Give up gateways that have been silent for too long."""
        before = self._clock.monotonic() - self._max_silence_seconds
        silent = [gateway for gateway in self._gateways.values() if gateway.workers and gateway.heard < before]
        for gateway in silent:
            _log.warning("a gateway is silent and counts as ended", extra={"gateway": gateway.name or gateway.gateway})
            gateway.workers.clear()
        if silent:
            self._changed()

    def greet(self, hello: GatewayHello) -> str:
        """A gateway has connected, and reports until it has `left`; or why it may not."""
        problem = self._is_copy(hello)
        if problem:
            _log.warning("a copy of a gateway was turned away", extra={"gateway": hello.name})
            return problem
        known = self._known(hello.gateway)
        known.name, known.version = hello.name, hello.version
        known.run, known.connections = hello.run, known.connections + 1 if known.run == hello.run else 1
        _log.info("a gateway has connected", extra={"gateway": hello.name})
        return ""

    def left(self, hello: GatewayHello) -> None:
        """A connection of a gateway that was greeted has ended."""
        known = self._gateways[hello.gateway]
        if known.run == hello.run:
            known.connections -= 1
            known.run = hello.run if known.connections else ""

    def _is_copy(self, hello: GatewayHello) -> str:
        """Two processes with one state directory's id would each say that the other's workers have ended."""
        known = self._gateways.get(hello.gateway)
        if known is None or not known.connections or known.run == hello.run:
            return ""
        if self._clock.monotonic() - known.heard > SURELY_THERE_SECONDS:
            return ""
        return (
            f"the gateway {known.name} runs with a state directory of the same id as {hello.name}; a copied one cannot "
            "be used, so give this gateway an empty one with --state"
        )

    async def report(self, hello: GatewayHello, workers: Sequence[str]) -> None:
        """These of its workers run, and no others. Raises SwellError where the store could not note a new one."""
        gateway, problem = hello.gateway, self._is_copy(hello)
        if problem:
            raise SwellError(problem)
        new = [worker for worker in workers[:MAX_WORKERS] if worker not in self._owners]
        if new:
            own = await self._writer.call(lambda: self._note(gateway, new))
            self._owners |= dict.fromkeys(own, gateway)
        known = self._known(gateway)
        running = {worker for worker in workers if self._owners.get(worker) == gateway}
        is_new, known.workers = running != known.workers, running
        if is_new:
            self._changed()

    async def answer(self, hello: GatewayHello, call: UsageCall) -> Answer:
        """Make a call of its spools' reader. What fails is said to it, and nothing was changed."""
        problem = self._is_copy(hello)
        if problem:  # it would take workers for dead that live where it was copied from
            return Answer(problem=problem, retry_after_seconds=SURELY_THERE_SECONDS)
        try:
            return await self._answer(hello.gateway, call)
        except RetryLater as error:
            return Answer(problem=str(error), retry_after_seconds=error.retry_after_seconds)
        except SwellError as error:
            return Answer(problem=str(error))

    async def _answer(self, gateway: str, call: UsageCall) -> Answer:
        store = self._store
        match call:
            case AskPosition(spool):
                position = await self._writer.call(lambda: store.spool_position(spool))
                if position is None or (position.segment, position.offset) == NOTED:
                    return Answer()
                return Answer(position=msgspec.structs.replace(position, gateway=""))
            case ApplyUsage(changes, position):
                await self._require_own(gateway, position.spool)
                if any(change.spool != position.spool for change in changes):
                    raise SwellError(f"a batch of the spool {position.spool} has requests of another one")
                own = msgspec.structs.replace(position, gateway=gateway)
                await self._writer.call(lambda: store.apply_usage(changes, own))
                self._owners[position.spool] = gateway
                await self._ingested(Ingested(records=len(changes)))
            case FinaliseSpool(spool, damaged):
                await self._require_own(gateway, spool)
                finalised = await self._writer.call(lambda: store.finalise_spool(spool, damaged=damaged))
                # Leases end with it, and before it is forgotten: whoever takes over in between is asked once more.
                await self._ingested(Ingested(spools_finished=1, finished=(spool,)))
                await self._forget(gateway, {spool})
                return Answer(finalised=finalised)
            case ForgetSpools(existing):
                await self._forget(gateway, self._spools_of(gateway) - set(existing))
        return Answer()

    async def _forget(self, gateway: str, spools: set[str]) -> None:
        """Drop what is known of finished spools; a worker that is named may have none yet."""
        known = self._gateways.get(gateway)
        gone = spools - (known.workers if known else set())
        kept = sorted(self._spools_of(gateway) - gone)
        await self._writer.call(lambda: self._store.forget_spools(kept, gateway))
        for spool in gone:
            self._owners.pop(spool, None)

    def _spools_of(self, gateway: str) -> set[str]:
        return {spool for spool, owner in self._owners.items() if owner == gateway}

    def rows(self, loads: Mapping[str, Load], connected: Mapping[str, object]) -> list[dict[str, Any]]:
        """Every gateway that has workers, for `status`."""
        rows = []
        for gateway in sorted(self._gateways.values(), key=lambda each: (each.name, each.gateway)):
            if not gateway.workers:
                continue
            own = [loads[worker] for worker in sorted(gateway.workers) if worker in loads]
            rows.append(
                {
                    "gateway": gateway.name or gateway.gateway,
                    "version": gateway.version,
                    "workers": len(gateway.workers),
                    "connected": len(gateway.workers & connected.keys()),
                    "heard_seconds": round(self._clock.monotonic() - gateway.heard, 1),
                    "in_flight": sum(load.in_flight for load in own),
                    "queued": sum(load.queued for load in own),
                }
            )
        return rows

    def _known(self, gateway: str) -> _Gateway:
        known = self._gateways.setdefault(gateway, _Gateway(gateway))
        known.heard = self._clock.monotonic()
        return known

    def _note(self, gateway: str, spools: Sequence[str]) -> list[str]:
        """On the writer's thread: that they exist, so that a server after this one knows of their workers.

        Which of them are this gateway's.
        """
        own = []
        for spool in spools:
            position = self._store.spool_position(spool)
            if position is None:
                self._store.apply_usage([], SpoolPosition(spool, *NOTED, gateway))
            if position is None or position.gateway == gateway:
                own.append(spool)
        return own

    async def _require_own(self, gateway: str, spool: str) -> None:
        owner = self._owners.get(spool)
        if owner is None:  # a finished one that is asked about again; or a worker's beside the server
            position = await self._writer.call(lambda: self._store.spool_position(spool))
            owner = gateway if position is None else position.gateway
        if owner != gateway:
            raise SwellError(
                f"the spool {spool} is not this gateway's; bring its folder back to the state directory that it was "
                "copied from, or remove it"
            )
