"""A fleet on a cluster of make-believe, in virtual time and without sockets. What survives a server is the world's."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from kube_children import METRICS, SETTINGS

from swell.adapters.providers.kubernetes import names, objects
from swell.adapters.providers.kubernetes.api import ApiProblem, Change, Kind, Page
from swell.adapters.providers.kubernetes.confirmed import ConfirmedApi
from swell.adapters.providers.kubernetes.pacing import Pace
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.clock import ManualClock
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.replica import Replica
from swell.control.workload import REPLICA, HealthCheck, Slot, Workload
from swell.errors import AlreadyGone
from swell.ports.engine import LaunchCommand
from swell.ports.provider import Confirm, Needs, unquestioned
from swell.state.records import ProcessRecord, StartedProcess
from swell.testing.cluster import CertManager, Controllers, FakeCluster, Refused

STEP_SECONDS = 0.25
TURNS = 40  # of the event loop, in which everything that was begun comes to its end
TYPES: Mapping[str, type[Any]] = {
    "pods": objects.Pod,
    "deployments": objects.Deployment,
    "leaderworkersets": objects.LeaderWorkerSet,
    "nodes": objects.Node,
    "secrets": objects.Secret,
    "certificates": objects.Plain,
    "jobs": objects.Job,
    "daemonsets": objects.DaemonSet,
    "poddisruptionbudgets": objects.Plain,
}


class ServerKilledError(BaseException):
    """The server is gone in the middle of something: nothing catches this."""


class Doom:
    """When the server dies: at its `kill_at`th write, to cluster or store, before it has an effect or after it."""

    def __init__(self) -> None:
        self.writes = 0
        self.kill_at: int | None = None
        self.dies_after = False
        self.is_dead = False
        self.deaths = 0

    def begin(self) -> None:
        """A write is about to have its effect."""
        if self.is_dead:
            raise ServerKilledError
        self.writes += 1
        if self.writes == self.kill_at and not self.dies_after:
            self.die()

    def done(self) -> None:
        """It has had it."""
        if self.writes == self.kill_at and self.dies_after:
            self.die()

    def die(self) -> None:
        """Now."""
        self.is_dead = True
        self.deaths += 1
        raise ServerKilledError


class DirectApi:
    """The cluster without HTTP."""

    def __init__(self, cluster: FakeCluster, doom: Doom) -> None:
        self.cluster = cluster
        self.doom = doom
        self.writes = 0

    async def pages(self, kind: Kind, query: str) -> AsyncIterator[Page]:
        self._ask("list", kind)
        version = str(self.cluster.version)
        yield Page(version, [self._read(kind, item) for item in self.cluster.list(kind.value, _selector(query))])

    async def watch(self, kind: Kind, query: str, version: str) -> AsyncIterator[tuple[Change, objects.Read]]:
        self._ask("watch", kind)
        try:
            async for change, item in self.cluster.watch(kind.value, _selector(query), int(version)):
                yield Change(change), self._read(kind, item)
        except Refused as refused:
            raise ApiProblem(refused.status, refused.message) from refused

    async def apply(
        self, kind: Kind, name: str, manifest: Mapping[str, Any], *, manager: str, force: bool = True
    ) -> objects.Read:
        self._write("patch", kind)
        plain = msgspec.json.decode(msgspec.json.encode(manifest))
        try:
            item = self.cluster.apply(kind.value, name, plain, manager=manager, force=force)
        except Refused as refused:
            raise ApiProblem(refused.status, refused.message) from refused
        self.doom.done()
        return self._read(kind, item)

    async def annotate(self, pod: str, patch: Mapping[str, Any]) -> None:
        self._write("patch", Kind.PODS)
        try:
            self.cluster.patch("pods", pod, patch)
        except Refused as refused:
            raise ApiProblem(refused.status, refused.message) from refused
        self.doom.done()

    async def delete(self, kind: Kind, name: str, *, grace_seconds: int | None = None) -> None:
        self._write("delete", kind)
        try:
            self.cluster.delete(kind.value, name, grace_seconds)
        except Refused as refused:
            raise ApiProblem(refused.status, refused.message) from refused
        self.doom.done()

    async def read_log(self, pod: str, container: str, *, max_bytes: int, lines: int) -> str:
        return self.cluster.logs.get(pod, "")

    async def close(self) -> None:
        return

    def _ask(self, verb: str, kind: Kind) -> None:
        if self.doom.is_dead:
            raise ServerKilledError
        try:
            self.cluster.request(verb, kind.value)
        except Refused as refused:
            raise ApiProblem(refused.status, refused.message, refused.retry_after) from refused

    def _write(self, verb: str, kind: Kind) -> None:
        self._ask(verb, kind)
        self.writes += 1
        self.doom.begin()

    def _read(self, kind: Kind, item: Any) -> Any:
        return msgspec.convert(item, TYPES[kind.value])


class MemoryIntents:
    """The store's processes."""

    def __init__(self, doom: Doom) -> None:
        self.records: dict[str, ProcessRecord] = {}
        self._doom = doom

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        self._doom.begin()
        self.records |= {process.process_id: process for process in processes}
        self._doom.done()

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        self._doom.begin()
        for process_id, pid, start_time in started:
            if process_id not in self.records:
                raise AlreadyGone(process_id)
            self.records[process_id] = msgspec.structs.replace(self.records[process_id], pid=pid, start_time=start_time)
        self._doom.done()

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        self._doom.begin()
        for process_id in process_ids:
            self.records.pop(process_id, None)
        self._doom.done()

    async def list_processes(self) -> list[ProcessRecord]:
        return list(self.records.values())


