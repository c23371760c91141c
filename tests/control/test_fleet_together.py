"""Many replicas in one step: what the store is asked for does not grow with them, and no promise shrinks."""

from collections import Counter

import pytest
from fleet_world import ServerKilledError, World

from swell.control.launch import MAX_TOGETHER
from swell.errors import AtCapacity, LaunchFailed, StateError
from swell.ports.engine import LaunchCommand
from swell.state.replica import Phase

MANY = 2 * MAX_TOGETHER + 1


def store_calls(world: World) -> Counter[str]:
    """What the store is asked for from now on."""
    counted: Counter[str] = Counter()
    before = world.intents.before_call

    def count(name: str) -> None:
        if name != "recorded":
            counted[name] += 1
        before(name)

    world.intents.before_call = count
    return counted


async def test_a_thousand_replicas_come_and_go_in_a_few_transactions(world: World) -> None:
    counted = store_calls(world)
    world.fleet.want([world.workload(count=MANY, health=None)])
    await world.steps(4)
    assert len(world.ready()) == len(world.machine.living) == len(world.intents.records) == MANY
    assert counted == {"record_processes": 3, "record_started": 3}
    counted.clear()
    world.fleet.want([])
    await world.steps(4, seconds=400.0)
    assert (world.fleet.replicas, world.machine.living, world.intents.records) == ((), {}, {})
    assert counted == {"remove_processes": 3}


async def test_each_of_one_step_has_a_port_and_a_key_of_its_own(world: World) -> None:
    world.fleet.want([world.workload(count=50)])
    await world.steps(3)
    addresses = [replica.address for replica in world.fleet.replicas]
    assert len({address.port for address in addresses if address is not None}) == 50
    assert len({replica.key for replica in world.fleet.replicas}) == 50


async def test_no_child_is_started_whose_intent_is_not_stored(world: World) -> None:
    world.fleet.want(
        [world.workload(count=5), world.workload("external", provider="external", launch=None, health=None)]
    )
    await world.steps(1)
    world.intents.failing = StateError("the store is away")
    await world.steps(1)
    assert not world.machine.started
    assert sorted(world.phases()) == sorted([Phase.FAILED] * 5 + [Phase.STARTING]), "who has no intent needs no store"
    world.intents.failing = None
    await world.steps(12)
    assert len(world.machine.living) == 5
    assert {replica.restarts for replica in world.fleet.replicas} == {0, 1}


async def test_one_that_cannot_be_launched_keeps_none_of_the_others(world: World) -> None:
    def launch(slot: object) -> LaunchCommand:
        raise LaunchFailed("no such program")

    world.fleet.want([world.workload("bad", launch=launch), world.workload("good", count=3)])
    await world.steps(4)
    assert len(world.ready()) == 3
    assert [each.last_error for each in world.fleet.replicas if each.workload == "bad"] == ["no such program"]


async def test_one_that_its_provider_refuses_keeps_none_of_the_others(world: World) -> None:
    world.machine.refuse_next.append(AtCapacity("no room", retry_after_seconds=9.0))
    world.fleet.want([world.workload(count=4)])
    await world.steps(4)
    assert len(world.ready()) == 3
    (failed,) = [each for each in world.fleet.replicas if each.phase is Phase.FAILED]
    assert (failed.last_error, failed.address) == ("no room", None)


@pytest.mark.parametrize("call", range(1, 10))
async def test_a_kill_among_many_leaves_none_without_an_intent(world: World, call: int) -> None:
    """record_processes, recorded, then two of each of four starts."""
    world.fleet.want([world.workload(count=4)])
    await world.steps(1)
    world.kill_at_call = world.calls + call
    with pytest.raises(ServerKilledError):
        await world.steps(1)
    assert set(world.machine.living) <= set(world.intents.records)
    running = set(world.machine.living)
    await world.restart(world.workload(count=4))
    await world.steps(4)
    assert running <= world.ready() == set(world.machine.living) == set(world.intents.records)
    assert len(world.machine.started) == 4, "nothing was started twice"
