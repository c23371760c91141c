"""Lives of replicas as the server notes them: through starts, ends, kills of the server and a store that fails."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from swell.clock import ManualClock
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER
from swell.errors import StateError
from swell.metering.infrastructure import cost
from swell.ports.provider import OWN_MACHINE, ChildHandle, Machine
from swell.server.replica_runs import RunDesk, end_runs
from swell.server.writer import Writer
from swell.spec import parse_spec
from swell.state.replica import Phase
from swell.state.replica_runs import ReplicaRun
from swell.testing.memory_store import MemoryStore

START_UNIX = 1_700_000_000.0
START_MS = 1_700_000_000_000
LOG = Path("chat-0.log")
SPEC = """
models:
  - {name: chat, source: a.gguf, usd_per_replica_hour: 1.80, accelerators: [L4]}
  - {name: free, source: b.gguf}
  - {name: theirs, endpoints: ["http://127.0.0.1:1"], replicas: 0..4, usd_per_replica_hour: 2}
server: {external_scaler: {}}
"""


def replica(child_id: str, phase: Phase = Phase.STARTING, **changes: object) -> Replica:
    made = Replica(
        workload="chat", kind="replica", provider="process", ordinal=0, child_id=child_id, fingerprint="",
        log_path=LOG, phase=phase, since=0.0, drain_seconds=0.0, stop_grace_seconds=0.0,
        handle=ChildHandle(child_id, LOG, 7, 1.0), alive=True,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]  # the test's own shorthand


@dataclass
class RunWorld:
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(START_UNIX))
    writer: Writer = field(default_factory=Writer)

    async def server(self, *adopted: Replica) -> RunDesk:
        """A server begins; what an earlier one had in mind is gone."""
        desk = RunDesk(parse_spec(SPEC, origin="swell.yaml").models, self.store, self.writer, self.clock)
        await desk.begin(adopted)
        await desk.step()
        return desk

    def only(self) -> ReplicaRun:
        [run] = self.store.list_runs()
        return run


@pytest.fixture
async def world() -> AsyncIterator[RunWorld]:
    made = RunWorld()
    yield made
    made.writer.close()


async def test_a_life_is_noted_from_start_to_end(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a")])
    assert desk.loop.wake.is_set()
    await desk.step()
    assert world.only() == ReplicaRun(
        replica_id="a", model="chat", provider="process", market="own", accelerator="L4",
        usd_nanos_per_hour=1_800_000_000, started_unix_ms=START_MS, seen_unix_ms=START_MS,
    )  # fmt: skip
    world.clock.advance(20)
    desk.look([replica("a", Phase.READY)])
    await desk.step()
    world.clock.advance(3580)
    desk.look([replica("a", Phase.DRAINING)])
    desk.look([])
    await desk.step()
    run = world.only()
    assert (run.ready_unix_ms, run.ended_unix_ms) == (START_MS + 20_000, START_MS + 3_600_000)
    assert cost(run, 0, 2 * START_MS) == 1_800_000_000
    desk.look([])
    await desk.step()
    assert world.only() == run


async def test_what_runs_is_seen_at_every_turn_and_when_somebody_asks(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a")])
    world.clock.advance(30)
    await desk.step()
    assert world.only().seen_unix_ms == START_MS + 30_000
    world.clock.advance(7)
    [run] = await desk.list(None, None)
    assert run.seen_unix_ms == START_MS + 37_000
    assert await desk.list(START_MS + 37_000, None) == []


async def test_only_processes_of_replicas_that_run_cost_something(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([
        replica("worker", kind=GATEWAY_WORKER), replica("far", Phase.READY, provider="external"),
        replica("pending", Phase.PENDING, handle=None, alive=False), replica("dead", Phase.FAILED, alive=False),
        replica("free", workload="free"), replica("gone", workload="no longer in the file"),
    ])  # fmt: skip
    await desk.step()
    assert {run.replica_id: run.usd_nanos_per_hour for run in world.store.list_runs()} == {"free": 0, "gone": 0}


async def test_a_replica_that_fails_ends_its_run_and_its_successor_begins_another(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a")])
    world.clock.advance(5)
    desk.look([replica("a", Phase.FAILED, alive=False)])
    world.clock.advance(1)
    desk.look([replica("b")])
    await desk.step()
    first, second = world.store.list_runs()
    assert (first.ready_unix_ms, first.ended_unix_ms) == (None, START_MS + 5000)
    assert (second.replica_id, second.started_unix_ms, second.ended_unix_ms) == ("b", START_MS + 6000, None)


async def test_after_a_kill_adopted_runs_go_on_and_the_others_end_when_they_were_seen_last(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("stays", Phase.READY), replica("dies")])
    world.clock.advance(30)
    await desk.step()
    world.clock.advance(100)
    desk = await world.server(replica("stays", Phase.READY), replica("new to us", Phase.READY))
    runs = {run.replica_id: run for run in world.store.list_runs()}
    assert runs["dies"].ended_unix_ms == START_MS + 30_000
    assert (runs["stays"].started_unix_ms, runs["stays"].ended_unix_ms) == (START_MS, None)
    assert runs["stays"].seen_unix_ms == START_MS + 130_000
    assert runs["new to us"].ready_unix_ms == runs["new to us"].started_unix_ms == START_MS + 130_000
    desk.look([])
    await desk.step()
    assert world.store.open_runs() == []


async def test_one_whose_place_does_not_answer_costs_and_is_not_said_to_have_been_ready(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("far")])
    await desk.step()
    world.clock.advance(100)
    unseen = replica("far", Phase.READY, handle=None, alive=True, unseen=True)
    desk = await world.server(unseen)
    (run,) = world.store.list_runs()
    assert (run.started_unix_ms, run.ready_unix_ms, run.ended_unix_ms) == (START_MS, None, None)
    desk.look([unseen, replica("not known", Phase.READY, handle=None, alive=True, unseen=True)])
    await desk.step()
    assert world.store.list_runs()[1].ready_unix_ms is None
    world.clock.advance(10)
    desk.look([replica("far", Phase.READY)])
    await desk.step()
    run = world.store.list_runs()[0]
    assert (run.started_unix_ms, run.ready_unix_ms) == (START_MS, START_MS + 110_000)


async def test_what_the_store_did_not_take_is_stored_by_the_next_turn(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a")])
    world.store.fail_next(StateError("the disk is gone"))
    with pytest.raises(StateError):
        await desk.step()
    world.clock.advance(9)
    desk.look([])
    world.store.fail_next(StateError("the disk is gone"))
    with pytest.raises(StateError):
        await desk.step()
    await desk.step()
    assert (world.only().started_unix_ms, world.only().ended_unix_ms) == (START_MS, START_MS + 9000)


async def test_leftovers_that_are_stopped_end_then(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a"), replica("b")])
    await desk.step()
    end_runs(world.store, {"a"}, START_UNIX + 50)
    ends = {run.replica_id: run.ended_unix_ms for run in world.store.list_runs()}
    assert ends == {"a": START_MS + 50_000, "b": None}


async def test_what_the_provider_says_of_the_machine_is_stored_when_it_is_known(world: RunWorld) -> None:
    desk = await world.server()
    desk.look([replica("a")])
    await desk.step()
    assert (world.only().market, world.only().accelerator) == ("own", "L4")
    on_spot = replica("a", Phase.READY, machine=Machine("spot", "us-east1-b", "A100-80GB"))
    desk.look([on_spot])
    await desk.step()
    assert (world.only().market, world.only().accelerator) == ("spot", "A100-80GB")
    desk = await world.server(replace(on_spot, machine=OWN_MACHINE))
    assert world.only().market == "spot", "what is not known yet takes nothing back"


async def test_what_others_run_because_it_was_ordered_is_noted_from_the_order_on(world: RunWorld) -> None:
    desk = await world.server()
    theirs = replica("t", workload="theirs", provider="external", handle=ChildHandle("t", LOG, 0, 0.0))
    desk.look([theirs, replica("far", Phase.READY, workload="far", provider="external")])
    world.clock.advance(1800)
    desk.look([replace(theirs, phase=Phase.READY)])
    world.clock.advance(1800)
    desk.look([])
    await desk.step()
    run = world.only()
    assert (run.replica_id, run.model, run.provider) == ("t", "theirs", "external")
    assert run.ready_unix_ms == START_MS + 1_800_000
    assert cost(run, START_MS, START_MS + 86_400_000) == 2_000_000_000
