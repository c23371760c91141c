"""The live fleet behind the scaling loop, on a make-believe machine: what is shown is what was asked for."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from fleet_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.control.scaling import ScalingLoop
from swell.policy.scaling.spot_memory import is_late
from swell.server.live_fleet import LiveFleet
from swell.server.live_pools import local_pool
from swell.spec import ModelSpec
from swell.state.messages import Load, ReplicaLoad
from swell.state.replica import Phase
from swell.state.scaling import Decision, Observation, ReplicaState, Window

MODEL = ModelSpec.model_validate({"name": "chat", "source": "a.gguf", "replicas": {"min": 0, "max": 4}})
POOL = local_pool(MODEL)


class Wants:
    """A scaler that decides what it is told to."""

    interval_seconds = 1.0
    count = 0

    def decide(self, seen: Observation) -> Decision:
        return Decision(seen.now, ((POOL.name, self.count),), "told so", "test", is_hold=self.count == seen.present)


class Live:
    """A fleet of one model with its loop."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.world.fleet.want([self.world.workload(count=0)])
        self.loads: dict[str, Load] = {}
        self.scaler = Wants()
        self.fleet = LiveFleet(
            {POOL.name: "chat"}, self.world.fleet, lambda now: Window(now, 1.0), lambda: self.loads,
            self.world.clock.unix, 100.0,
        )  # fmt: skip
        self.loop = ScalingLoop(self.fleet, self.scaler, {POOL.name: POOL})

    def decide(self, count: int) -> Observation:
        """One turn that wants `count`; what it saw."""
        self.scaler.count = count
        self.loop.step(self.world.clock.monotonic())
        return self.fleet.seen

    async def settle(self) -> None:
        self.world.fleet.report_in_flight({})
        await self.world.steps(3)
        self.world.fleet.report_in_flight({})
        await self.world.steps(8)
        self.world.fleet.report_in_flight({})
        await self.world.steps(4)


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live(tmp_path)


async def test_an_order_is_seen_before_anything_has_begun_and_is_not_given_twice(live: Live) -> None:
    live.decide(3)
    seen = live.decide(3)
    assert (seen.ready, seen.present) == (0, 3)
    assert live.world.fleet.workload("chat").count == 3
    await live.settle()
    assert live.decide(3).ready == 3
    assert sum(live.world.machine.starts.values()) == 3


async def test_an_order_that_has_no_place_yet_can_be_taken_back(live: Live) -> None:
    live.decide(3)
    live.decide(1)
    await live.settle()
    assert live.decide(1).ready == 1
    assert sum(live.world.machine.starts.values()) == 1


async def test_the_least_loaded_leaves_and_is_shown_as_leaving_at_once(live: Live) -> None:
    live.decide(2)
    await live.settle()
    first, second = (replica.child_id for replica in live.world.fleet.replicas)
    live.loads["w"] = Load(1, 0, (ReplicaLoad(first, 1, 50, False, 0),), ())
    live.decide(1)
    seen = live.decide(1)
    assert {view.replica_id: view.state for view in seen.replicas} == {
        first: ReplicaState.READY,
        second: ReplicaState.DRAINING,
    }
    assert {view.replica_id: (view.in_flight, view.outstanding_tokens) for view in seen.replicas}[first] == (1, 50)
    await live.settle()
    assert live.world.ready() == {first}
    assert live.decide(1).present == 1


async def test_a_failed_replica_counts_as_starting_and_nothing_is_ordered_for_it(live: Live) -> None:
    live.decide(2)
    await live.settle()
    live.world.machine.crash(live.world.fleet.replicas[0].child_id)
    await live.world.steps(1)
    assert Phase.FAILED in live.world.phases()
    seen = live.decide(2)
    assert (seen.ready, seen.present) == (1, 2)
    assert live.world.fleet.workload("chat").count == 2


async def test_a_new_spec_replaces_replicas_one_by_one_and_the_number_stays(live: Live) -> None:
    live.decide(2)
    await live.settle()
    live.world.fleet.want([live.world.workload(count=2, fingerprint="v2")])
    await live.world.steps(1)
    seen = live.decide(2)
    assert (seen.ready, seen.present) == (0, 2)
    await live.settle()
    seen = live.decide(2)
    assert (seen.ready, seen.present, len(seen.replicas)) == (2, 2, 2)


async def test_what_engines_say_of_themselves_is_shown_while_they_live(live: Live) -> None:
    live.decide(1)
    await live.settle()
    [replica] = live.world.fleet.replicas
    live.fleet.engine_says(replica.child_id, 3, 0.25)
    live.fleet.engine_says("gone", 1, 1.0)
    [view] = live.decide(1).replicas
    assert (view.waiting, view.kv_used) == (3, 0.25)
    assert set(live.fleet._engines) == {replica.child_id}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=20))
def test_what_is_shown_is_always_what_was_decided_last(turns: list[tuple[int, int, bool]]) -> None:
    """Any row of decisions, with any number of the fleet's steps between and crashes: no order is lost or doubled."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            live = Live(Path(folder))
            for count, steps, crashes in turns:
                live.decide(count)
                assert live.world.fleet.workload("chat").count == count
                assert live.fleet.observe(live.world.clock.monotonic()).present == count
                await live.world.steps(steps)
                living = sorted(live.world.machine.living)
                if crashes and living:
                    live.world.machine.crash(living[0])
            wanted = live.world.fleet.workload("chat").count
            for _ in range(60):
                live.world.fleet.report_in_flight({})
                await live.world.steps(2, seconds=1.0)
            assert len(live.world.ready()) == wanted == len(live.world.fleet.replicas)
            assert all(starts == 1 for starts in live.world.machine.starts.values())

    asyncio.run(play())


async def test_one_that_cannot_begin_is_late_from_the_first_moment(live: Live) -> None:
    """Its place does not answer, so that nobody need wait for it: another pool can stand in."""
    live.world.is_away = True
    fleet = live.world.fleet = live.world._new_fleet()
    fleet.want([live.world.workload(count=1)])
    await fleet.adopt({"process"})
    live.fleet._fleet = fleet
    await live.world.steps(2)
    now = live.world.clock.monotonic()
    (view,) = live.fleet.views(now, {})
    assert (view.state, is_late(view, POOL, now)) == (ReplicaState.STARTING, True)
    live.world.is_away = False
    await live.world.steps(40)
    now = live.world.clock.monotonic()
    (view,) = live.fleet.views(now, {})
    assert (view.state, is_late(view, POOL, now)) == (ReplicaState.READY, False)
