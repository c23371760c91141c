"""A fleet of replicas that span nodes: what is written, when one is over, what it waits for, and killed servers."""

import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from kube_spanning import WORLD_NODES as NODES
from kube_spanning import over, pods_of, sets_of
from kube_world import World

from swell.adapters.providers.kubernetes import names
from swell.control.replica import Replica
from swell.ports.provider import Needs
from swell.state.replica import Phase
from swell.testing.cluster import Refused

KILL_SEEDS = range(40)
SETTLE_STEPS = 90


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


def _only(world: World) -> Replica:
    (replica,) = world.fleet.replicas
    return replica


async def test_a_replica_is_a_set_of_its_own_and_answers_where_its_leader_does(world: World) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    assert len(world.ready()) == 2
    assert len(sets_of(world)) == 2
    assert Counter(pod["metadata"]["annotations"][names.CHILD] for pod in world.pods()) == {
        replica.child_id: NODES for replica in world.ready()
    }
    for replica in world.ready():
        leader = world.cluster.get("pods", pods_of(world, replica)["0"])
        assert replica.address is not None
        assert replica.address.host == leader["status"]["podIP"]
    assert not world.cluster.objects["deployments"]
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
    assert len(world.cluster.objects["poddisruptionbudgets"]) == 1


async def test_where_a_place_is_renamed_a_set_serves_until_its_successor_does(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    (before,) = world.ready()
    await world.restart()
    assert [replica.child_id for replica in world.ready()] == [before.child_id], "a restart takes no route away"
    await world.rename("elsewhere")
    assert [replica.child_id for replica in world.ready()] == [before.child_id]
    for _ in range(60):
        await world.steps(1)
        assert world.ready()
    (after,) = world.ready()
    assert (after.provider, len(sets_of(world)), len(world.pods())) == ("elsewhere", 1, NODES)
    assert after.child_id != before.child_id


async def test_what_does_not_change_is_not_written(world: World) -> None:
    world.want(over(world, 2))
    await world.steps(20)
    before = world.api.writes, world.provider.api.reads
    await world.steps(40, seconds=2.0)
    assert (world.api.writes, world.provider.api.reads) == before


async def test_the_replica_that_the_plan_chose_is_the_one_that_goes(world: World) -> None:
    world.want(over(world, 3))
    await world.steps(12)
    chosen = world.ready()[0].child_id
    kept = {replica.child_id for replica in world.ready()} - {chosen}
    assert world.fleet.drain(chosen)
    await world.steps(40)
    left = {item["metadata"]["annotations"][names.CHILD] for item in sets_of(world).values()}
    assert left == {replica.child_id for replica in world.ready()} == kept


async def test_the_leader_may_finish_before_the_others_are_asked_to_end(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    replica = _only(world)
    pods = pods_of(world, replica)
    world.controllers.paused.add("kubelet")
    world.want()
    await world.steps(8)
    ending = {name for name, pod in world.cluster.objects["pods"].items() if "deletionTimestamp" in pod["metadata"]}
    assert ending == {pods["0"]}
    assert not sets_of(world)
    world.controllers.paused.clear()
    await world.steps(8)
    assert not world.cluster.objects["pods"]
    assert not world.fleet.replicas


async def test_a_container_that_ends_is_the_end_of_its_replica_and_of_no_other(world: World) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    broken, other = world.ready()
    pods = pods_of(world, other)
    world.controllers.kubelet.crash(pods_of(world, broken)["2"], 3)
    await world.steps(40)
    assert len(world.ready()) == 2
    assert broken.child_id not in {replica.child_id for replica in world.ready()}
    assert pods_of(world, other) == pods
    assert len(sets_of(world)) == 2


async def test_a_node_that_is_drained_is_notice_to_the_whole_replica(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    lost = _only(world)
    world.cluster.delete("pods", pods_of(world, lost)["1"])
    world.controllers.paused.add("kubelet")  # what is ending goes on for a while
    await world.steps(3)
    assert lost.child_id not in {replica.child_id for replica in world.ready()}
    world.controllers.paused.clear()
    await world.steps(60)
    (replica,) = world.ready()
    assert replica.child_id != lost.child_id
    assert list(pods_of(world, replica)) == ["0", "1", "2"]
    assert len(sets_of(world)) == 1


async def test_it_says_which_of_its_nodes_wait_for_what(world: World) -> None:
    world.controllers.paused.add("scheduler")
    world.want(over(world))
    await world.steps(4)
    assert _only(world).waiting == "leader, worker 1, worker 2: a machine"
    world.controllers.paused.clear()
    world.controllers.kubelet.pulling.add("engine")
    await world.steps(4)
    assert _only(world).waiting.startswith("leader, worker 1, worker 2: ImagePullBackOff")
    world.controllers.kubelet.pulling.clear()
    await world.steps(8)
    assert [replica.waiting for replica in world.ready()] == [""]


async def test_a_machine_that_is_missing_is_named_with_the_node_that_lacks_it() -> None:
    async with World(nodes=0) as world:
        for number in range(2):
            world.controllers.add_node(f"node-{number}", gpu=1)
        world.want(over(world, needs=Needs(image="engine", accelerator="H200", accelerators=1, nodes=NODES)))
        for node in ("node-0", "node-1"):
            item = world.cluster.get("nodes", node)
            labels = {**item["metadata"]["labels"], "nvidia.com/gpu.product": "NVIDIA-H200"}
            world.cluster.put("nodes", {**item, "metadata": {**item["metadata"], "labels": labels}})
        await world.steps(8)
        assert _only(world).waiting == "worker 2: a machine: 0/2 nodes are available: 2 Insufficient nvidia.com/gpu."


async def test_it_is_not_ready_while_one_of_its_nodes_is_away(world: World) -> None:
    world.want(over(world, unhealthy_seconds=600.0))
    await world.steps(12)
    (replica,) = world.ready()
    worker = world.cluster.get("pods", pods_of(world, replica)["1"])
    node = worker["spec"]["nodeName"]
    world.controllers.lose(node)
    said = [{"type": "Ready", "status": "False"}]  # which the controller of nodes says of their Pods
    world.cluster.set_status("pods", worker["metadata"]["name"], {"conditions": said})
    await world.steps(4)
    assert replica.handle is not None
    assert world.provider.status(replica.handle).ready is False
    assert _only(world).waiting == f"node {node}, which is not ready"


async def test_a_replica_without_a_kubelet_is_ended_by_force(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    for number in range(4):
        world.controllers.lose(f"node-{number}")
    world.want()
    await world.steps(80)
    assert not world.fleet.replicas
    assert not world.cluster.objects["pods"]
    assert not sets_of(world)
    assert not world.cluster.objects["secrets"]
    assert not world.cluster.objects["poddisruptionbudgets"]


async def test_a_cluster_without_the_controller_says_what_to_install_and_serves_the_rest() -> None:
    made = World()
    made.cluster.absent.add("leaderworkersets")
    async with made as world:
        world.want(over(world), world.workload("code", 2))
        await world.steps(20)
        assert Counter(replica.workload for replica in world.ready()) == {"code": 2}
        (failed,) = [replica for replica in world.fleet.replicas if replica.workload == "chat"]
        assert "LeaderWorkerSet: it is not installed; see https://lws.sigs.k8s.io" in failed.last_error
        world.cluster.absent.clear()
        await world.steps(200, seconds=1.0)
        assert Counter(replica.workload for replica in world.ready()) == {"code": 2, "chat": 1}


async def test_who_may_not_read_sets_is_told_to_give_the_right() -> None:
    def refuse(verb: str, kind: str) -> None:
        if kind == "leaderworkersets":
            raise Refused(403, "leaderworkersets is forbidden")

    async with World() as world:
        world.cluster.before_request = refuse
        world.cluster.break_watches()
        world.want(over(world), world.workload("code"))
        await world.steps(20)
        (failed,) = [replica for replica in world.fleet.replicas if replica.workload == "chat"]
        assert "may not be read: leaderworkersets is forbidden; give the rights" in failed.last_error
        assert [replica.workload for replica in world.ready()] == ["code"]


async def test_what_the_api_refuses_ends_the_start_with_its_words(world: World) -> None:
    def refuse(verb: str, kind: str) -> None:
        if (verb, kind) == ("patch", "leaderworkersets"):
            raise Refused(422, "admission webhook denied the request")

    world.cluster.before_request = refuse
    world.want(over(world))
    await world.steps(12)
    assert "admission webhook denied the request" in _only(world).last_error
    assert not world.pods()
    world.cluster.before_request = lambda verb, kind: None
    await world.steps(60, seconds=1.0)
    assert len(world.ready()) == 1
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))


async def test_a_set_that_nobody_wants_any_more_goes_with_what_it_left(world: World) -> None:
    world.want(over(world, 2))
    await world.steps(12)
    await world.kill()
    forgotten = next(iter(world.intents.records))
    del world.intents.records[forgotten]
    world.wanted = (over(world, 1),)
    await world.restart()
    await world.steps(40)
    assert len(sets_of(world)) == 1
    assert len(world.pods()) == NODES
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))