class World:
    """A cluster, a store, and a server that can be killed and started again. `async with` it."""

    def __init__(
        self,
        *,
        nodes: int = 4,
        pace: Pace | None = None,
        confirm: Confirm = unquestioned,
        settings: ClusterSettings = SETTINGS,
    ) -> None:
        self.clock = ManualClock()
        self.cluster = FakeCluster(self.clock)
        self.controllers = Controllers(self.cluster, names.WORKLOAD)
        for number in range(nodes):
            self.controllers.add_node(f"node-{number}", zone=f"zone-{number % 2}", gpu=8)
        self.cert_manager = CertManager(self.cluster)
        self.settings = settings
        self.doom = Doom()
        self.intents = MemoryIntents(self.doom)
        self.pace = pace
        self.confirm = confirm
        self.wanted: tuple[Workload, ...] = ()
        self.place = "cluster"
        self.renamed: dict[str, str] = {}  # names that the place had before
        self.awaits = False  # whether a server goes on without a place that does not answer
        self._sleepers: list[tuple[float, asyncio.Event]] = []
        self.begin()

    def begin(self) -> None:
        """A server that knows nothing yet."""
        self.doom.is_dead = False
        self.api = DirectApi(self.cluster, self.doom)
        api = ConfirmedApi(self.api, self.confirm)
        self.provider = KubernetesProvider(api, self.settings, clock=self.clock, pace=self.pace, pause=self._pause)
        self.fleet = Fleet(
            providers={self.place: self.provider},
            renamed=self.renamed,
            intents=self.intents,
            ask=_nobody,
            clock=self.clock,
        )

    async def __aenter__(self) -> "World":
        await self.fleet.adopt()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """End the server as a signal would: nothing that it had begun goes on."""
        self.doom.is_dead = True
        await self.fleet.close()
        await self.provider.close()

    async def restart(self) -> None:
        """Kill it, and begin another that wants the same."""
        await self.kill()
        self.begin()
        self.fleet.want(self.wanted)
        adoption = asyncio.ensure_future(self.fleet.adopt(() if self.awaits else None))
        await self.quiet()
        with suppress(ServerKilledError):
            await adoption

    async def rename(self, place: str, *, is_remembered: bool = True) -> None:
        """Restart it with the place called otherwise. `is_remembered`: what it was called before is known yet."""
        self.renamed = {before: place for before in (*self.renamed, self.place) if is_remembered and before != place}
        self.place = place
        # As `model_workload` has it, the name of the place is part of what tells launch lines apart.
        self.wanted = tuple(
            replace(each, provider=place, fingerprint=f"{each.fingerprint}-{place}") for each in self.wanted
        )
        await self.restart()

    def want(self, *workloads: Workload) -> None:
        """What shall run."""
        self.wanted = workloads
        self.fleet.want(workloads)

    async def steps(self, count: int = 1, seconds: float = STEP_SECONDS) -> None:
        """Let time pass; where the server dies on the way, another one is started."""
        for _ in range(count):
            self.pass_time(seconds)
            self.cert_manager.step()
            self.controllers.step()
            self.provider.wake()
            await self.quiet()
            with suppress(ServerKilledError):
                self.fleet.report_in_flight({})
                if not self.doom.is_dead:
                    await self.fleet.step(self.clock.monotonic())
                await self.quiet()
            while self.doom.is_dead:
                await self.restart()
            self.controllers.step()
            await self.quiet()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        due = [over for until, over in self._sleepers if until <= self.clock.monotonic()]
        self._sleepers = [each for each in self._sleepers if each[1] not in due]
        for over in due:
            over.set()

    async def quiet(self) -> None:
        """Until nothing is left to do at this moment."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def _pause(self, seconds: float) -> None:
        over = asyncio.Event()
        self._sleepers.append((self.clock.monotonic() + seconds, over))
        await over.wait()

    def workload(self, name: str = "chat", count: int = 1, fingerprint: str = "v1", **changes: Any) -> Workload:
        """Replicas of a model."""

        def launch(slot: Slot) -> LaunchCommand:
            return LaunchCommand(("engine", f"--port={slot.port}", fingerprint), {"ENGINE_KEY": slot.key})

        settings: dict[str, Any] = {
            "name": name,
            "kind": REPLICA,
            "count": count,
            "provider": "cluster",
            "log_dir": Path("logs"),
            "fingerprint": fingerprint,
            "launch": launch,
            "key": f"key of {name}",
            "health": HealthCheck("/health", lambda status: status == 200),
            "needs": Needs(image="engine"),
            "metrics": METRICS,
            "drain_seconds": 2.0,
            "stop_grace_seconds": 1.0,
            "unhealthy_seconds": 5.0,
            **changes,
        }
        return Workload(**settings)

    def ready(self) -> list[Replica]:
        """Replicas that requests may be sent to."""
        return [replica for replica in self.fleet.replicas if replica.routable]

    def pods(self, workload: str = "") -> list[dict[str, Any]]:
        """Pods, of one workload or of all, that are not ending."""
        return [
            pod
            for pod in self.cluster.objects["pods"].values()
            if "deletionTimestamp" not in pod["metadata"]
            and (not workload or pod["metadata"]["labels"][names.WORKLOAD] == workload)
        ]

    def claims(self) -> Counter[str]:
        """By child id, the Pods whose running container is said to be its."""
        found: Counter[str] = Counter()
        for pod in self.pods():
            annotations = pod["metadata"].get("annotations", {})
            status = next(iter(pod["status"].get("containerStatuses", [])), None)
            if status is not None and annotations.get(names.RUN) == str(status["restartCount"]):
                found[annotations[names.CHILD]] += 1
        return found

    def asked_for(self, workload: str) -> int:
        """Pods that Deployments ask for."""
        return sum(
            item["spec"]["replicas"]
            for item in self.cluster.objects["deployments"].values()
            if item["metadata"]["labels"][names.WORKLOAD] == workload
        )

    def check(self, most: Mapping[str, int]) -> None:
        """What holds at any time: nobody has two Pods, and no more are asked for than ever were wanted."""
        assert all(count == 1 for count in self.claims().values()), self.claims()
        for name, count in most.items():
            assert self.asked_for(name) <= count, f"{name}: {self.asked_for(name)} asked for, {count} wanted at most"

    def check_settled(self) -> None:
        """What holds once the faults are over: as many as wanted, each with its Pod, and nothing else."""
        ready = Counter(replica.workload for replica in self.ready())
        assert ready == Counter({each.name: each.count for each in self.wanted if each.count})
        assert self.claims() == Counter(replica.child_id for replica in self.ready())
        assert len(self.pods()) == len(self.ready())
        assert set(self.intents.records) == {replica.child_id for replica in self.fleet.replicas}
        deployments = self.cluster.objects["deployments"]
        assert set(self.cluster.objects["secrets"]) == set(deployments)
        current = {names.object_name(each.name, each.fingerprint) for each in self.wanted}
        assert {name for name, item in deployments.items() if item["spec"]["replicas"]} <= current


async def _nobody(url: str, key: str) -> Answer:
    return Answer(None, "kubelets ask")


def _selector(query: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in query.split(",") if pair)
