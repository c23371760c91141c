"""What the server notes of its replicas' lives, so that they can be paid for: start, readiness, end.

A run begins when its process is seen and ends when it is seen to be gone; both are stored at once. While it goes on,
`seen_unix_ms` is stored every SEEN_SECONDS. After a server that was killed, the next one goes on with the runs of the
replicas that it adopts, over the time in which no server ran. The run of a replica that is gone by then ends when it
was seen last: too early by at most SEEN_SECONDS where it went with the server, and by as long as it outlived it
otherwise. Nothing is ever counted that is not known to have run.

A price holds for the runs that begin under it: a changed file changes nothing that runs already.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from swell.clock import Clock
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER
from swell.errors import SwellError
from swell.ports.provider import OWN_MACHINE
from swell.ports.store import Store
from swell.server.live_pools import NO_POOLS, PoolsByModel
from swell.server.loops import Loop
from swell.server.writer import Writer
from swell.spec import ModelSpec
from swell.state.replica import Phase
from swell.state.replica_runs import ReplicaRun
from swell.units import usd_nanos

SEEN_SECONDS = 30.0


class RunDesk:
    """Made once per server. Everything is called on the event loop; `loop` is to be run. `noted` gets every change."""

    def __init__(
        self,
        models: Sequence[ModelSpec],
        store: Store,
        writer: Writer,
        clock: Clock,
        noted: Callable[[ReplicaRun], None] = lambda run: None,
        pools: PoolsByModel = NO_POOLS,
    ) -> None:
        self._models = {model.name: model for model in models}
        self._pools = {(name, each.pool.name): each for name, of_model in pools.items() for each in of_model}
        self._store = store
        self._writer = writer
        self._clock = clock
        self._noted = noted
        self._runs: dict[str, ReplicaRun] = {}  # that go on, or whose end is not stored yet
        self._unsaved: set[str] = set()
        self.loop = Loop("replica runs", self.step, SEEN_SECONDS, clock)

    async def begin(self, adopted: Sequence[Replica]) -> None:
        """Go on with the runs of adopted replicas; those of others ended when they were seen last."""
        running = {replica.child_id for replica in self._costly(adopted)}
        for run in await self._writer.call(self._store.open_runs):
            self._put(run if run.replica_id in running else replace(run, ended_unix_ms=run.until_unix_ms))
        self.look(adopted)

    def look(self, replicas: Iterable[Replica]) -> None:
        """Note who began, got ready or ended since the last look."""
        now = self._now_ms()
        running = {replica.child_id: replica for replica in self._costly(replicas)}
        for run in [run for run in self._runs.values() if run.ended_unix_ms is None]:
            replica = running.pop(run.replica_id, None)
            if replica is None:
                end = max(now, run.until_unix_ms)
                self._put(replace(run, ended_unix_ms=end, seen_unix_ms=end))
                continue
            found = run if replica.machine == OWN_MACHINE else replace(run, **self._machine(replica))
            if run.ready_unix_ms is None and replica.phase is Phase.READY and not replica.unseen:
                found = replace(found, ready_unix_ms=now)
            if found != run:
                self._put(found)
        for replica in running.values():
            self._put(self._begun(replica, now))
        if self._unsaved:
            self.loop.wake.set()

    async def step(self, now: float = 0.0) -> None:
        """Store what changed, and that what runs was seen. Raises SwellError; then the next step does it."""
        seen = self._now_ms()
        for run in [run for run in self._runs.values() if run.ended_unix_ms is None]:
            self._put(replace(run, seen_unix_ms=max(seen, run.seen_unix_ms)))
        names, self._unsaved = self._unsaved, set()
        runs = [self._runs[name] for name in sorted(names) if name in self._runs]
        try:
            await self._writer.call(lambda: self._store.put_runs(runs))
        except SwellError:
            self._unsaved |= names
            raise
        for run in runs:
            if run.ended_unix_ms is not None:
                self._runs.pop(run.replica_id, None)

    async def list(self, since_unix_ms: int | None, until_unix_ms: int | None) -> Sequence[ReplicaRun]:
        """What is stored of a time, up to now."""
        await self.step()
        return await self._writer.call(lambda: self._store.list_runs(since_unix_ms, until_unix_ms))

    def _begun(self, replica: Replica, now: int) -> ReplicaRun:
        return ReplicaRun(
            replica_id=replica.child_id,
            model=replica.serves,
            provider=replica.provider,
            **self._machine(replica),
            usd_nanos_per_hour=self._price(replica),
            started_unix_ms=now,
            ready_unix_ms=now if replica.phase is Phase.READY and not replica.unseen else None,
            seen_unix_ms=now,
        )

    def _price(self, replica: Replica) -> int:
        pool = self._pools.get((replica.serves, replica.pool))
        if pool is not None:
            return pool.usd_nanos_per_hour
        model = self._models.get(replica.serves)  # None: adopted, and no longer in the file
        return 0 if model is None or model.usd_per_replica_hour is None else usd_nanos(model.usd_per_replica_hour)

    def _machine(self, replica: Replica) -> dict[str, Any]:
        """What it runs on, as far as its provider says by now, or the file."""
        model, machine = self._models.get(replica.serves), replica.machine
        accelerators = () if model is None else model.accelerators
        accelerator = machine.accelerator or (accelerators[0] if len(accelerators) == 1 else "")
        return {"market": machine.market, "accelerator": accelerator}

    def _costly(self, replicas: Iterable[Replica]) -> Iterable[Replica]:
        """Those that run because Swell wants them, from when they are asked for where somebody else runs them."""
        for replica in replicas:
            model = self._models.get(replica.serves)
            is_others = replica.provider == "external" and not (model is not None and model.is_advised)
            runs = (replica.handle is not None and replica.alive) or replica.unseen
            if replica.kind != GATEWAY_WORKER and not is_others and runs:
                yield replica

    def _put(self, run: ReplicaRun) -> None:
        self._runs[run.replica_id] = run
        self._unsaved.add(run.replica_id)
        self._noted(run)

    def _now_ms(self) -> int:
        return int(self._clock.unix() * 1000)


def end_runs(store: Store, child_ids: Collection[str], now_unix: float) -> None:
    """Note that these were ended, where no server is there to do it."""
    now = int(now_unix * 1000)
    ended = [
        replace(run, ended_unix_ms=max(now, run.until_unix_ms))
        for run in store.open_runs()
        if run.replica_id in child_ids
    ]
    store.put_runs(ended)
