"""A place that does not answer when a server begins: it keeps nothing else from going on, and nothing there is lost."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

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
            ask=_healthy,
            clock=self.world.clock,
            on_change=self._changed,
        )

    def _before(self, call: str) -> None:
        self.asked += call == "adopt"
        if self.is_away:
            raise AtCapacity("nobody answers", retry_after_seconds=7.0)

    def _changed(self) -> None:
        self.changes += 1

    async def begin(self, *workloads: Workload) -> None:
        """One replica in each place, then a server that is gone."""
        self.fleet.want(workloads or (self.near, self.far))
        await self.fleet.adopt(())
        await self.steps(4)
        assert {replica.phase for replica in self.fleet.replicas} == {Phase.READY}

    async def restart(self, *workloads: Workload) -> None:
        self.fleet = self.server()
        self.fleet.want(workloads or (self.near, self.far))
        await self.fleet.adopt(())

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
    waiting = [replica for replica in far.fleet.replicas if not replica.unseen and replica.workload == "chat"]
    why = "far has not answered since this server began: nobody answers"
    assert {(each.phase, each.waiting, each.restarts) for each in waiting} == {(Phase.PENDING, why, 0)}
    await far.steps(100, seconds=1.0)
    far.is_away = False
    await far.steps(10, seconds=1.0)
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


async def test_a_place_that_was_never_reached_must_answer(far: Far) -> None:
    await far.begin(far.near)
    far.is_away = True
    far.fleet = far.server()
    far.fleet.want((far.near, far.far))
    with pytest.raises(AtCapacity, match="far: nobody answers"):
        await far.fleet.adopt(())
    far.fleet = far.server()
    far.fleet.want((far.near, far.far))
    await far.fleet.adopt({"far"})
    assert set(far.fleet.awaited) == {"far"}, "it has nothing, and was reached once"
    await far.steps(4)
    assert [phase for _, phase, _ in far.phases("near")] == [Phase.READY]
    far.is_away = False
    await far.steps(10, seconds=1.0)
    assert [phase for _, phase, _ in far.phases("chat")] == [Phase.READY]


class Places:
    """A world in which children moved, or their place is called otherwise: machines by the names of places."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.away: set[str] = set()  # places that do not answer
        self.fleet = self.server({})

    def server(self, machines: Mapping[str, FakeMachine], **changes: Any) -> Fleet:
        places = {name: FakeProvider(machine, self._gate(name)) for name, machine in machines.items()}
        return Fleet(providers=places, intents=self.world.intents, ask=_healthy, clock=self.world.clock, **changes)

    def _gate(self, name: str) -> Callable[[str], None]:
        def before(call: str) -> None:
            if name in self.away and call in ("adopt", "end_orphans"):
                raise AtCapacity("nobody answers", retry_after_seconds=1.0)

        return before

    async def begin(self, fleet: Fleet, *workloads: Workload) -> None:
        self.fleet = fleet
        fleet.want(workloads)
        await fleet.adopt({"far", "old", "new"})

    async def steps(self, count: int, seconds: float = 1.0) -> None:
        for _ in range(count):
            self.world.clock.advance(seconds)
            await self.fleet.step(self.world.clock.monotonic())
            for _ in range(10):
                await asyncio.sleep(0)

    def told(self) -> list[tuple[str, str, Phase, bool]]:
        return [(each.child_id, each.provider, each.phase, each.unseen) for each in self.fleet.replicas]


async def _healthy(url: str, key: str) -> Answer:
    return Answer(200)


@pytest.fixture
def places(world: World) -> Places:
    return Places(world)


async def test_one_that_is_called_otherwise_now_and_is_away_is_taken_over_by_its_new_name(places: Places) -> None:
    machine = FakeMachine(places.world.clock)
    await places.begin(places.server({"far": machine}), places.world.workload(count=3, provider="far"))
    await places.steps(4)
    ended, *living = sorted(machine.living)
    places.away = {"new"}
    renamed = places.server({"new": machine}, renamed={"far": "new"})
    await places.begin(renamed, places.world.workload(count=3, provider="new"))
    await places.steps(30)
    assert {(provider, unseen) for _, provider, _, unseen in places.told()} == {("new", True)}
    machine.crash(ended)
    places.away.clear()
    await places.steps(30)
    assert set(living) < set(machine.living) == {child for child, _, _, _ in places.told()}
    assert {told[1:] for told in places.told()} == {("new", Phase.READY, False)}
    assert set(places.world.intents.records) == set(machine.living)
    assert {record.detail["provider"] for record in places.world.intents.records.values()} == {"new"}


