"""Whatever goes wrong in whatever order: the fleet comes to what is wanted, starts nothing twice, leaves no orphan."""

import asyncio
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fleet_world import ServerKilledError, World
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.errors import AtCapacity, LaunchFailed, StateError

Operation = (
    tuple[Literal["step"], int]
    | tuple[Literal["crash"], int]
    | tuple[Literal["kill the server at call"], int]
    | tuple[Literal["want"], int, int, int]
    | tuple[Literal["refuse"], bool]
    | tuple[Literal["crash at start"], int]
    | tuple[Literal["stubborn"], bool]
    | tuple[Literal["store"], bool]
    | tuple[Literal["sick"], int]
    | tuple[Literal["drained"]]
    | tuple[Literal["order"], int]
    | tuple[Literal["let go"], int]
    | tuple[Literal["away"], bool]
)

operations: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(st.just("step"), st.integers(1, 12)),
    st.tuples(st.just("crash"), st.integers(0, 5)),
    st.tuples(st.just("kill the server at call"), st.integers(1, 8)),
    st.tuples(st.just("want"), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)),
    st.tuples(st.just("refuse"), st.booleans()),
    st.tuples(st.just("crash at start"), st.integers(1, 2)),
    st.tuples(st.just("stubborn"), st.booleans()),
    st.tuples(st.just("store"), st.booleans()),
    st.tuples(st.just("sick"), st.integers(0, 5)),
    st.tuples(st.just("drained")),
    st.tuples(st.just("order"), st.integers(0, 2)),
    st.tuples(st.just("let go"), st.integers(0, 5)),
    st.tuples(st.just("away"), st.booleans()),
)


