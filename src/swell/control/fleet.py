"""The fleet: every child that Swell runs, kept as wanted, one `step(now)` at a time.

A step observes (who is there, who answers), decides (`decide`, pure) and applies (`apply`). Whatever happens between
two steps, a kill of this process included, the next one starts from what is found.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from swell.clock import Clock
from swell.control.adoption import Adoption, not_heard
from swell.control.apply import Applier
from swell.control.decide import FORGETTING, LEAVING, Act, Action, Add, Verb, decide
from swell.control.intents import Intents
from swell.control.launch import Launcher
from swell.control.probe import PATIENCE_SECONDS, PROBE_TIMEOUT_SECONDS, Answer, Ask, Prober
from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.ports.provider import OWN_MACHINE, Expected, Preparation, Prepares, Presence, Provider
from swell.state.replica import Phase


@dataclass(frozen=True)
class FleetTimes:
    """How often things are looked at, in seconds, and how much log is kept."""

    busy_step_seconds: float = 0.1  # while something starts, drains or stops
    idle_step_seconds: float = 1.0
    probe_ready_seconds: float = 2.0
    forgive_seconds: float = 60.0  # of health, after which earlier failures no longer lengthen the back-off
    route_settle_seconds: float = 1.0  # until every gateway surely knows that a replica drains
    log_check_seconds: float = 5.0
    log_bytes: int = 16 * 1024 * 1024
    log_files: int = 5


_SETTLED = frozenset({Phase.READY})
_PROBED = frozenset({Phase.STARTING, Phase.READY})


class Fleet:
    """Supervises children. One event loop; `adopt` once, then `step` again and again.

    `on_change` is called after a step that changed any replica's phase or error, or which places are awaited. `renamed`
    says of providers that the store may call by an earlier name what they are called now. `spared` are those of which
    nothing is wanted any more.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, Provider],
        intents: Intents,
        ask: Ask,
        clock: Clock,
        times: FleetTimes | None = None,
        renamed: Mapping[str, str] | None = None,
        spared: Collection[str] = (),
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._providers = providers
        self._intents = intents
        self._clock = clock
        self._times = times or FleetTimes()
        self._on_change = on_change
        self._prober = Prober(ask)
        self._workloads: dict[str, Workload] = {}
        self._replicas: dict[str, Replica] = {}  # by child id
        self._probed_at: dict[str, float] = {}
        self._let_go: set[str] = set()  # child ids that were drained by name and are not gone yet
        self._in_flight: tuple[float, Mapping[str, int]] | None = None
        self._logs_checked_at: float | None = None
        self._wake = asyncio.Event()
        self._applier = Applier(providers, intents)
        self._adoption = Adoption(providers, intents, clock, renamed or {}, spared, self.wake)
        self._launcher = Launcher(providers, intents, clock, self._taken_ports)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """Everything there is, in a stable order."""
        return tuple(sorted(self._replicas.values(), key=lambda replica: (replica.workload, replica.ordinal)))

    def want(self, workloads: Iterable[Workload]) -> None:
        """Say what shall run from now on; what is not named is drained and stopped.

        Raises ValueError where two have the same name.
        """
        wanted: dict[str, Workload] = {}
        for workload in workloads:
            if workload.name in wanted:
                raise ValueError(f"two workloads are called {workload.name}; names tell them apart")
            wanted[workload.name] = workload
        self._workloads = wanted
        for place, provider in self._providers.items():
            if isinstance(provider, Prepares):
                provider.expect([Expected(w.serves, w.needs) for w in wanted.values() if w.provider == place])
        self.wake()

    def preparations(self) -> list[tuple[str, Preparation]]:
        """What places get ready for children to come, each with its place's name."""
        return [
            (place, each)
            for place, provider in self._providers.items()
            if isinstance(provider, Prepares) and place not in self.left_out
            for each in provider.preparations()
        ]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """What shall run, with the counts as they are now."""
        return tuple(self._workloads.values())

    def workload(self, name: str) -> Workload:
        """One of them. Raises KeyError for one that is not wanted at all."""
        return self._workloads[name]

    def set_count(self, workload: str, count: int) -> None:
        """Change how many are wanted of a workload. Raises KeyError for one that is not wanted at all."""
        self._workloads[workload] = replace(self._workloads[workload], count=count)
        self.wake()

    def drain(self, child_id: str, *, drain_seconds: float | None = None) -> bool:
        """Let this very replica go, and want one less. False: it is gone, or leaves already, and nothing changes.

        Its requests get `drain_seconds` to finish, where given. Should it fail meanwhile, it is not started again.
        """
        replica = self._replicas.get(child_id)
        if replica is None or not self.stays(replica):
            return False
        if drain_seconds is not None:
            self._put(replace(replica, drain_seconds=drain_seconds))
        self._let_go.add(child_id)
        workload = self._workloads.get(replica.workload)
        if workload is not None:
            self._workloads[workload.name] = replace(workload, count=max(0, workload.count - 1))
        self.wake()
        return True

    def stays(self, replica: Replica) -> bool:
        """Whether nobody has decided yet that it shall leave."""
        return replica.phase not in LEAVING and replica.child_id not in self._let_go

    def report_in_flight(self, counts: Mapping[str, int]) -> None:
        """Open requests by child id, over all gateways; what is not named has none. Decides when a drain is over."""
        self._in_flight = (self._clock.monotonic(), dict(counts))

    def wake(self) -> None:
        """Have the loop look at once."""
        self._wake.set()

    @property
    def left_out(self) -> Mapping[str, str]:
        """Spared providers that could not be asked in `adopt`, and why."""
        return self._adoption.left_out

    @property
    def awaited(self) -> Mapping[str, str]:
        """Providers that have not answered yet, and why. Nothing is started there meanwhile, and nothing ended."""
        return self._adoption.awaited

    async def adopt(self, awaits: Collection[str] | None = None) -> None:
        """Take over what an earlier server left running, and forget what ended meanwhile. Raises SwellError.

        Call it once, after `want` and before the first step. Those that answer are ready when it returns, so that no
        gateway loses a route over a server's restart. Entries of the store that are not the fleet's stay as they are.
        So do those of a spared provider that cannot be asked, which is left out. Of the others, those in `awaits` and
        those that the store knows a replica of are asked again until they answer; any other one must answer now, and
        with None all of them.
        """
        now = self._clock.monotonic()
        for replica in await self._adoption.begin(self._workloads, awaits):
            self._put(replica)
        await self._observe(now, patience_seconds=PROBE_TIMEOUT_SECONDS)
        for replica in self.replicas:
            workload = self._workloads.get(replica.workload)
            is_ready = replica.healthy or workload is None or workload.health is None
            if is_ready and not replica.unseen:
                self._put(replica.to(Phase.READY, now))

    async def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Step until `until` says so, or cancelled."""
        while not until():
            self._wake.clear()
            await self.step(self._clock.monotonic())
            settled = all(r.phase in _SETTLED or r.provider in self.awaited for r in self._replicas.values())
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.idle_step_seconds if settled else self._times.busy_step_seconds):
                    await self._wake.wait()

    async def step(self, now: float) -> list[Action]:
        """Observe, decide, apply. Returns what was done."""
        before = self.replicas, tuple(self.awaited)
        self._look_at_awaited(now)
        await self._observe(now)
        actions = decide(self._workloads, self.replicas, now, self._let_go, self.awaited)
        await self._apply(actions, now)
        await self._rotate_logs(now)
        if actions:
            self.wake()
        if self._on_change is not None and before != (self.replicas, tuple(self.awaited)):
            self._on_change()
        return actions

    async def close(self) -> None:
        """Stop looking. Children go on."""
        await self._adoption.close()
        await self._prober.close()

    def _look_at_awaited(self, now: float) -> None:
        """Take over what runs in places that have answered; what is to start in others waits."""
        if not self.awaited:
            return
        told, lost = self._adoption.look(now)
        for each in told:
            self._put(self._heard_of(each, now))
        for child_id in lost:
            self._drop(child_id)
        for replica in self.replicas:
            place = replica.provider
            if replica.unseen:
                place = self._adoption.awaited_place(replica.child_id) or place
            elif replica.phase is not Phase.PENDING:
                continue
            if place in self.awaited:
                self._put(replica.seen(provider=place, waiting=not_heard(place, self.awaited[place])))
            elif replica.waiting:  # it begins now, and has the time that it would have had
                self._put(replica.seen(waiting="", ordered_at=now))

    def _heard_of(self, told: Replica, now: float) -> Replica:
        """One that was unseen, now that it is known whether it runs; what was decided meanwhile holds.

        One that its place finds not ready may never have been, and gets the time that a start has.
        """
        known = replace(self._replicas[told.child_id], alive=told.alive, unseen=False, waiting="")
        if not told.alive:
            return known
        known = replace(known, provider=told.provider, log_path=told.log_path, handle=told.handle)
        seen, is_told = self._look_at(replace(known, phase=Phase.STARTING, since=now, ordered_at=now), now)
        return seen if is_told and not seen.healthy else known

    async def _observe(self, now: float, patience_seconds: float = PATIENCE_SECONDS) -> None:
        for replica in [each for each in self.replicas if not each.unseen]:
            seen, is_told = self._look_at(replica, now)
            self._put(seen)
            if not is_told:
                self._probe_if_due(seen, now)
        for child_id, answer in (await self._prober.collect(patience_seconds)).items():
            replica_asked = self._replicas.get(child_id)
            if replica_asked is not None:
                self._put(self._heard(replica_asked, answer, now))

    def _look_at(self, replica: Replica, now: float) -> tuple[Replica, bool]:
        """What the provider and the gateways know of it, and whether its health is part of that."""
        is_told = False
        if replica.handle is not None:
            status = self._providers[replica.provider].status(replica.handle)
            replica = replica.seen(
                alive=status.presence is Presence.RUNNING,
                exit_code=status.exit_code,
                address=status.address or replica.address,
                waiting=status.waiting,
                machine=replica.machine if status.machine == OWN_MACHINE else status.machine,
                loss=status.loss or replica.loss,
            )
            is_told = status.ready is not None
            if status.ready is not None and replica.phase in _PROBED:
                replica = self._judged(replica, status.ready, "the place that it runs in finds it not ready", now)
        if replica.phase is Phase.READY and replica.unhealthy_since is None:
            if now - replica.since >= self._times.forgive_seconds:
                replica = replica.seen(failures=0, last_error="")
        elif replica.phase is Phase.DRAINING and self._in_flight is not None:
            at, counts = self._in_flight
            settled = at >= replica.since + self._times.route_settle_seconds
            replica = replica.seen(drained=settled and not counts.get(replica.child_id, 0))
        return replica, is_told

    def _probe_if_due(self, replica: Replica, now: float) -> None:
        workload = self._workloads.get(replica.workload)
        if workload is None or workload.health is None or replica.address is None or replica.phase not in _PROBED:
            return
        every = self._times.probe_ready_seconds if replica.phase is Phase.READY else self._times.busy_step_seconds
        if now - self._probed_at.get(replica.child_id, -every) < every:
            return
        if self._prober.request(replica.child_id, replica.address.url(workload.health.path), replica.key):
            self._probed_at[replica.child_id] = now

    def _heard(self, replica: Replica, answer: Answer, now: float) -> Replica:
        workload = self._workloads.get(replica.workload)
        if workload is None or workload.health is None:
            return replica
        is_ready = answer.status is not None and workload.health.is_ready(answer.status)
        problem = answer.problem or f"status {answer.status}"
        error = f"its health path {workload.health.path} does not answer as it should: {problem}"
        return self._judged(replica, is_ready, error, now)

    def _judged(self, replica: Replica, is_ready: bool, problem: str, now: float) -> Replica:
        """The replica after its health was told; `problem` is what is wrong where it is not ready."""
        if is_ready:
            return replica.seen(healthy=True, unhealthy_since=None)
        if replica.phase is not Phase.READY:
            return replica.seen(healthy=False)
        since = now if replica.unhealthy_since is None else replica.unhealthy_since
        return replica.seen(healthy=False, unhealthy_since=since, last_error=problem)

    async def _apply(self, actions: Iterable[Action], now: float) -> None:
        acts: list[Act] = []
        for action in actions:
            if isinstance(action, Add):
                self._put(self._applier.add(self._workloads[action.workload], action.ordinal, now))
            else:
                acts.append(action)
        kept = await self._applier.forget([self._replicas[act.child_id] for act in acts if act.verb in FORGETTING])
        for act in acts:
            if act.verb is not Verb.START:
                await self._act(act, now, kept.get(act.child_id, ""))
        starting = [self._replicas[act.child_id] for act in acts if act.verb is Verb.START]
        await self._launcher.start([(each, self._workloads[each.workload]) for each in starting], now, self._put)

    async def _act(self, action: Act, now: float, kept: str) -> None:
        replica = self._replicas[action.child_id]
        workload = self._workloads.get(replica.workload)
        after = await self._applier.act(action, replica, workload, now, kept)
        if after is None or after.child_id != action.child_id:
            self._drop(action.child_id)
        if after is not None:
            self._put(after)

    def _taken_ports(self) -> set[int]:
        return {replica.address.port for replica in self._replicas.values() if replica.address is not None}

    async def _rotate_logs(self, now: float) -> None:
        times = self._times
        if self._logs_checked_at is not None and now - self._logs_checked_at < times.log_check_seconds:
            return
        self._logs_checked_at = now
        for replica in self.replicas:
            if replica.handle is not None:
                provider = self._providers[replica.provider]
                await provider.rotate_log(replica.log_path, max_bytes=times.log_bytes, files=times.log_files)

    def _drop(self, child_id: str) -> None:
        del self._replicas[child_id]
        self._let_go.discard(child_id)
        self._probed_at.pop(child_id, None)

    def _put(self, replica: Replica) -> None:
        self._replicas[replica.child_id] = replica
