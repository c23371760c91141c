"""A cluster whose API does not answer while servers begin: what it runs is neither doubled, nor lost, nor left over."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from kube_spanning import WORLD_NODES, over
from kube_world import DirectApi, World

from swell.adapters.providers.kubernetes import provider, watch
from swell.adapters.providers.kubernetes.api import Kind, Page
from swell.adapters.providers.kubernetes.certificates import Certificates
from swell.state.replica import Phase
from swell.testing.cluster import Refused

SETTLE_STEPS = 120


def _go_away(world: World) -> None:
    def refuse(verb: str, kind: str) -> None:
        raise Refused(503, "the control plane is being upgraded")

    world.cluster.before_request = refuse
    world.cluster.break_watches()


async def _restart(world: World) -> None:
    """Wait for no real seconds: errors come at once."""
    world.awaits = True
    with pytest.MonkeyPatch.context() as soon:
        soon.setattr(provider, "FAILING_SECONDS", 0.01)
        soon.setattr(watch, "FAILING_TRIES", 1)
        await world.restart()


async def _come_back(world: World) -> None:
    world.cluster.before_request = lambda verb, kind: None
    for _ in range(SETTLE_STEPS):
        await world.steps(1, seconds=1.0)
        await asyncio.sleep(0)


@pytest.mark.parametrize("crashed", ["none", "one Pod", "all Pods"])
@pytest.mark.parametrize("later", [1, 2])
async def test_what_runs_is_taken_over_by_whichever_server_is_there_then(later: int, crashed: str) -> None:
    async with World(nodes=8) as world:
        world.want(world.workload("small", count=3), over(world))
        await world.steps(16)
        before = {replica.child_id for replica in world.ready()}
        assert len(before) == 4
        _go_away(world)
        for _ in range(later):
            await _restart(world)
            assert {replica.child_id for replica in world.fleet.replicas} == before
            assert {(replica.phase, replica.unseen) for replica in world.fleet.replicas} == {(Phase.READY, True)}
            writes = world.api.writes
            await world.steps(8)
            assert world.api.writes == writes
        names = sorted(pod["metadata"]["name"] for pod in world.pods("small"))
        gone = {"none": [], "one Pod": names[:1], "all Pods": names}[crashed]
        for name in gone:
            world.cluster.delete("pods", name, 0)
        await _come_back(world)
        world.check({"small": 3})
        after = {replica.child_id for replica in world.ready()}
        assert len(after) == 4
        assert before <= after or gone
        spanned = {replica.child_id for replica in world.ready() if replica.workload == "chat"}
        assert set(world.claims().values()) == {1}
        assert after - spanned <= set(world.claims())
        assert len(world.pods()) == 3 + WORLD_NODES
        world.want()
        await world.steps(SETTLE_STEPS)
        assert world.pods() == []


async def test_what_is_not_wanted_any_more_ends_and_what_is_wanted_now_begins_then() -> None:
    async with World() as world:
        world.want(world.workload(count=2), world.workload("other", count=1))
        await world.steps(12)
        _go_away(world)
        world.wanted = (world.workload(count=1, fingerprint="v2"), world.workload("third"))
        await _restart(world)
        await world.steps(8)
        assert (len(world.pods("chat")), len(world.pods("other")), len(world.pods("third"))) == (2, 1, 0)
        await _come_back(world)
        world.check_settled()


async def test_an_orphan_of_a_lost_store_ends_once_the_cluster_answers() -> None:
    async with World() as world:
        world.want(world.workload(count=2))
        await world.steps(12)
        lost = world.ready()[0].child_id
        del world.intents.records[lost]
        world.wanted = (world.workload(count=1),)
        _go_away(world)
        await _restart(world)
        await world.steps(4)
        assert lost in world.claims()
        await _come_back(world)
        assert lost not in world.claims()
        world.check_settled()


async def test_a_list_of_secrets_that_fails_is_awaited_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        world.want(world.workload(count=1))
        await world.steps(12)
        answer = ["they cannot be read"]

        async def begin(self: Certificates) -> str:
            return answer[0]

        monkeypatch.setattr(Certificates, "begin", begin)
        await _restart(world)
        assert "they cannot be read" in world.fleet.awaited["cluster"]
        answer[0] = ""
        await _come_back(world)
        assert not world.fleet.awaited
        world.check_settled()


async def test_what_was_found_before_the_cluster_fell_silent_is_let_alone_with_the_rest() -> None:
    """Secrets cannot be read, and without LeaderWorkerSets one replica that is gone is looked for there."""
    async with World() as world:
        world.cluster.absent.add("leaderworkersets")
        world.cluster.break_watches()
        world.want(world.workload("a"), world.workload("b"), world.workload("c", count=2))
        await world.steps(16)
        assert len(world.ready()) == 4
        before = world.pods("c")
        (name,) = [each for each in world.cluster.objects["deployments"] if each.startswith("b-")]
        world.cluster.delete("deployments", name, 0)
        for pod in world.pods("b"):
            world.cluster.delete("pods", pod["metadata"]["name"], 0)

        def refuse(verb: str, kind: str) -> None:
            if kind == "secrets" and verb == "list":
                raise Refused(500, "the key service is away")

        world.cluster.before_request = refuse
        world.wanted = (world.workload("b"), world.workload("c", count=2))
        adoption = asyncio.ensure_future(_restart(world))
        while not adoption.done():
            await asyncio.sleep(0)
            world.pass_time(1.0)
        await adoption
        assert "the key service is away" in world.fleet.awaited["cluster"]
        await world.steps(30, seconds=1.0)
        assert [pod["metadata"]["uid"] for pod in world.pods("c")] == [pod["metadata"]["uid"] for pod in before]
        await _come_back(world)
        assert [pod["metadata"]["uid"] for pod in world.pods("c")] == [pod["metadata"]["uid"] for pod in before]
        world.check_settled()


async def test_one_error_before_a_long_list_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "FAILING_SECONDS", 0.05)
    async with World() as world:
        goes_on = asyncio.Event()
        world.cluster.refuse_next.append(Refused(503, "once"))
        pages = DirectApi.pages

        async def slowly(self: DirectApi, kind: Kind, query: str) -> AsyncIterator[Page]:
            async for page in pages(self, kind, query):
                await goes_on.wait()
                yield page

        monkeypatch.setattr(DirectApi, "pages", slowly)
        await world.kill()
        world.begin()
        adoption = asyncio.ensure_future(world.fleet.adopt())
        await asyncio.wait([adoption], timeout=0.2)
        assert not adoption.done(), "a list is under way"
        world.pass_time(1.0)
        goes_on.set()
        await adoption
        assert not world.fleet.awaited