class _Run:
    """One sequence of operations against one world, with the invariants checked after every step."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.wanted: tuple[Workload, ...] = ()
        self.gone: set[str] = set()  # that were let go by name and are gone
        self.let_go: set[str] = set()

    async def play(self, sequence: list[Operation]) -> None:
        for operation in sequence:
            try:
                await self._do(operation)
            except ServerKilledError:
                await self._restart()
            self._check()

    async def _do(self, operation: Operation) -> None:
        world = self.world
        match operation:
            case ("step", count):
                await world.steps(count)
            case ("crash", index):
                living = sorted(world.machine.living)
                if index < len(living):
                    world.machine.crash(living[index])
            case ("kill the server at call", call):
                world.kill_at_call = world.calls + call
            case ("want", chats, others, version):
                patience = {"drain_seconds": 2.0, "unhealthy_seconds": 3.0, "start_timeout_seconds": 5.0}
                chat = world.workload("chat", chats, f"v{version}", **patience)
                self.wanted = (chat, world.workload("other", others, **patience))
                world.fleet.want(self.wanted)
            case ("refuse", for_room):
                refusal = AtCapacity("full", retry_after_seconds=3.0) if for_room else LaunchFailed("absent")
                world.machine.refuse_next.append(refusal)
            case ("crash at start", count):
                world.machine.crash_at_start = count
            case ("stubborn", stubborn):
                world.machine.stubborn = stubborn
            case ("store", works):
                world.intents.failing = None if works else StateError("the disk is full")
            case ("sick", index):
                for replica in world.fleet.replicas[index : index + 1]:
                    world.health[replica.child_id] = None
            case ("drained",):
                world.fleet.report_in_flight({})
            case ("order", more):
                self._count_changes("chat", more)
            case ("away", is_away):  # matters to servers that begin meanwhile
                world.is_away = is_away
            case ("let go", index):
                for replica in world.fleet.replicas[index : index + 1]:
                    self._let_go(replica)

    def _count_changes(self, name: str, by: int) -> None:
        """As the autoscaler orders: relative to what is wanted now."""
        if name in {workload.name for workload in self.wanted}:
            count = self.world.fleet.workload(name).count + by
            self.world.fleet.set_count(name, count)
            self.wanted = tuple(replace(w, count=count) if w.name == name else w for w in self.wanted)

    def _let_go(self, replica: Replica) -> None:
        wanted = {workload.name: workload.count for workload in self.wanted}
        if self.world.fleet.drain(replica.child_id, drain_seconds=2.0):
            self.let_go.add(replica.child_id)
            assert not self.world.fleet.drain(replica.child_id), "one replica was let go twice"
            self.wanted = self.world.fleet.workloads
        for workload in self.wanted:
            assert 0 <= wanted[workload.name] - workload.count <= (workload.name == replica.workload)

    async def _restart(self) -> None:
        self.let_go.clear()  # a new server knows how many there shall be, not which ones were to leave
        self.world.intents.failing = None  # a server whose store does not open does not start
        try:
            await self.world.restart(*self.wanted)
        except AtCapacity:
            assert self.world.is_away
            assert not self.world.intents.records, "only a server without anything to take over does not begin"
            self.world.is_away = False
            await self.world.restart(*self.wanted)

    def _check(self) -> None:
        machine = self.world.machine
        places = Counter(child_id.rsplit(".", 1)[0] for child_id in machine.living)
        assert all(count == 1 for count in places.values()), f"two children in one place: {places}"
        assert all(count == 1 for count in machine.starts.values()), "one child was started twice"
        self.gone |= self.let_go - {replica.child_id for replica in self.world.fleet.replicas}
        assert not self.gone & set(machine.living), "a replica that was let go runs again"
        assert set(machine.living) <= set(self.world.intents.records), "a child runs that the store does not know"

    async def recover(self) -> None:
        """The faults end; time passes."""
        world = self.world
        world.kill_at_call = None
        world.intents.failing = None
        world.machine.refuse_next.clear()
        world.machine.crash_at_start = 0
        world.machine.stubborn = False
        world.is_away = False
        for _ in range(150):
            await world.steps(1, seconds=1.0)
            self._check()

    def check_settled(self) -> None:
        world = self.world
        ready = Counter(replica.workload for replica in world.fleet.replicas if replica.routable)
        wanted = Counter({workload.name: workload.count for workload in self.wanted if workload.count})
        assert ready == wanted
        assert set(world.machine.living) == world.ready() == set(world.intents.records)
        fingerprints = {workload.name: workload.fingerprint for workload in self.wanted}
        assert all(replica.fingerprint == fingerprints[replica.workload] for replica in world.fleet.replicas)


@settings(max_examples=60)
@given(st.lists(operations, max_size=25))
def test_the_fleet_converges_after_any_sequence_of_faults(sequence: list[Operation]) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = _Run(Path(folder))
            await run.play(sequence)
            await run.recover()
            run.check_settled()

    asyncio.run(play())


@settings(max_examples=20)
@given(st.integers(1, 40))
def test_a_kill_at_any_call_of_a_life_leaves_nothing_behind(call: int) -> None:
    """Start two, lose one, drain all: the server dies at one call on the way, and the next one goes on."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = _Run(Path(folder))
            story: list[Operation] = [
                ("kill the server at call", call),
                ("want", 2, 0, 0),
                ("step", 6),
                ("crash", 0),
                ("step", 6),
                ("want", 0, 0, 0),
                ("step", 12),
            ]
            await run.play(story)
            await run.recover()
            run.check_settled()

    asyncio.run(play())


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2), st.integers(0, 2))
def test_a_kill_at_any_call_leaves_nothing_behind_where_the_next_server_cannot_ask(
    call: int, later: int, crashes: int, count: int
) -> None:
    """A place that is away for a while, over two servers: what ran, ended or was not wanted any more is found out."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            run = _Run(Path(folder))
            story: list[Operation] = [
                ("want", 2, 0, 0),
                ("step", 6),
                ("away", True),
                ("kill the server at call", call),
                ("want", 3, 1, 0),
                ("step", 4),
                *(("crash", 0) for _ in range(crashes)),
                ("step", 6),
                ("want", count, 0, 0),
                ("away", False),
                ("kill the server at call", later),
                ("step", 12),
            ]
            await run.play(story)
            await run.recover()
            run.check_settled()

    asyncio.run(play())
