"""The ways in which a server ends, and what of its children ends with it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from swell.clock import ManualClock
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.workload import GATEWAY_WORKER, Slot, Workload
from swell.errors import AtCapacity, StoreLost
from swell.ports.engine import LaunchCommand
from swell.ports.provider import Preparation, Progress
from swell.server import draining
from swell.server.draining import Draining
from swell.server.ending import Ending, Way
from swell.state.records import ProcessRecord, StartedProcess
from swell.testing.fake_provider import FakeMachine, FakeProvider

PATIENCE_SECONDS = 10.0


class Intents:
    """The store's processes, until it is another server's."""

    def __init__(self) -> None:
        self.records: dict[str, ProcessRecord] = {}
        self.lost: StoreLost | None = None

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    async def record_processes(self, processes: Sequence[ProcessRecord]) -> None:
        self._check()
        self.records |= {process.process_id: process for process in processes}

    async def record_started(self, started: Sequence[StartedProcess]) -> None:
        self._check()
        for process_id, pid, start_time in started:
            self.records[process_id] = msgspec.structs.replace(self.records[process_id], pid=pid, start_time=start_time)

    async def remove_processes(self, process_ids: Sequence[str]) -> None:
        self._check()
        for process_id in process_ids:
            self.records.pop(process_id, None)

    async def list_processes(self) -> list[ProcessRecord]:
        return list(self.records.values())


@dataclass
class Scene:
    """A fleet of one gateway worker and two replicas, and its end."""

    folder: Path
    clock: ManualClock = field(default_factory=ManualClock)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    audited: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    noted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.machine, self.intents = FakeMachine(self.clock), Intents()
        self.providers = {"process": FakeProvider(self.machine)}
        self.fleet = Fleet(providers=self.providers, intents=self.intents, ask=_nobody, clock=self.clock)
        self.ending = Ending(self.changed, self.said.append, self._audit, lambda: None, on_signal=Way.LEAVE)
        self.draining = Draining(
            self.fleet, self.providers, self.changed, lambda: False, self.said.append, self.noted.append
        )
        self.models = [self._workload("chat", "replica", 2)]

    def _audit(self, act: str, principal: str) -> None:
        self.audited.append(act)

    def _workload(self, name: str, kind: str, count: int) -> Workload:
        def launch(slot: Slot) -> LaunchCommand:
            return LaunchCommand((name, str(slot.port)))

        return Workload(
            name=name, kind=kind, count=count, provider="process", log_dir=self.folder, fingerprint="v1",
            launch=launch, drain_seconds=0.5, stop_grace_seconds=1.0,
        )  # fmt: skip

    async def begin(self) -> None:
        self.fleet.want([*self.models, self._workload("gateway", GATEWAY_WORKER, 1)])
        await self.fleet.adopt()
        await self.steps(3)

    async def steps(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(0.25)
            await self.fleet.step(self.clock.monotonic())
            self.changed.set()
            await asyncio.sleep(0)

    async def drained(self) -> None:
        """What the fleet's loop does beside it."""
        task = asyncio.ensure_future(self.draining.drain(self.ending, 5.0, self.models))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not task.done():
                await self.steps()
        await task

    def living(self) -> list[str]:
        """Workloads of what runs on the machine."""
        kinds = {replica.child_id: replica.workload for replica in self.fleet.replicas}
        return sorted(kinds.get(child_id, "?") for child_id in self.machine.living)


async def _nobody(url: str, key: str) -> Answer:
    return Answer(None, "nobody listens")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    await made.begin()
    assert made.living() == ["chat", "chat", "gateway"]
    yield made
    await made.fleet.close()


async def test_down_ends_everything(scene: Scene) -> None:
    scene.ending.request("a person")
    assert scene.ending.way is Way.DOWN
    await scene.drained()
    assert scene.living() == []
    assert scene.intents.records == {}
    assert scene.audited == ["down"]


async def test_down_waits_until_what_was_prepared_has_gone_and_leaving_does_not(scene: Scene) -> None:
    scene.machine.preparations = (Preparation("image", "engine:1", (), Progress.LEAVING),)
    scene.ending.request("a signal", Way.LEAVE)
    await scene.drained()
    assert {each.model for each in scene.machine.expected} == {"chat"}, "it is for the next one"
    scene.ending.request("a person")
    task = asyncio.ensure_future(scene.draining.drain(scene.ending, 5.0, scene.models))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while scene.fleet.replicas:
            await scene.steps()
        assert not task.done()
        assert scene.machine.expected == ()
        scene.machine.preparations = ()
        await task
    assert scene.said == []


