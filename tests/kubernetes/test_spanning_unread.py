"""Replicas over several nodes while LeaderWorkerSets cannot be read: the right is gone, or the API knows none."""

from collections.abc import AsyncIterator, Callable

import pytest
from kube_spanning import ALL_VERBS, deny, hide, left_in, over, pods_of, sets_of, show
from kube_world import World

BLIND = [pytest.param(deny, id="denied"), pytest.param(hide, id="absent")]
Blind = Callable[[World], None]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


async def _gone(world: World, steps: int = 100) -> bool:
    """`swell down`, as far as the fleet goes: nothing is wanted, and what that takes."""
    world.want()
    for _ in range(steps):
        await world.steps(1, seconds=0.5)
        if not world.fleet.replicas:
            return True
    return False


@pytest.mark.parametrize("blind", BLIND)
async def test_a_restarted_server_that_cannot_read_sets_keeps_what_runs(world: World, blind: Blind) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    before = {replica.child_id: pods_of(world, replica) for replica in world.ready()}
    await world.kill()
    blind(world)
    await world.restart()
    await world.steps(40, seconds=1.0)
    assert {replica.child_id: pods_of(world, replica) for replica in world.ready()} == before
    show(world)
    await world.steps(40, seconds=1.0)
    assert {replica.child_id: pods_of(world, replica) for replica in world.ready()} == before
    assert len(sets_of(world)) == len(before) == 2


@pytest.mark.parametrize("blind", BLIND)
async def test_a_server_that_can_no_longer_read_sets_keeps_what_runs(world: World, blind: Blind) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    before = {replica.child_id: pods_of(world, replica) for replica in world.ready()}
    blind(world)
    await world.steps(40, seconds=1.0)
    assert {replica.child_id: pods_of(world, replica) for replica in world.ready()} == before
    show(world)
    await world.steps(40, seconds=1.0)
    assert {replica.child_id: pods_of(world, replica) for replica in world.ready()} == before


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_sets_that_cannot_be_read_are_ended_by_name(world: World, is_restarted: bool) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    await world.kill()
    if is_restarted:
        deny(world)
    await world.restart()
    deny(world)
    await world.steps(4)
    assert await _gone(world)
    assert not left_in(world)


async def test_a_set_is_ended_before_its_pods(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    await world.kill()
    deny(world)
    await world.restart()
    await world.steps(4)
    before = world.controllers.created
    made = world.cluster.objects["pods"].keys() | set()
    world.want()
    for _ in range(60):
        await world.steps(1)
        assert world.cluster.objects["pods"].keys() <= made
        assert not sets_of(world) or world.cluster.requests["delete pods"] == 0
    assert world.controllers.created == before
    assert not left_in(world)


async def test_a_set_that_cannot_be_deleted_is_not_said_to_have_ended(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    (replica,) = world.ready()
    before = pods_of(world, replica)
    deny(world, ALL_VERBS)
    assert not await _gone(world)
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
    assert set(pods_of(world, replica).values()) <= set(before.values())
    (left,) = world.fleet.replicas
    assert left.waiting == (
        "its LeaderWorkerSet to be deleted: the cluster's API says: leaderworkersets is forbidden: cannot delete"
    )
    show(world)
    assert await _gone(world)
    assert not left_in(world)


async def test_a_broken_replica_that_cannot_be_deleted_has_no_successor(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    (replica,) = world.ready()
    deny(world, ("delete",))
    world.controllers.kubelet.crash(pods_of(world, replica)["1"], 3)
    await world.steps(80, seconds=1.0)
    assert len(sets_of(world)) == 1
    assert [each.child_id for each in world.fleet.replicas] == [replica.child_id]
    show(world)
    await world.steps(60, seconds=1.0)
    (fresh,) = world.ready()
    assert fresh.child_id != replica.child_id
    assert len(sets_of(world)) == 1


async def test_pods_that_come_again_show_that_their_set_is_there(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    hide(world)
    assert not await _gone(world)
    assert sets_of(world)
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
    show(world)
    assert await _gone(world)
    assert not left_in(world)


async def test_a_definition_that_is_deleted_takes_its_replicas_along(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    hide(world)
    sets_of(world).clear()
    await world.steps(40, seconds=1.0)
    assert not world.ready()
    assert await _gone(world)
    assert not left_in(world)


@pytest.mark.parametrize("blind", BLIND)
async def test_a_set_without_pods_is_known_by_its_secret(world: World, blind: Blind) -> None:
    world.controllers.paused.add("leaderworkersets")
    world.want(over(world))
    await world.steps(4)
    (replica,) = world.fleet.replicas
    await world.kill()
    blind(world)
    await world.restart()
    await world.steps(10)
    assert [each.child_id for each in world.fleet.replicas] == [replica.child_id]
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
    show(world)
    world.controllers.paused.clear()
    await world.steps(60, seconds=1.0)
    assert [each.child_id for each in world.ready()] == [replica.child_id]


async def test_what_nobody_remembers_is_ended_by_name(world: World) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    await world.kill()
    deny(world)
    world.intents.records.clear()
    world.wanted = ()
    await world.restart()
    await world.steps(60, seconds=1.0)
    assert not left_in(world)


async def test_it_is_not_ready_before_all_of_its_nodes_are(world: World) -> None:
    for number in range(4):
        world.controllers.reclaim(f"node-{number}")
    world.controllers.add_node("small", pods=1)
    world.want(over(world))
    await world.steps(6)
    await world.kill()
    deny(world)
    await world.restart()
    await world.steps(6)
    (replica,) = world.fleet.replicas
    assert not replica.routable
    assert replica.waiting.startswith("worker 1, worker 2: a machine")
    world.controllers.add_node("large")
    await world.steps(6)
    assert replica.child_id in {each.child_id for each in world.ready()}


async def test_pods_of_a_set_that_nobody_remembers_end_when_they_come(world: World) -> None:
    world.controllers.paused.add("leaderworkersets")
    world.want(over(world))
    await world.steps(4)
    await world.kill()
    deny(world)
    world.intents.records.clear()
    world.cluster.objects["secrets"].clear()
    world.wanted = ()
    await world.restart()
    await world.steps(4)
    assert len(sets_of(world)) == 1
    world.controllers.paused.clear()
    await world.steps(60, seconds=1.0)
    assert not left_in(world)