async def test_of_two_places_that_may_have_it_both_are_asked(places: Places) -> None:
    old, new = FakeMachine(places.world.clock), FakeMachine(places.world.clock)
    await places.begin(places.server({"old": old}), places.world.workload(provider="old"))
    await places.steps(4)
    (child,) = old.living
    places.away = {"old", "new"}
    await places.begin(places.server({"old": old, "new": new}), places.world.workload(provider="new"))
    assert set(places.fleet.awaited) == {"old", "new"}
    places.away = {"old"}
    await places.steps(20)
    assert [(told[0], told[3]) for told in places.told()] == [(child, True)]
    old.crash(child)
    places.away.clear()
    await places.steps(30)
    assert not places.fleet.awaited
    assert [told[1:] for told in places.told()] == [("new", Phase.READY, False)]
    assert (len(new.living), len(old.living)) == (1, 0)


async def test_who_was_found_is_not_lost_when_another_place_answers_later(places: Places) -> None:
    machine, empty = FakeMachine(places.world.clock), FakeMachine(places.world.clock)
    await places.begin(places.server({"old": machine}), places.world.workload(provider="old"))
    await places.steps(4)
    (child,) = machine.living
    places.away = {"old", "new"}
    await places.begin(places.server({"old": empty, "new": machine}), places.world.workload(provider="new"))
    places.away = {"old"}
    await places.steps(10)
    assert places.told() == [(child, "new", Phase.READY, False)]
    places.away.clear()
    await places.steps(20)
    assert places.told() == [(child, "new", Phase.READY, False)]
    assert (list(machine.living), list(empty.living)) == ([child], [])


async def test_what_may_run_where_nothing_is_wanted_any_more_stays_in_the_store(places: Places) -> None:
    old, new = FakeMachine(places.world.clock), FakeMachine(places.world.clock)
    await places.begin(places.server({"old": old}), places.world.workload(provider="old"))
    await places.steps(4)
    (child,) = old.living
    places.away = {"old", "new"}
    moved = places.server({"old": old, "new": new}, spared={"old"})
    await places.begin(moved, places.world.workload(provider="new"))
    assert (set(moved.left_out), set(moved.awaited)) == ({"old"}, {"new"})
    places.away = {"old"}
    await places.steps(20)
    assert child in places.world.intents.records
    assert [told[1] for told in places.told()] == ["new"]
    assert list(old.living) == [child]


async def test_places_are_asked_beside_each_other(places: Places) -> None:
    machine = FakeMachine(places.world.clock)
    await places.begin(places.server({"far": machine}), places.world.workload(provider="far"))
    await places.steps(4)
    asked: list[str] = []
    everybody = asyncio.Event()

    class Silent(FakeProvider):
        def __init__(self, name: str) -> None:
            super().__init__(machine)
            self._name = name

        async def end_orphans(self) -> None:
            asked.append(self._name)
            if len(asked) == 3:
                everybody.set()
            async with asyncio.timeout(10.0):
                await everybody.wait()
            raise AtCapacity("nobody answers", retry_after_seconds=1.0)

    silent = {name: Silent(name) for name in ("far", "old", "new")}
    world = places.world
    await places.begin(Fleet(providers=silent, intents=world.intents, ask=_healthy, clock=world.clock))
    assert set(places.fleet.awaited) == set(asked) == {"far", "old", "new"}


async def test_a_fault_of_one_place_keeps_no_other_from_being_taken_over(places: Places) -> None:
    far, old = FakeMachine(places.world.clock), FakeMachine(places.world.clock)
    near = places.world.workload("near", provider="far"), places.world.workload("broken", provider="old")
    await places.begin(places.server({"far": far, "old": old}), *near)
    await places.steps(4)
    faults = [KeyError("a field that no cluster had before")]
    places.away = {"far", "old"}
    fleet = places.server({"far": far, "old": old})
    await places.begin(fleet, *near)

    async def broken(*_: object) -> None:
        if faults:
            raise faults[0]

    provider = fleet._providers["old"]
    adopt, provider.adopt = provider.adopt, broken  # type: ignore[method-assign, assignment]
    places.away.clear()
    await places.steps(30)
    assert {told[1]: told[3] for told in places.told()} == {"far": False, "old": True}
    assert "a field that no cluster had before" in fleet.awaited["old"]
    assert "a field that no cluster had before" in next(r.waiting for r in fleet.replicas if r.unseen)
    provider.adopt = adopt  # type: ignore[method-assign]
    await places.steps(10)
    assert [told[3] for told in places.told()] == [False, False]


async def test_what_a_start_waits_for_is_told_as_it_is_and_no_longer_than_it_is(places: Places) -> None:
    machine = FakeMachine(places.world.clock)
    places.away = {"far"}
    await places.begin(places.server({"far": machine}), places.world.workload(provider="far"))
    await places.steps(100)
    (pending,) = places.fleet.replicas
    assert (pending.phase, pending.waiting) == (
        Phase.PENDING,
        "far has not answered since this server began: nobody answers",
    )
    machine.refuse_next.append(AtCapacity("no GPU is free", retry_after_seconds=60.0))
    places.away.clear()
    await places.steps(10)
    (failed,) = places.fleet.replicas
    assert (failed.phase, failed.waiting, failed.last_error) == (Phase.FAILED, "", "no GPU is free")
    assert failed.ordered_at > pending.ordered_at + 90, "its time to start begins when it can"