async def test_a_model_may_come_to_span_nodes_and_back(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    world.want(over(world, 2, "v2"))
    await world.steps(80)
    assert (len(sets_of(world)), len(world.pods())) == (2, 2 * NODES)
    assert not world.cluster.objects["deployments"]
    world.want(world.workload(count=2, fingerprint="v3"))
    await world.steps(80)
    assert (len(sets_of(world)), len(world.pods())) == (0, 2)
    assert len(world.cluster.objects["poddisruptionbudgets"]) == 1
    assert set(world.cluster.objects["secrets"]) == set(world.cluster.objects["deployments"])


async def test_a_set_that_somebody_deletes_is_the_end_of_its_replica(world: World) -> None:
    world.want(over(world))
    await world.steps(12)
    lost = _only(world)
    world.cluster.delete("leaderworkersets", next(iter(sets_of(world))))
    await world.steps(60)
    (replica,) = world.ready()
    assert replica.child_id != lost.child_id
    assert len(world.pods()) == NODES


def _check(world: World, most: int) -> None:
    """What holds at any time: a replica has one set, and there are no more than were wanted."""
    children = Counter(item["metadata"]["annotations"][names.CHILD] for item in sets_of(world).values())
    assert all(count == 1 for count in children.values()), children
    assert len(children) <= most, f"{len(children)} sets, {most} wanted at most"


def _check_settled(world: World) -> None:
    ready = world.ready()
    assert len(ready) == world.wanted[0].count
    assert {item["metadata"]["annotations"][names.CHILD] for item in sets_of(world).values()} == {
        replica.child_id for replica in ready
    }
    assert all(replica.phase is Phase.READY for replica in ready)
    assert len(world.pods()) == NODES * len(ready)
    assert set(world.cluster.objects["secrets"]) == set(sets_of(world))
    assert set(world.intents.records) == {replica.child_id for replica in world.fleet.replicas}


@pytest.mark.parametrize("seed", KILL_SEEDS)
async def test_a_server_that_is_killed_at_any_write_leaves_no_double_and_no_orphan(seed: int) -> None:
    print(f"seed {seed}")
    async with World() as world:
        chance, most, version = random.Random(seed), 2, 1
        world.want(over(world, 2))
        world.doom.dies_after, world.doom.kill_at = bool(seed % 2), 1 + seed // 2 % 7
        await world.steps(4)
        for _ in range(8):
            what = chance.choice(["count", "version", "crash", "delete", "wait"])
            if what == "count":
                number = chance.randrange(4)
                most = max(most, number)
                world.want(over(world, number, f"v{version}"))
            elif what == "version":
                version += 1
                world.want(over(world, world.wanted[0].count, f"v{version}"))
            elif what in ("crash", "delete") and world.pods():
                pod = chance.choice(world.pods())
                if what == "delete":
                    world.cluster.delete("pods", pod["metadata"]["name"])
                elif pod["status"].get("containerStatuses"):
                    world.controllers.kubelet.crash(pod["metadata"]["name"])
            for _ in range(4):
                await world.steps(1)
                _check(world, 2 * most * version)  # who goes may still be there while a successor comes
            if chance.random() < 0.4:
                world.doom.kill_at = world.doom.writes + 1 + chance.randrange(8)
        world.doom.kill_at = None
        await world.steps(SETTLE_STEPS, seconds=1.0)
        _check_settled(world)
        assert world.doom.deaths > 0
