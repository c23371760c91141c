"""Doing what was decided about one replica: each act takes its record and returns the next one.

An act that fails leaves a record from which the next step decides again; nothing here retries by itself.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

from swell.clock import Clock
from swell.control.decide import BACKOFF_FIRST_SECONDS, Act, Verb, backoff_seconds
from swell.control.intents import Intents, to_record
from swell.control.replica import Replica
from swell.control.workload import Slot, Workload
from swell.errors import LaunchFailed, SpotRefused, SwellError
from swell.ports.engine import Address
from swell.ports.provider import Binding, ChildHandle, ChildSpec, Loss, Machine, Provider
from swell.state.replica import Phase

KEY_BYTES = 24  # of randomness in an engine's key


class Applier:
    """Carries out decisions through the providers and the store."""

    def __init__(
        self, providers: Mapping[str, Provider], intents: Intents, clock: Clock, pick_port: Callable[[], int]
    ) -> None:
        self._pick_port = pick_port
        self._providers = providers
        self._intents = intents
        self._clock = clock

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

    async def act(self, act: Act, replica: Replica, workload: Workload | None, now: float) -> Replica | None:
        """The replica after the act, or None where it is finished."""
        match act.verb:
            case Verb.START if workload is not None:
                return await self._start(replica, workload, now)
            case Verb.READY:
                return replica.to(Phase.READY, now)
            case Verb.FAIL:
                return await self._fail(replica, workload, now, act.reason)
            case Verb.RETRY if workload is not None:
                return await self._retry(replica, workload, now)
            case Verb.DRAIN:
                return replace(replica.to(Phase.DRAINING, now), drained=False)
            case Verb.STOP:
                await self._stop(replica, replica.stop_grace_seconds)
                return replica.to(Phase.STOPPING, now)
            case Verb.KILL:
                await self._stop(replica, 0.0)
                return replica
            case Verb.FINISH:
                return await self._finish(replica, now)
        raise ValueError(f"{act.verb} of {act.child_id} needs its workload")

    async def _start(self, replica: Replica, workload: Workload, now: float) -> Replica:
        try:
            replica, handle = await self._launch(replica, workload)
        except (SwellError, OSError) as error:
            if isinstance(error, SpotRefused):
                machine = Machine("spot", error.zone, error.accelerator)
                replica = replace(replica, machine=machine, loss=Loss.REFUSED)
            return self._failed(replica, workload, now, str(error), getattr(error, "retry_after_seconds", 0.0))
        replica = replace(replica.to(Phase.STARTING, now), handle=handle, alive=True, exit_code=None)
        if workload.launch is None:
            return replica
        try:
            await self._intents.record_started(replica.child_id, handle.pid, handle.start_time)
        except SwellError as error:
            # It runs, and its intent is stored: a later server finds it by its marker, only more slowly.
            return replace(replica, last_error=str(error))
        return replica

    async def _launch(self, replica: Replica, workload: Workload) -> tuple[Replica, ChildHandle]:
        provider = self._providers[replica.provider]
        if workload.launch is None:
            return replica, await provider.start(ChildSpec(replica.child_id, (), replica.log_path))
        slot = self._slot(replica, workload, provider.binding)
        command = workload.launch(slot)
        known = workload.wants_port and provider.binding.port is None
        address = Address(slot.host, slot.port) if known else None
        replica = replace(replica, address=address, key=slot.key)
        await self._intents.record_process(to_record(replica, self._clock))
        child = ChildSpec(
            replica.child_id,
            command.argv,
            replica.log_path,
            command.env,
            workload=workload.name,
            fingerprint=workload.fingerprint,
            port=slot.port,
            needs=workload.needs,
            lifecycle=workload.lifecycle,
        )
        return replica, await provider.start(child)

    def _slot(self, replica: Replica, workload: Workload, binding: Binding) -> Slot:
        port = 0
        if workload.wants_port:
            port = self._pick_port() if binding.port is None else binding.port
        if binding.alike and not workload.key:
            raise LaunchFailed(f"{workload.name} has no key that its replicas could share")
        key = workload.key if binding.alike else secrets.token_urlsafe(KEY_BYTES)
        return Slot(replica.child_id, replica.ordinal, port, key, host=binding.host)

    async def _fail(self, replica: Replica, workload: Workload | None, now: float, reason: str) -> Replica:
        tail = ""
        if replica.handle is not None:
            tail = await self._providers[replica.provider].log_tail(replica.log_path)
        await self._stop(replica, 0.0)
        return self._failed(replica, workload, now, f"{reason}\n{tail}".rstrip(), 0.0)

    def _failed(self, replica: Replica, workload: Workload | None, now: float, error: str, wait: float) -> Replica:
        # A machine that was taken is no fault of what ran on it: another is asked for at once.
        is_faultless = replica.loss is Loss.RECLAIMED and replica.phase is Phase.READY
        failures = replica.failures + (not is_faultless)
        most = workload.backoff_max_seconds if workload is not None else 0.0
        pause = 0.0 if is_faultless else backoff_seconds(failures, most)
        not_before = now + max(wait, pause)
        return replace(replica.to(Phase.FAILED, now), failures=failures, not_before=not_before, last_error=error)

    async def _retry(self, replica: Replica, workload: Workload, now: float) -> Replica:
        try:
            await self._forget(replica)
        except SwellError as error:
            return replace(replica, not_before=now + BACKOFF_FIRST_SECONDS, last_error=str(error))
        fresh = self.add(workload, replica.ordinal, now)
        return replace(
            fresh,
            ordered_at=replica.ordered_at,
            failures=replica.failures,
            restarts=replica.restarts + 1,
            last_error=replica.last_error,
        )

    async def _finish(self, replica: Replica, now: float) -> Replica | None:
        try:
            await self._forget(replica)
        except SwellError as error:
            return replace(replica, last_error=str(error))
        replica.to(Phase.STOPPED, now)
        return None

    async def _forget(self, replica: Replica) -> None:
        await self._intents.remove_process(replica.child_id)
        if replica.handle is not None:
            await self._providers[replica.provider].forget(replica.handle)

    async def _stop(self, replica: Replica, grace_seconds: float) -> None:
        if replica.handle is not None:
            await self._providers[replica.provider].stop(replica.handle, grace_seconds=grace_seconds)
