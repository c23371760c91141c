"""Doing what was decided about one replica: each act takes its record and returns the next one.

Starts are made together (`swell.control.launch`). An act that fails leaves a record from which the next step decides
again; nothing here retries by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swell.control.decide import BACKOFF_FIRST_SECONDS, Act, Verb
from swell.control.intents import Intents
from swell.control.launch import MAX_TOGETHER, failed
from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.errors import SwellError
from swell.ports.provider import Provider
from swell.state.replica import Phase


class Applier:
    """Carries out decisions through the providers and the store."""

    def __init__(self, providers: Mapping[str, Provider], intents: Intents) -> None:
        self._providers = providers
        self._intents = intents

    def add(self, workload: Workload, ordinal: int, now: float) -> Replica:
        """A new replica, pending. Nothing is stored or started yet."""
        return Replica(
            workload=workload.name,
            kind=workload.kind,
            provider=workload.provider,
            ordinal=ordinal,
            child_id=workload.new_id(workload.name, ordinal),
            fingerprint=workload.fingerprint,
            log_path=workload.log_path(ordinal),
            phase=Phase.PENDING,
            since=now,
            drain_seconds=workload.drain_seconds,
            stop_grace_seconds=workload.stop_grace_seconds,
            model=workload.model,
            pool=workload.pool,
            ordered_at=now,
            address=workload.addresses[ordinal] if workload.addresses else None,
            key=workload.key,
        )

    async def forget(self, replicas: Sequence[Replica]) -> dict[str, str]:
        """Forget children that are gone, many in one transaction; what kept those that could not be, by child id."""
        kept: dict[str, str] = {}
        for begin in range(0, len(replicas), MAX_TOGETHER):
            gone = replicas[begin : begin + MAX_TOGETHER]
            try:
                await self._intents.remove_processes([replica.child_id for replica in gone])
                for replica in gone:
                    if replica.handle is not None:
                        await self._providers[replica.provider].forget(replica.handle)
            except SwellError as error:
                kept |= {replica.child_id: str(error) for replica in gone}
        return kept

    async def act(
        self, act: Act, replica: Replica, workload: Workload | None, now: float, kept: str = ""
    ) -> Replica | None:
        """The replica after any act but a start, or None where it is finished.

        Who is tried again or finished was to be forgotten before; `kept` is why it was not.
        """
        match act.verb:
            case Verb.READY:
                return replica.to(Phase.READY, now)
            case Verb.FAIL:
                return await self._fail(replica, workload, now, act.reason)
            case Verb.RETRY if workload is not None:
                return self._retry(replica, workload, now, kept)
            case Verb.DRAIN:
                return replace(replica.to(Phase.DRAINING, now), drained=False)
            case Verb.STOP:
                await self._stop(replica, replica.stop_grace_seconds)
                return replica.to(Phase.STOPPING, now)
            case Verb.KILL:
                await self._stop(replica, 0.0)
                return replica
            case Verb.FINISH:
                if kept:
                    return replace(replica, last_error=kept)
                replica.to(Phase.STOPPED, now)
                return None
        raise ValueError(f"{act.verb} of {act.child_id} needs its workload")

    async def _fail(self, replica: Replica, workload: Workload | None, now: float, reason: str) -> Replica:
        tail = ""
        if replica.handle is not None:
            tail = await self._providers[replica.provider].log_tail(replica.log_path)
        await self._stop(replica, 0.0)
        return failed(replica, workload, now, f"{reason}\n{tail}".rstrip(), 0.0)

    def _retry(self, replica: Replica, workload: Workload, now: float, kept: str) -> Replica:
        if kept:
            return replace(replica, not_before=now + BACKOFF_FIRST_SECONDS, last_error=kept)
        fresh = self.add(workload, replica.ordinal, now)
        return replace(
            fresh,
            ordered_at=replica.ordered_at,
            failures=replica.failures,
            restarts=replica.restarts + 1,
            last_error=replica.last_error,
        )

    async def _stop(self, replica: Replica, grace_seconds: float) -> None:
        if replica.handle is not None:
            await self._providers[replica.provider].stop(replica.handle, grace_seconds=grace_seconds)
