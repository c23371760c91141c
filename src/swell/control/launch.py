"""Starting replicas, those of one step together: the intents of many are stored in one transaction, then each starts.

A store's transaction costs the same for one as for hundreds, and a fleet that comes from nothing starts thousands.
Whatever a kill leaves, no child runs without its intent.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from swell.clock import Clock
from swell.control.decide import backoff_seconds
from swell.control.intents import Intents, to_record
from swell.control.loopback import free_port
from swell.control.replica import Replica
from swell.control.workload import Slot, Workload
from swell.errors import LaunchFailed, SpotRefused, SwellError
from swell.ports.engine import Address, Span
from swell.ports.provider import Binding, ChildHandle, ChildSpec, Loss, Machine, Provider
from swell.state.records import StartedProcess
from swell.state.replica import Phase

KEY_BYTES = 24  # of randomness in an engine's key
MAX_TOGETHER = 500  # intents in one transaction: other writes wait no longer than it takes


@dataclass(frozen=True)
class _Start:
    """One that is to be started; `child` is None where somebody else runs it, so that there is no intent."""

    before: Replica
    workload: Workload
    replica: Replica
    child: ChildSpec | None


class Launcher:
    """Starts what was decided on, through the providers and the store."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        intents: Intents,
        clock: Clock,
        taken_ports: Callable[[], set[int]],
    ) -> None:
        self._providers = providers
        self._intents = intents
        self._clock = clock
        self._taken_ports = taken_ports

    async def start(
        self, wanted: Sequence[tuple[Replica, Workload]], now: float, put: Callable[[Replica], None]
    ) -> None:
        """Start them, and `put` what became of each as soon as it is known."""
        ports = self._taken_ports() if wanted else set()
        for begin in range(0, len(wanted), MAX_TOGETHER):
            await self._together(wanted[begin : begin + MAX_TOGETHER], ports, now, put)

    async def _together(
        self,
        wanted: Sequence[tuple[Replica, Workload]],
        ports: set[int],
        now: float,
        put: Callable[[Replica], None],
    ) -> None:
        starts = list(self._prepared(wanted, ports, now, put))
        intents = [to_record(each.replica, self._clock) for each in starts if each.child is not None]
        if intents:
            try:
                await self._intents.record_processes(intents)
            except SwellError as error:
                for each in [each for each in starts if each.child is not None]:
                    put(_not_started(each.before, each.workload, now, error))
                starts = [each for each in starts if each.child is None]
        running = []
        for each in starts:
            after = await self._started(each, now)
            put(after)
            if after.handle is not None and each.child is not None:
                running.append((after, after.handle))
        await self._note(running, put)

    def _prepared(
        self,
        wanted: Sequence[tuple[Replica, Workload]],
        ports: set[int],
        now: float,
        put: Callable[[Replica], None],
    ) -> Iterator[_Start]:
        """Each with its launch line, except those that have failed at that."""
        for replica, workload in wanted:
            try:
                start = self._prepare(replica, workload, ports)
            except (SwellError, OSError) as error:
                put(_not_started(replica, workload, now, error))
            else:
                yield start

    def _prepare(self, replica: Replica, workload: Workload, ports: set[int]) -> _Start:
        if workload.launch is None:
            return _Start(replica, workload, replica, None)
        binding = self._providers[replica.provider].binding
        slot = self._slot(replica, workload, binding, ports)
        command = workload.launch(slot)
        known = workload.wants_port and binding.port is None
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
            worker_argv=command.worker_argv,
        )
        address = Address(slot.host, slot.port) if known else None
        return _Start(replica, workload, replace(replica, address=address, key=slot.key), child)

    def _slot(self, replica: Replica, workload: Workload, binding: Binding, ports: set[int]) -> Slot:
        port = 0
        if workload.wants_port:
            port = free_port(ports) if binding.port is None else binding.port
            ports.add(port)
        if binding.alike and not workload.key:
            raise LaunchFailed(f"{workload.name} has no key that its replicas could share")
        key = workload.key if binding.alike else secrets.token_urlsafe(KEY_BYTES)
        span = None
        if workload.needs.nodes > 1:
            if not binding.leader:
                where = f"{workload.name} spans {workload.needs.nodes} nodes"
                raise LaunchFailed(f"{where}, and {workload.provider} is one")
            span = Span(workload.needs.nodes, binding.leader, binding.rank)
        return Slot(replica.child_id, replica.ordinal, port, key, host=binding.host, span=span)

    async def _started(self, each: _Start, now: float) -> Replica:
        child = each.child or ChildSpec(each.replica.child_id, (), each.replica.log_path)
        try:
            handle = await self._providers[each.replica.provider].start(child)
        except (SwellError, OSError) as error:
            return _not_started(each.before, each.workload, now, error)
        return replace(each.replica.to(Phase.STARTING, now), handle=handle, alive=True, exit_code=None)

    async def _note(self, running: Sequence[tuple[Replica, ChildHandle]], put: Callable[[Replica], None]) -> None:
        """What the started ones are known by."""
        if not running:
            return
        started = [StartedProcess(handle.child_id, handle.pid, handle.start_time) for _, handle in running]
        try:
            await self._intents.record_started(started)
        except SwellError as error:
            # They run, and their intents are stored: a later server finds them by their markers, only more slowly.
            for replica, _ in running:
                put(replace(replica, last_error=str(error)))


def failed(replica: Replica, workload: Workload | None, now: float, error: str, wait_seconds: float) -> Replica:
    """After a failure, which is tried again no sooner than after `wait_seconds` and its back-off."""
    # A machine that was taken is no fault of what ran on it: another is asked for at once.
    is_faultless = replica.loss is Loss.RECLAIMED and replica.phase is Phase.READY
    failures = replica.failures + (not is_faultless)
    most = workload.backoff_max_seconds if workload is not None else 0.0
    pause = 0.0 if is_faultless else backoff_seconds(failures, most)
    not_before = now + max(wait_seconds, pause)
    return replace(replica.to(Phase.FAILED, now), failures=failures, not_before=not_before, last_error=error)


def _not_started(replica: Replica, workload: Workload, now: float, error: Exception) -> Replica:
    if isinstance(error, SpotRefused):
        replica = replace(replica, machine=Machine("spot", error.zone, error.accelerator), loss=Loss.REFUSED)
    return failed(replica, workload, now, str(error), getattr(error, "retry_after_seconds", 0.0))
