"""Seeded faults while LeaderWorkerSets come out of sight and back, and servers are killed.

Nothing healthy ends, nobody is started twice, and what shall end does once it can.
"""

import random

import pytest
from kube_spanning import ALL_VERBS, READS, WORLD_NODES, deny, hide, left_in, over, sets_of, show
from kube_world import World

from swell.adapters.providers.kubernetes import names

SEEDS = range(20)
ROUNDS = 12
SETTLE_STEPS = 120
DOWN_STEPS = 120


def _uids(world: World) -> dict[str, set[str]]:
    """Uids of what each child has, by its id: its LeaderWorkerSet and its Pods."""
    found: dict[str, set[str]] = {}
    for kind in ("leaderworkersets", "pods"):
        for item in world.cluster.objects[kind].values():
            found.setdefault(item["metadata"]["annotations"][names.CHILD], set()).add(item["metadata"]["uid"])
    return found


def _look_away(world: World, chance: random.Random) -> None:
    """Out of sight, in one of several ways, or back."""
    what = chance.choice(["reads", "all", "hide", "show", "show"])
    show(world)
    if what == "hide":
        hide(world)
    elif what != "show":
        deny(world, READS if what == "reads" else ALL_VERBS)


async def _maybe_kill(world: World, chance: random.Random) -> None:
    if chance.random() < 0.4:
        await world.restart()
    elif chance.random() < 0.4:
        world.doom.dies_after = chance.random() < 0.5
        world.doom.kill_at = world.doom.writes + 1 + chance.randrange(8)


def _harm(world: World, chance: random.Random) -> set[str]:
    """Break a Pod, or take it away; whose it was."""
    pods = [pod for pod in world.pods() if pod["status"].get("containerStatuses")]
    if not pods:
        return set()
    pod = chance.choice(pods)
    if chance.random() < 0.5:
        world.controllers.kubelet.crash(pod["metadata"]["name"], 3)
    else:
        world.cluster.delete("pods", pod["metadata"]["name"])
    return {pod["metadata"]["annotations"][names.CHILD]}


async def _down(world: World, chance: random.Random) -> None:
    """Nothing is wanted, from a time on at which nothing may be readable; everything is, before it is too late."""
    world.want()
    for step in range(DOWN_STEPS):
        if step == 20:
            show(world)
            world.doom.kill_at = None
        elif step < 20 and chance.random() < 0.2:
            _look_away(world, chance)
            await _maybe_kill(world, chance)
        await world.steps(1, seconds=1.0)
        if step > 20 and not world.fleet.replicas:
            return


@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_that_is_well_ends_whoever_looks_away(seed: int) -> None:
    print(f"seed {seed}")
    async with World() as world:
        chance = random.Random(seed)
        world.want(over(world, 2))
        await world.steps(12)
        before = _uids(world)
        assert len(before) == 2
        for _ in range(ROUNDS):
            _look_away(world, chance)
            await _maybe_kill(world, chance)
            for _ in range(4):
                await world.steps(1, seconds=chance.choice([0.25, 2.0, 20.0]))
                assert _uids(world) == before
        world.doom.kill_at = None
        show(world)
        await world.steps(SETTLE_STEPS, seconds=1.0)
        assert _uids(world) == before
        assert len(world.ready()) == 2
        await _down(world, chance)
        assert not world.fleet.replicas
        assert not left_in(world)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_breaks_out_of_sight_is_replaced_once_and_harms_no_other(seed: int) -> None:
    print(f"seed {seed}")
    async with World() as world:
        chance, harmed = random.Random(seed), set[str]()
        world.want(over(world, 3))
        await world.steps(12)
        for _ in range(ROUNDS):
            _look_away(world, chance)
            if chance.random() < 0.5:
                harmed |= _harm(world, chance)
            well = {replica.child_id for replica in world.ready()} - harmed
            before = {child: uids for child, uids in _uids(world).items() if child in well}
            await _maybe_kill(world, chance)
            for _ in range(4):
                await world.steps(1, seconds=chance.choice([0.25, 2.0, 10.0]))
                there = _uids(world)
                assert {child: uids for child, uids in there.items() if child in well} == before
                assert len(there.keys() - harmed) <= 3
        world.doom.kill_at = None
        show(world)
        await world.steps(SETTLE_STEPS, seconds=1.0)
        assert len(world.ready()) == 3
        assert _uids(world).keys() == {replica.child_id for replica in world.ready()}
        assert all(len(uids) == 1 + WORLD_NODES for uids in _uids(world).values())
        assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
        assert set(world.intents.records) == {replica.child_id for replica in world.fleet.replicas}
        await _down(world, chance)
        assert not world.fleet.replicas
        assert not left_in(world)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_is_wanted_out_of_sight_comes_and_goes_once(seed: int) -> None:
    print(f"seed {seed}")
    async with World() as world:
        chance, version = random.Random(seed), 1
        world.want(over(world, 2))
        for _ in range(ROUNDS):
            if chance.random() < 0.3:
                version += 1
            world.want(over(world, chance.randrange(4), f"v{version}"))
            if chance.random() < 0.5:
                _look_away(world, chance)
            await _maybe_kill(world, chance)
            for _ in range(4):
                await world.steps(1, seconds=chance.choice([0.25, 2.0]))
                sets = [item["metadata"]["annotations"][names.CHILD] for item in sets_of(world).values()]
                assert len(sets) == len(set(sets))
        world.doom.kill_at = None
        show(world)
        await world.steps(SETTLE_STEPS, seconds=1.0)
        assert len(world.ready()) == world.wanted[0].count == len(sets_of(world))
        await _down(world, chance)
        assert not world.fleet.replicas
        assert not left_in(world)
