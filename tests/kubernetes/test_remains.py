"""What a killed server leaves is found by the next one, and what could not be deleted goes later."""

import pytest
from kube_spanning import left_in, over, refuse_times, sets_of
from kube_world import World

from swell.adapters.providers.kubernetes.plan import EMPTY_SECONDS
from swell.adapters.providers.kubernetes.remains import AGAIN_SECONDS

MAX_WRITES = 12  # of an end, and some more


@pytest.mark.parametrize("write", range(1, MAX_WRITES))
@pytest.mark.parametrize("dies_after", [False, True])
async def test_a_server_that_is_killed_while_replicas_over_nodes_end(write: int, dies_after: bool) -> None:
    async with World() as world:
        world.want(over(world, 2))
        await world.steps(12)
        world.want()
        world.doom.dies_after, world.doom.kill_at = dies_after, world.doom.writes + write
        await world.steps(60, seconds=0.5)
        assert not left_in(world)
        assert not world.intents.records


@pytest.mark.parametrize("write", range(1, 6))
@pytest.mark.parametrize("dies_after", [False, True])
async def test_a_server_that_is_killed_while_a_deployment_goes(write: int, dies_after: bool) -> None:
    async with World() as world:
        world.want(world.workload())
        await world.steps(12)
        world.want()
        await world.steps(40)
        await world.steps(1, seconds=EMPTY_SECONDS - 60.0)
        assert len(world.cluster.objects["deployments"]) == 1
        world.doom.dies_after, world.doom.kill_at = dies_after, world.doom.writes + write
        await world.steps(3, seconds=60.0)
        await world.steps(3, seconds=EMPTY_SECONDS)
        assert not left_in(world)


@pytest.mark.parametrize("kind", ["poddisruptionbudgets", "secrets", "leaderworkersets"])
async def test_what_a_replica_over_nodes_left_is_deleted_later_where_that_failed(kind: str) -> None:
    async with World() as world:
        world.want(over(world, 2))
        await world.steps(12)
        refused = refuse_times(world, "delete", kind, 3)
        world.want()
        await world.steps(60, seconds=0.5)
        assert not refused
        assert not left_in(world)


@pytest.mark.parametrize("kind", ["poddisruptionbudgets", "secrets", "deployments"])
async def test_what_a_deployment_left_is_deleted_later_where_that_failed(kind: str) -> None:
    async with World() as world:
        world.want(world.workload())
        await world.steps(12)
        world.want()
        await world.steps(40)
        refused = refuse_times(world, "delete", kind, 2)
        await world.steps(2, seconds=EMPTY_SECONDS)
        await world.steps(60, seconds=1.0)
        assert not refused
        assert not left_in(world)


async def test_secrets_are_looked_for_again_where_they_could_not_be_listed() -> None:
    async with World() as world:
        world.want(over(world))
        await world.steps(12)
        await world.kill()
        for kind in ("leaderworkersets", "pods"):
            world.cluster.objects[kind].clear()
        world.wanted = ()
        refused = refuse_times(world, "list", "secrets", 2)
        await world.restart()
        await world.steps(4)
        assert len(world.cluster.objects["secrets"]) == 1
        await world.steps(3, seconds=AGAIN_SECONDS)
        assert not refused
        assert not left_in(world)


async def test_the_budget_of_what_stays_stays() -> None:
    async with World() as world:
        world.want(over(world, 3))
        await world.steps(12)
        await world.kill()
        gone = sorted(sets_of(world))[0]
        world.cluster.delete("leaderworkersets", gone)
        for name in [name for name in world.cluster.objects["pods"] if name.startswith(gone)]:
            world.cluster.remove("pods", name)
        await world.restart()
        await world.steps(30, seconds=1.0)
        assert len(world.ready()) == 3
        assert len(world.cluster.objects["poddisruptionbudgets"]) == 1
        assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
