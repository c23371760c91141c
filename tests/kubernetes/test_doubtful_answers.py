"""Answers of a cluster that are wrong for a moment, or come late: nothing is believed that the watch does not show."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from kube_spanning import READS, WORLD_NODES, left_in, over, pods_of, refuse_times, sets_of, show
from kube_world import DirectApi, ServerKilledError, World

from swell.adapters.providers.kubernetes.api import Kind
from swell.testing.cluster import Refused

SETTLE_STEPS = 60
WATCHES_A_MINUTE = 20  # of a kind that may be listed and not watched: the back-off's steps in its first minute


async def test_a_set_that_the_watch_shows_is_ended_whatever_a_deletion_was_answered() -> None:
    async with World() as world:
        world.want(over(world))
        await world.steps(12)
        refuse_times(world, "delete", "leaderworkersets", 1, status=404)
        world.want()
        await world.steps(SETTLE_STEPS)
        assert (left_in(world), world.fleet.replicas) == (set(), ())


async def test_a_successor_waits_for_a_set_that_the_watch_shows() -> None:
    async with World(nodes=8) as world:
        world.want(over(world))
        await world.steps(12)
        (replica,) = world.ready()
        refuse_times(world, "delete", "leaderworkersets", 1, status=404)
        world.controllers.kubelet.crash(pods_of(world, replica)["1"], 3)
        await world.steps(SETTLE_STEPS, seconds=1)
        assert (len(sets_of(world)), len(world.ready())) == (1, 1)
        assert len(world.pods()) == WORLD_NODES


@pytest.mark.parametrize("steps", [0, 2, 6])
async def test_a_set_that_no_watch_has_told_of_is_known_to_have_gone_by_a_list(
    steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World() as world:
        await world.steps(3)
        apply = world.cluster.apply

        def refuse(verb: str, kind: str) -> None:
            if kind == "leaderworkersets" and verb in READS:
                raise Refused(403, "no")

        def apply_blindly(kind: str, *words: object, **options: object) -> object:
            if kind == "leaderworkersets":
                world.cluster.before_request = refuse
                world.cluster.break_watches()
            return apply(kind, *words, **options)  # type: ignore[arg-type]

        with monkeypatch.context() as blind:
            blind.setattr(world.cluster, "apply", apply_blindly)
            world.want(over(world))
            await world.steps(20)
        assert len(world.ready()) == 1
        world.want()
        while sets_of(world):
            await world.steps(1, seconds=0.25)
        await world.steps(steps, seconds=0.25)
        show(world)
        await world.steps(SETTLE_STEPS, seconds=2)
        assert (left_in(world), world.fleet.replicas) == (set(), ())


async def test_one_list_that_fails_keeps_no_server_from_starting_and_none_is_asked_for_a_deployment() -> None:
    async with World() as world:
        world.cluster.absent.add("leaderworkersets")
        world.cluster.break_watches()
        world.want(world.workload())
        await world.steps(12)
        before = world.ready()
        refused = refuse_times(world, "list", "secrets", 1)
        await world.restart()
        assert [replica.child_id for replica in world.ready()] == [replica.child_id for replica in before]
        await world.steps(SETTLE_STEPS)
        assert not refused, "it was asked later, for what is left"


async def test_what_is_started_while_its_like_is_cleared_away_keeps_its_secret_and_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World() as world:
        world.want(world.workload())
        world.doom.kill_at, world.doom.dies_after = world.doom.writes + 3, True
        with suppress(ServerKilledError):
            await world.fleet.step(world.clock.monotonic())
        await world.quiet()
        world.intents.records.clear()
        world.wanted = ()
        answered, delete = asyncio.Event(), DirectApi.delete

        async def slow(self: DirectApi, kind: Kind, name: str, **options: int) -> None:
            if kind is Kind.DISRUPTION_BUDGETS:
                await answered.wait()
            await delete(self, kind, name, **options)

        monkeypatch.setattr(DirectApi, "delete", slow)
        await world.restart()
        await world.steps(1)
        world.want(world.workload())
        await world.steps(12)
        answered.set()
        await world.steps(SETTLE_STEPS)
        world.check_settled()
        assert len(world.cluster.objects["poddisruptionbudgets"]) == 1


@pytest.mark.parametrize("kind", ["nodes", "leaderworkersets"])
async def test_what_may_be_listed_and_not_watched_is_asked_for_more_and_more_rarely(kind: str) -> None:
    async with World() as world:
        world.want(world.workload(count=2))
        await world.steps(12)

        def refuse(verb: str, asked: str) -> None:
            if (verb, asked) == ("watch", kind):
                raise Refused(403, "cannot watch")

        world.cluster.before_request = refuse
        world.cluster.break_watches()
        before = Counter(world.cluster.requests)
        await world.steps(600, seconds=0.1)
        assert 0 < (world.cluster.requests - before)[f"watch {kind}"] <= WATCHES_A_MINUTE
        assert len(world.ready()) == 2
