"""A place that does not answer when a server begins: it keeps nothing else from going on, and nothing there is lost."""

import asyncio

import pytest
from fleet_world import World

from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.workload import Workload
from swell.errors import AtCapacity
from swell.ports.engine import Address
from swell.state.replica import Phase
from swell.testing.fake_provider import FakeMachine, FakeProvider


class Far:
    """A world with two places: `process`, and `far`, which a later server cannot ask at first."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.machine = FakeMachine(world.clock)
        self.is_away = False
        self.asked = 0
        self.changes = 0
        self.near = world.workload("near")
        self.far = self.workload(1)
        self.fleet = self.server()

    def workload(self, count: int, fingerprint: str = "v1") -> Workload:
        return self.world.workload("chat", count, fingerprint, provider="far")

    def server(self) -> Fleet:
        places = {"process": FakeProvider(self.world.machine), "far": FakeProvider(self.machine, self._before)}
        return Fleet(
            providers=places,
            intents=self.world.intents,
            ask=self._healthy,
            clock=self.world.clock,
            on_change=self._changed,
        )

    def _before(self, call: str) -> None:
        self.asked += call == "adopt"
        if self.is_away:
            raise AtCapacity("nobody answers", retry_after_seconds=7.0)

    def _changed(self) -> None:
        self.changes += 1

    async def _healthy(self, url: str, key: str) -> Answer:
        return Answer(200)

    async def begin(self, *workloads: Workload) -> None:
        """One replica in each place, then a server that is gone."""
        self.fleet.want(workloads or (self.near, self.far))
        await self.fleet.adopt(awaits=True)
        await self.steps(4)
        assert {replica.phase for replica in self.fleet.replicas} == {Phase.READY}

    async def restart(self, *workloads: Workload) -> None:
        self.fleet = self.server()
        self.fleet.want(workloads or (self.near, self.far))
        await self.fleet.adopt(awaits=True)

    async def steps(self, count: int, seconds: float = 0.25) -> None:
        for _ in range(count):
            self.world.clock.advance(seconds)
            await self.fleet.step(self.world.clock.monotonic())
            for _ in range(10):
                await asyncio.sleep(0)

    def phases(self, workload: str) -> list[tuple[str, Phase, bool]]:
        own = [replica for replica in self.fleet.replicas if replica.workload == workload]
        return [(replica.child_id, replica.phase, replica.unseen) for replica in own]


@pytest.fixture
def far(world: World) -> Far:
    return Far(world)


async def test_the_others_go_on_and_what_runs_there_is_taken_over_once_it_answers(far: Far) -> None:
    await far.begin()
    (child,) = far.machine.living
    records = dict(far.world.intents.records)
    far.is_away = True
    await far.restart()
    assert far.fleet.awaited == {"far": "nobody answers"}
    assert [phase for _, phase, _ in far.phases("near")] == [Phase.READY]
    assert far.phases("chat") == [(child, Phase.READY, True)], "it counts as what it was"
    assert far.fleet.replicas[0].waiting == "far has not answered since this server began: nobody answers"
    await far.steps(100, seconds=1.0)
    assert far.phases("chat") == [(child, Phase.READY, True)]
    assert far.world.intents.records == records
    assert 10 <= far.asked <= 20, "it is asked no more often than it said"

    far.is_away = False
    far.changes = 0
    await far.steps(10, seconds=1.0)
    assert not far.fleet.awaited
    assert far.phases("chat") == [(child, Phase.READY, False)]
    assert far.fleet.replicas[0].waiting == ""
    assert far.changes
    assert far.machine.starts == {child: 1}
    assert far.machine.adoptions_over == 2, "once of each server"


async def test_nothing_is_started_there_before_it_answers(far: Far) -> None:
    await far.begin()
    far.is_away = True
    await far.restart(far.workload(3))
    await far.steps(20)
    assert len(far.machine.living) == 1
    waits = {replica.last_error for replica in far.fleet.replicas if not replica.unseen and replica.workload == "chat"}
    assert waits == {"far has not answered since this server began: nobody answers"}
    far.is_away = False
    await far.steps(60, seconds=1.0)
    assert [phase for _, phase, _ in far.phases("chat")] == [Phase.READY] * 3
    assert set(far.machine.starts.values()) == {1}


async def test_who_ended_meanwhile_is_replaced_and_who_is_not_wanted_is_ended_then(far: Far) -> None:
    await far.begin(far.workload(2))
    ended, lives = sorted(far.machine.living)
    far.machine.crash(ended)
    far.is_away = True
    await far.restart(far.workload(2))
    await far.steps(4)
    assert len(far.phases("chat")) == 2
    far.is_away = False
    await far.steps(20, seconds=1.0)
    assert lives in far.machine.living
    assert len(far.machine.living) == len(far.fleet.replicas) == 2
    assert ended not in far.world.intents.records

    far.is_away = True
    await far.restart(far.near)
    await far.steps(4)
    assert len(far.phases("chat")) == 2
    far.is_away = False
    far.fleet.report_in_flight({})
    await far.steps(60, seconds=1.0)
    assert not far.machine.living
    assert far.phases("chat") == []


async def test_one_that_was_not_ready_gets_the_time_of_a_start(far: Far) -> None:
    await far.begin()
    (child,) = far.machine.living
    far.machine.ready[child] = False
    far.is_away = True
    await far.restart()
    far.is_away = False
    await far.steps(10, seconds=1.0)
    assert far.phases("chat") == [(child, Phase.STARTING, False)]
    await far.steps(100, seconds=1.0)
    assert far.phases("chat") == [(child, Phase.STARTING, False)], "it is not ended as one that became unhealthy"
    far.machine.ready[child] = True
    await far.steps(2)
    assert far.phases("chat") == [(child, Phase.READY, False)]


async def test_one_that_is_named_to_leave_leaves_once_its_place_answers(far: Far) -> None:
    await far.begin()
    (child,) = far.machine.living
    far.machine.addresses[child] = Address("10.0.0.1", 8000)
    far.is_away = True
    await far.restart()
    assert far.fleet.drain(child, drain_seconds=2.0)
    await far.steps(4)
    assert far.phases("chat") == [(child, Phase.READY, True)]
    far.is_away = False
    await far.steps(20, seconds=1.0)
    assert far.phases("chat") == []
    assert not far.machine.living


async def test_where_nothing_was_ever_started_a_mistake_is_told_at_once(far: Far) -> None:
    far.is_away = True
    far.fleet.want((far.far,))
    with pytest.raises(AtCapacity, match="far: nobody answers"):
        await far.fleet.adopt(awaits=True)


async def test_of_two_places_that_may_have_it_both_are_asked(far: Far) -> None:
    await far.begin()
    (child,) = far.machine.living
    other, is_other_away = FakeMachine(far.world.clock), True

    def before(_: str) -> None:
        if is_other_away:
            raise AtCapacity("nobody answers here, either", retry_after_seconds=1.0)

    far.is_away = True
    moved = far.world.workload("chat", 1, provider="other")
    far.fleet = Fleet(
        providers={"far": FakeProvider(far.machine, far._before), "other": FakeProvider(other, before)},
        intents=far.world.intents,
        ask=far._healthy,
        clock=far.world.clock,
    )
    far.fleet.want((moved,))
    await far.fleet.adopt(awaits=True)
    assert set(far.fleet.awaited) == {"far", "other"}
    is_other_away = False
    await far.steps(20, seconds=1.0)
    assert far.phases("chat") == [(child, Phase.READY, True)]
    far.machine.crash(child)
    far.is_away = False
    await far.steps(30, seconds=1.0)
    assert not far.fleet.awaited
    assert [phase for _, phase, _ in far.phases("chat")] == [Phase.READY]
    assert (len(other.living), len(far.machine.living)) == (1, 0)