async def test_what_was_prepared_and_does_not_go_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "PREPARED_SECONDS", 0.0)
    by_hand = "kubectl delete jobs,daemonsets -n models -l swell.internal/place=process"
    scene.machine.preparations = (
        Preparation("image", "engine:1", (), Progress.LEAVING),
        Preparation("model", "model-1", (), Progress.LEAVING, "the cluster's API says: no", by_hand),
        Preparation("model", "model-2", (), Progress.LEAVING, "", by_hand),
    )
    scene.ending.request("a person")
    await scene.drained()
    assert scene.said == [
        "Not everything that was prepared has gone: image engine:1 of process, model model-1 of process "
        f"(the cluster's API says: no), model model-2 of process. To delete it, run: {by_hand}"
    ]


async def test_one_that_leaves_ends_its_workers_and_the_next_one_finds_the_replicas(scene: Scene) -> None:
    scene.ending.request("a signal", Way.LEAVE)
    await scene.drained()
    assert scene.living() == ["chat", "chat"]
    kept = set(scene.intents.records)
    assert len(kept) == 2
    following = Fleet(
        providers={"process": FakeProvider(scene.machine)}, intents=scene.intents, ask=_nobody, clock=scene.clock
    )
    following.want(scene.models)
    await following.adopt()
    assert {replica.child_id for replica in following.replicas} == kept
    assert all(replica.routable for replica in following.replicas)
    await following.close()


async def test_a_command_that_comes_while_it_leaves_ends_the_replicas_too(scene: Scene) -> None:
    scene.ending.request("a signal", Way.LEAVE)
    scene.ending.request("a person")
    scene.ending.request("another signal", Way.LEAVE)
    assert scene.ending.way is Way.DOWN
    await scene.drained()
    assert scene.living() == []
    assert scene.audited == ["leave", "down"]


async def test_one_that_was_ousted_ends_its_workers_without_the_store_and_nothing_else(scene: Scene) -> None:
    before = dict(scene.intents.records)
    scene.intents.lost = StoreLost("another server has used the store")
    scene.ending.lose()
    assert (scene.ending.way, scene.ending.told) == (Way.LOST, None)
    await scene.drained()
    assert [name for name in scene.living() if name != "gateway"] == ["chat", "chat"]
    assert "gateway" not in scene.living()
    assert scene.intents.records == before
    assert scene.audited == []


async def test_being_ousted_while_it_drains_keeps_the_replicas(scene: Scene) -> None:
    scene.ending.request("a person")
    scene.ending.lose()
    await scene.drained()
    assert scene.living() == ["chat", "chat"]
    assert scene.ending.told is Way.DOWN, "it does not wait to lead again"


async def test_hurrying_ends_what_ends_anyway(scene: Scene) -> None:
    graces: dict[str, float] = {}
    stop = scene.providers["process"].stop

    async def noted(handle: Any, *, grace_seconds: float) -> None:
        graces[handle.child_id] = grace_seconds
        await stop(handle, grace_seconds=grace_seconds)

    scene.providers["process"].stop = noted  # type: ignore[method-assign]
    await scene.draining.hurry(Way.LEAVE)
    assert len(graces) == 1
    await scene.draining.hurry(Way.DOWN)
    assert len(graces) == 3


async def test_what_does_not_end_in_time_is_told_with_what_keeps_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "END_MARGIN_SECONDS", -1.5)  # as long as the replicas have
    kept = next(replica for replica in scene.fleet.replicas if replica.log_path.stem == "chat-0")
    scene.machine.waiting[kept.child_id] = "its LeaderWorkerSet to be deleted: forbidden"
    await scene.steps()
    scene.ending.request("a person")
    await scene.drained()
    assert scene.said == ["Not everything ended in time: chat-0 (its LeaderWorkerSet to be deleted: forbidden), chat-1"]
    assert scene.noted == scene.said


async def test_what_may_run_in_a_place_that_does_not_answer_is_named_and_not_waited_for(scene: Scene) -> None:
    """A successor that cannot ask the place drains what it can."""
    await scene.fleet.close()
    known = {name: each for name, each in scene.intents.records.items() if each.kind != GATEWAY_WORKER}
    scene.intents.records = dict(known)

    def away(call: str) -> None:
        if call in ("adopt", "end_orphans"):
            raise AtCapacity("nobody answers", retry_after_seconds=1.0)

    near = FakeMachine(scene.clock)
    scene.providers = {"process": FakeProvider(scene.machine, away), "near": FakeProvider(near)}
    scene.fleet = Fleet(providers=scene.providers, intents=scene.intents, ask=_nobody, clock=scene.clock)
    scene.draining = Draining(
        scene.fleet, scene.providers, scene.changed, lambda: False, scene.said.append, scene.noted.append
    )
    scene.fleet.want([*scene.models, replace(scene._workload("other", "replica", 1), provider="near")])
    await scene.fleet.adopt(())
    await scene.steps(3)
    assert len(near.living) == 1
    scene.ending.request("a person")
    await scene.drained()
    assert (near.living, len(scene.machine.living)) == ({}, 3)
    assert scene.intents.records == known
    (noted,) = scene.noted
    assert noted.startswith(
        "process has not answered since this server began: nobody answers. What may run there is left"
    )
    assert "swell down --forget process" in noted
