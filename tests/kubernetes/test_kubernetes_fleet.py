"""A fleet on Kubernetes: what is written, who is let go, and what happens when something goes wrong."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kube_world import World

from swell.adapters.providers.kubernetes import names
from swell.errors import AtCapacity
from swell.ports.provider import Presence
from swell.state.replica import Phase
from swell.testing.cluster import Refused

KILL_SEEDS = range(100)
SETTLE_STEPS = 90


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World() as made:
        yield made


async def test_many_starts_in_one_step_are_one_write_a_deployment(world: World) -> None:
    world.want(world.workload("chat", 50), world.workload("code", 30))
    await world.steps(2)
    assert world.cluster.requests["patch deployments"] == 2
    await world.steps(12)
    assert len(world.ready()) == 80
    assert world.controllers.created == 80
    assert {replica.address.port for replica in world.ready() if replica.address} == {8000}
    assert len({replica.address.host for replica in world.ready() if replica.address}) == 80


async def test_what_does_not_change_is_not_written(world: World) -> None:
    world.want(world.workload(count=5))
    await world.steps(20)
    assert len(world.claims()) == 5
    before = world.api.writes, world.provider.api.reads
    await world.steps(40, seconds=2.0)
    assert (world.api.writes, world.provider.api.reads) == before


async def test_a_server_that_does_not_surely_lead_writes_nothing_whatever_it_was_told_and_goes_on_when_it_does() -> (
    None
):
    doubt = AtCapacity("another server may lead", retry_after_seconds=1.0)
    leads = True

    async def confirm() -> None:
        if not leads:
            raise doubt

    async with World(confirm=confirm) as world:
        world.want(world.workload("chat", 3), world.workload("code", 2))
        await world.steps(20)
        assert len(world.ready()) == 5
        leads, before = False, world.api.writes
        (name,) = (each for each in world.cluster.objects["deployments"] if "chat" in each)
        world.cluster.patch("deployments", name, {"spec": {"replicas": 4}})  # which the other one did
        world.want(world.workload("chat", 1))
        await world.steps(60)
        assert world.api.writes == before
        assert len(world.pods("chat")) == 4
        assert len(world.pods("code")) == 2
        leads = True
        await world.steps(200)
        assert (len(world.pods("chat")), len(world.pods("code"))) == (1, 0)


async def test_the_replica_that_the_plan_chose_is_the_one_that_goes(world: World) -> None:
    world.want(world.workload(count=6))
    await world.steps(20)
    chosen = [replica.child_id for replica in world.ready()][1:4:2]
    kept = {replica.child_id for replica in world.ready()} - set(chosen)
    for child_id in chosen:
        assert world.fleet.drain(child_id)
    await world.steps(30)
    assert {replica.child_id for replica in world.ready()} == kept
    assert set(world.claims()) == kept
    assert world.controllers.created == 6
    assert all(replica.restarts == 0 for replica in world.fleet.replicas)


async def test_nobody_is_killed_before_its_replica_set_knows_that_it_is_one_too_many(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    world.controllers.paused = {"deployments", "replicasets"}
    (first, second) = world.ready()
    assert first.handle is not None
    world.fleet.drain(first.child_id)
    await world.provider.stop(first.handle, grace_seconds=0.0)
    await world.steps(4)
    assert len(world.pods()) == 2
    world.controllers.paused.clear()
    await world.steps(8)
    assert set(world.claims()) == {second.child_id}
    assert world.controllers.created == 2


async def test_an_end_is_told_once_it_is_written_or_cannot_be(world: World) -> None:
    world.want(world.workload())
    await world.steps(12)
    (replica,) = world.ready()
    assert replica.handle is not None
    world.controllers.kubelet.crash(world.pods()[0]["metadata"]["name"])
    world.cluster.before_request = lambda verb, kind: _refuse(verb, kind, Refused(503, "etcdserver: leader changed"))
    await world.steps(2)
    assert world.provider.status(replica.handle).presence is Presence.RUNNING
    await world.steps(24)
    assert world.provider.status(replica.handle).presence is Presence.GONE


async def test_going_to_zero_ends_all_and_keeps_the_deployment_for_the_next_time(world: World) -> None:
    world.want(world.workload(count=3))
    await world.steps(12)
    world.fleet.set_count("chat", 0)
    await world.steps(20)
    assert (world.fleet.replicas, world.pods()) == ((), [])
    assert world.asked_for("chat") == 0
    assert len(world.cluster.objects["deployments"]) == 1
    world.fleet.set_count("chat", 1)
    await world.steps(4)
    assert len(world.ready()) == 1
    world.fleet.set_count("chat", 0)
    await world.steps(20)
    await world.steps(4, seconds=1000.0)
    assert world.cluster.objects["deployments"] == world.cluster.objects["secrets"] == {}
    assert world.cluster.objects["poddisruptionbudgets"] == {}


async def test_another_launch_line_is_another_deployment_and_the_old_one_goes(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    world.want(world.workload(count=2, fingerprint="v2"))
    await world.steps(6)
    assert len(world.ready()) >= 2, "the old ones serve until their successors do"
    await world.steps(60)
    (name,) = world.cluster.objects["deployments"]
    assert name == names.object_name("chat", "v2")
    assert list(world.cluster.objects["secrets"]) == [name]
    assert len(world.cluster.objects["poddisruptionbudgets"]) == 1
    world.check_settled()


async def test_a_pod_without_a_machine_tells_what_it_waits_for(world: World) -> None:
    needs = world.workload().needs
    for name in list(world.cluster.objects["nodes"]):
        world.controllers.taint(name, "maintenance")
    world.want(world.workload(needs=needs))
    await world.steps(6)
    (replica,) = world.fleet.replicas
    assert (replica.phase, replica.address) == (Phase.STARTING, None)
    assert "a machine: 0/4 nodes are available: 4 node(s) had untolerated taint {maintenance: }" in replica.waiting


async def test_an_image_that_does_not_come_is_told(world: World) -> None:
    world.controllers.kubelet.pulling.add("engine")
    world.want(world.workload())
    await world.steps(6)
    assert world.fleet.replicas[0].waiting == "ImagePullBackOff: Back-off pulling engine"


async def test_a_container_that_ends_is_one_failure_and_its_pod_serves_the_successor(world: World) -> None:
    world.want(world.workload(count=3))
    await world.steps(12)
    pods = {pod["metadata"]["name"] for pod in world.pods()}
    before = {replica.child_id for replica in world.ready()}
    world.controllers.kubelet.crash(sorted(pods)[0], exit_code=139)
    await world.steps(20)
    assert {pod["metadata"]["name"] for pod in world.pods()} == pods, "its kubelet starts it again"
    (fresh,) = [replica for replica in world.ready() if replica.child_id not in before]
    assert fresh.restarts == 1
    assert "killed by signal 11" in fresh.last_error
    world.check_settled()


async def test_a_container_that_ends_again_and_again_waits_longer_and_longer(world: World) -> None:
    world.controllers.kubelet.failing.add("chat")
    world.want(world.workload())
    await world.steps(600)
    (replica,) = world.fleet.replicas
    assert replica.failures >= 4
    assert "exit code 1" in replica.last_error
    assert len(world.pods()) <= 1
    world.controllers.kubelet.failing.clear()
    await world.steps(400)
    world.check_settled()


async def test_a_pod_that_somebody_deletes_is_drained_and_replaced_without_a_surge(world: World) -> None:
    world.want(world.workload(count=3, drain_seconds=4.0))
    await world.steps(12)
    world.controllers.kubelet.stubborn.add("chat")  # it has requests to finish
    name = world.pods()[0]["metadata"]["name"]
    world.cluster.delete("pods", name)
    await world.steps(3)
    assert world.asked_for("chat") == 3
    draining = [replica for replica in world.fleet.replicas if replica.phase is not Phase.READY]
    assert any(replica.phase in (Phase.DRAINING, Phase.STOPPING) for replica in draining)
    await world.steps(200)
    assert world.controllers.created == 4
    world.check_settled()


async def test_a_machine_that_is_lost_does_not_hold_its_replicas(world: World) -> None:
    world.want(world.workload(count=4))
    await world.steps(12)
    node = world.pods()[0]["spec"]["nodeName"]
    lost = {pod["metadata"]["name"] for pod in world.pods() if pod["spec"]["nodeName"] == node}
    world.controllers.lose(node)
    for name in lost:
        pod = world.cluster.get("pods", name)
        conditions = [{**each, "status": "False"} for each in pod["status"]["conditions"] if each["type"] == "Ready"]
        world.cluster.set_status("pods", name, {"conditions": conditions})
    await world.steps(120)
    assert not lost & set(world.cluster.objects["pods"]), "they were deleted by force"
    world.check_settled()


async def test_an_evicted_pod_is_replaced_and_cleared_away(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    name = world.pods()[0]["metadata"]["name"]
    world.controllers.kubelet.fail(name, "Evicted")
    await world.steps(20)
    assert name not in world.cluster.objects["pods"]
    world.check_settled()


async def test_a_deployment_that_the_api_refuses_is_a_reason_and_is_tried_again(world: World) -> None:
    refusal = Refused(403, "admission webhook: images must be signed")
    world.cluster.before_request = lambda verb, kind: _refuse(verb, kind, refusal)
    world.want(world.workload())
    await world.steps(4)
    (replica,) = world.fleet.replicas
    assert "images must be signed" in replica.last_error
    world.cluster.before_request = lambda verb, kind: None
    await world.steps(SETTLE_STEPS)
    world.check_settled()


def _refuse(verb: str, kind: str, refusal: Refused) -> None:
    if (verb, kind) == ("patch", "deployments"):
        raise refusal


async def test_a_deployment_that_somebody_deletes_is_made_again(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    world.cluster.delete("deployments", names.object_name("chat", "v1"))
    await world.steps(SETTLE_STEPS)
    world.check_settled()


async def test_a_scale_that_somebody_changes_is_set_right(world: World) -> None:
    world.want(world.workload(count=2))
    await world.steps(12)
    world.cluster.patch("deployments", names.object_name("chat", "v1"), {"spec": {"replicas": 7}})
    await world.steps(SETTLE_STEPS)
    world.check_settled()


async def test_a_new_server_adopts_all_and_writes_nothing(world: World) -> None:
    world.want(world.workload("chat", 5), world.workload("code", 3))
    await world.steps(20)
    before = {replica.child_id: replica.address for replica in world.ready()}
    await world.restart()
    assert {replica.child_id: replica.address for replica in world.ready()} == before
    await world.steps(20)
    assert world.api.writes == 0
    world.check_settled()


async def test_what_a_lost_store_no_longer_knows_is_taken_over_or_goes(world: World) -> None:
    world.want(world.workload("chat", 4), world.workload("code", 2))
    await world.steps(20)
    world.intents.records.clear()
    world.want(world.workload("chat", 3))
    await world.restart()
    await world.steps(SETTLE_STEPS)
    assert world.controllers.created == 6, "three of the four serve on"
    world.check_settled()


def _story(seed: int) -> list[tuple[str, int]]:
    """What happens to a fleet, by a seed: counts that change, crashes, deleted Pods, another launch line."""
    chance = random.Random(seed)
    return [(chance.choice(["count", "crash", "delete", "version", "step"]), chance.randrange(5)) for _ in range(8)]


@pytest.mark.parametrize("seed", KILL_SEEDS)
async def test_a_server_that_is_killed_at_any_write_leaves_no_double_and_no_orphan(seed: int) -> None:
    print(f"seed {seed}")
    async with World() as world:
        chance, most, version = random.Random(seed), 2, 1
        world.want(world.workload(count=2))
        world.doom.dies_after, world.doom.kill_at = bool(seed % 2), 1 + seed // 2 % 5
        await world.steps(4)
        for what, number in _story(seed):
            if what == "count":
                most = max(most, number)
                world.want(world.workload(count=number, fingerprint=f"v{version}"))
            elif what == "version":
                version += 1
                world.want(world.workload(count=world.wanted[0].count, fingerprint=f"v{version}"))
            elif what in ("crash", "delete") and world.pods():
                pod = chance.choice(world.pods())
                if what == "delete":
                    world.cluster.delete("pods", pod["metadata"]["name"])
                elif pod["status"].get("containerStatuses"):
                    world.controllers.kubelet.crash(pod["metadata"]["name"])
            for _ in range(4):
                await world.steps(1)
                world.check({"chat": most * version})  # each version may have as many while one follows another
            if chance.random() < 0.4:
                world.doom.kill_at = world.doom.writes + 1 + chance.randrange(8)
        world.doom.kill_at = None
        await world.steps(SETTLE_STEPS, seconds=1.0)
        world.check_settled()
        assert world.doom.deaths > 0


operations = st.tuples(
    st.sampled_from(
        ["step", "crash", "delete", "count", "version", "conflicts", "busy", "away", "too old", "break", "lose"]
    ),
    st.integers(0, 4),
)


@settings(max_examples=60)
@given(st.lists(operations, max_size=20))
@example([("busy", 3), ("step", 0), ("version", 0), ("busy", 1)])  # of a Deployment that was given up the Secret alone
def test_the_fleet_comes_to_what_is_wanted_after_any_sequence_of_faults(sequence: list[tuple[str, int]]) -> None:
    async def play() -> None:
        async with World(nodes=6) as world:
            world.want(world.workload(count=2))
            version = 1
            for what, number in sequence:
                version += what == "version"
                _happen(world, what, number, version)
                await world.steps(3)
                assert all(count == 1 for count in world.claims().values())
            world.cluster.refuse_next.clear()
            await world.steps(SETTLE_STEPS, seconds=2.0)
            world.check_settled()

    asyncio.run(play())


def _happen(world: World, what: str, number: int, version: int) -> None:
    cluster, pods = world.cluster, world.pods()
    if what == "count":
        world.want(world.workload(count=number, fingerprint=f"v{version}"))
    elif what == "version":
        world.want(world.workload(count=world.wanted[0].count, fingerprint=f"v{version}"))
    elif what == "crash" and pods and pods[0]["status"].get("containerStatuses"):
        world.controllers.kubelet.crash(pods[0]["metadata"]["name"], exit_code=number)
    elif what == "delete" and pods:
        cluster.delete("pods", pods[number % len(pods)]["metadata"]["name"])
    elif what == "conflicts":
        cluster.refuse_next.extend(Refused(409, "the object has been modified") for _ in range(number))
    elif what == "busy":
        cluster.refuse_next.extend(Refused(429, "too many requests", retry_after=1) for _ in range(number))
    elif what == "away":
        cluster.refuse_next.extend(Refused(503, "etcdserver: leader changed") for _ in range(number))
    elif what == "too old":
        cluster.forget_events()
        cluster.break_watches()
    elif what == "break":
        cluster.break_watches()
    elif what == "lose" and len(cluster.objects["nodes"]) > 3:
        world.controllers.reclaim(next(iter(cluster.objects["nodes"])))


@pytest.mark.parametrize("is_remembered", [True, False])
async def test_a_place_is_renamed_and_back_and_its_replicas_are_replaced_once_while_they_serve(
    world: World, is_remembered: bool
) -> None:
    world.want(world.workload("chat", 3), world.workload("code", 1))
    await world.steps(20)
    created = world.controllers.created
    for place in ("elsewhere", "cluster"):
        before = {replica.child_id for replica in world.ready()}
        await world.rename(place, is_remembered=is_remembered)
        assert {replica.child_id for replica in world.ready()} == before
        for _ in range(80):
            await world.steps(1)
            world.check({"chat": 6, "code": 2})
            assert len(world.ready()) >= 4
        world.check_settled()
        assert {replica.child_id for replica in world.ready()}.isdisjoint(before)
        assert {replica.provider for replica in world.fleet.replicas} == {place}
        created += 4
        assert world.controllers.created == created
        writes = world.api.writes
        await world.steps(20, seconds=2.0)
        assert world.api.writes == writes
