"""Spot machines that are taken or refused: what the fleet does at once, and the one alert about it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleet_world import World
from model_watch_world import Watched, model, watched

from swell.control.workload import Workload
from swell.errors import SpotRefused
from swell.ports.provider import OWN_MACHINE, Loss, Machine
from swell.server.model_watch import WATCH_SECONDS
from swell.server.spot_watch import CALM_SECONDS
from swell.state.replica import Phase

SPOT = Machine("spot", "us-east1-b", "L4")
ON_DEMAND = Machine("on_demand", "us-east1-c", "L4")


async def test_notice_drains_a_replica_at_once_and_its_successor_is_ordered(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machine.machine = SPOT
    world.fleet.want([world.workload(count=2)])
    await world.steps(3)
    victim = min(world.ready())
    world.machine.give_notice(victim)
    await world.steps(1)
    (draining,) = [replica for replica in world.fleet.replicas if replica.phase is Phase.DRAINING]
    assert (draining.child_id, draining.loss, draining.machine) == (victim, Loss.NOTICE, SPOT)
    assert victim not in world.ready(), "nothing new is sent to it"
    world.fleet.report_in_flight({victim: 1})
    await world.steps(3)
    assert len(world.ready()) == 2, "its successor serves while it finishes"
    assert world.fleet.workload("chat").count == 2
    world.machine.reclaim(victim)
    await world.steps(3)
    assert {replica.child_id for replica in world.fleet.replicas} == world.ready()


async def test_a_machine_that_is_taken_is_no_failure_of_what_ran_on_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machine.machine = SPOT
    world.fleet.want([world.workload()])
    await world.steps(3)
    for _ in range(6):  # crashes would wait for 16 seconds by then
        world.machine.reclaim(world.only().child_id)
        await world.steps(1)
        assert world.only().last_error.startswith("its L4 spot machine in us-east1-b was taken")
        await world.steps(3)
        assert world.only().phase is Phase.READY
    assert world.only().failures == 0


async def test_a_machine_that_is_taken_before_it_served_is_asked_for_less_and_less_often(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machine.machine, world.health = SPOT, _Loading()
    world.fleet.want([world.workload()])
    await world.steps(2)
    waits = []
    for _ in range(3):
        world.machine.reclaim(world.only().child_id)
        await world.steps(1)
        waits.append(world.only().not_before - world.clock.monotonic())
        await world.steps(20)
    assert waits == [0.5, 1.0, 2.0]


async def test_an_order_that_is_refused_is_told_with_where(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.machine.refuse_next.append(SpotRefused("no L4 left", retry_after_seconds=7.0, zone="z", accelerator="L4"))
    world.fleet.want([world.workload()])
    await world.steps(2)
    refused = world.only()
    assert (refused.phase, refused.loss, refused.machine) == (Phase.FAILED, Loss.REFUSED, Machine("spot", "z", "L4"))
    assert refused.not_before - refused.since >= 7.0
    await world.steps(60)
    assert (world.only().phase, world.only().loss, world.only().machine) == (Phase.READY, None, OWN_MACHINE)


class _Loading(dict[str, int | None]):
    def get(self, child_id: str, default: object = None) -> int:  # type: ignore[override]
        return 503


class Market:
    """A watched model whose fleet runs on spot. `run` lets time pass for both."""

    def __init__(self, world: Watched) -> None:
        self.watched, self.world = world, world.world

    async def begin(self, *workloads: Workload) -> None:
        self.world.machine.machine = SPOT
        await self.watched.begin(*(workloads or (self.world.workload(count=3),)))
        await self.run(60)

    async def run(self, seconds: float) -> None:
        for _ in range(int(seconds // WATCH_SECONDS)):
            await self.steps(4)
            await self.watched.turn()

    async def steps(self, count: int) -> None:
        """As a running server: the watch is told after every step that changes something."""
        for _ in range(count):
            before = self.world.changes
            await self.world.steps(1, seconds=0.25)
            if self.world.changes != before:
                self.watched.watch.look()

    def on_spot(self) -> list[str]:
        replicas = self.world.fleet.replicas
        return [r.child_id for r in replicas if r.routable and r.machine.market == "spot"]

    def told(self) -> list[str]:
        return [each for each in self.watched.told() if "spot_loss" in each]


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Market]:
    async with watched(tmp_path, model(spot={"max_fraction": 0.5})) as world:
        found = Market(world)
        await found.begin()
        yield found


async def test_one_episode_while_losses_go_on(market: Market) -> None:
    assert len(market.on_spot()) == 3
    for _ in range(5):
        market.world.machine.reclaim(market.on_spot()[0])
        await market.run(300)
    assert market.told() == ["model chat spot_loss warning"]
    (record,) = market.watched.records()
    assert record.alert.title == "Model chat loses spot machines: 1 taken"
    assert "L4 in us-east1-b: 1 taken" in record.alert.text
    assert "lower spot.max_fraction or raise spot.ondemand_base" in record.alert.text
    await market.run(CALM_SECONDS)
    assert market.told() == ["model chat spot_loss warning", "model chat spot_loss resolved"]
    over = market.watched.records()[1].alert
    assert "L4 in us-east1-b: 5 taken" in over.text
    assert (over.values["reclaimed"], over.values["refused"], over.values["zones"]) == (5, 0, "us-east1-b")
    market.world.machine.reclaim(market.on_spot()[0])
    await market.run(60)
    assert len(market.told()) == 3, "another episode"
    assert market.watched.records()[2].alert.values["reclaimed"] == 1


async def test_notice_and_its_end_are_one_loss(market: Market) -> None:
    victim = market.on_spot()[0]
    market.world.machine.give_notice(victim)
    market.world.fleet.report_in_flight({victim: 1})
    await market.steps(2)
    await market.watched.turn()
    assert market.told() == ["model chat spot_loss warning"]
    market.world.machine.reclaim(victim)
    await market.run(CALM_SECONDS + 60)
    assert market.watched.records()[1].alert.values["reclaimed"] == 1


async def test_what_stands_in_and_where_orders_are_refused_is_told(market: Market) -> None:
    market.world.machine.machine = ON_DEMAND
    market.world.machine.refuse_next.append(SpotRefused("none", retry_after_seconds=1.0, zone="eu-1", accelerator="T4"))
    market.world.machine.reclaim(market.on_spot()[0])
    await market.steps(30)
    await market.watched.turn()
    (record,) = market.watched.records()
    assert record.alert.title == "Model chat loses spot machines: 1 taken, 1 order refused"
    assert "L4 in us-east1-b: 1 taken; T4 in eu-1: 1 order refused" in record.alert.text
    assert "Now 3 replicas of 3 wanted are ready, 2 of them on spot; 1 replica that is not on spot stands in" in (
        record.alert.text
    )
    values = record.alert.values
    assert (values["ready_spot"], values["ready_other"], values["accelerators"]) == (2, 1, "L4,T4")


async def test_restarts_tell_nothing_twice_and_lose_no_count(market: Market) -> None:
    for _ in range(4):
        market.world.machine.reclaim(market.on_spot()[0])
        await market.run(60)
        await market.begin()
    victim = market.on_spot()[0]
    market.world.machine.give_notice(victim)
    market.world.fleet.report_in_flight({victim: 1})
    await market.run(20)
    await market.begin()  # it drains yet: the next server sees the notice again
    await market.run(CALM_SECONDS + 60)
    assert market.told() == ["model chat spot_loss warning", "model chat spot_loss resolved"]
    assert market.watched.records()[-1].alert.values["reclaimed"] == 5


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 9, "at_unix": 0, "known": [], "models": {}}', b"[1]"])
async def test_a_file_that_cannot_be_read_is_as_good_as_none(market: Market, content: bytes) -> None:
    market.world.machine.reclaim(market.on_spot()[0])
    await market.run(60)
    (market.world.folder / "spot_losses.json").write_bytes(content)
    await market.begin()
    await market.run(CALM_SECONDS + 60)
    assert market.told() == ["model chat spot_loss warning", "model chat spot_loss resolved"]


async def test_a_replica_that_crashes_or_is_let_go_is_no_loss(market: Market) -> None:
    market.world.machine.crash(market.on_spot()[0])
    await market.run(60)
    market.world.fleet.set_count("chat", 1)
    await market.run(60)
    assert len(market.on_spot()) == 1
    assert market.told() == []
