"""Models and images that are got ready while rights, writes and servers fail: a fleet's world in virtual time."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from kube_children import SETTINGS
from kube_world import STEP_SECONDS, World

from swell.adapters.providers.kubernetes import prefetch
from swell.adapters.providers.kubernetes.prefetch_manifests import KEPT_SECONDS
from swell.adapters.providers.kubernetes.prefetch_plan import RETRY_SECONDS
from swell.adapters.providers.kubernetes.settings import ClusterSettings, Prefetch
from swell.control.workload import Workload
from swell.ports.provider import Fetch, Needs, Progress
from swell.server.draining import PREPARED_SECONDS
from swell.testing.cluster import Refused
from swell.testing.cluster.objects import Object

FORBIDDEN, BROKEN = 403, 500
STEPS = 400
OFF = replace(SETTINGS, place="c")
QUEUED = replace(OFF, prefetch=Prefetch(models=True, queue="downloads"))
MODELS = replace(OFF, prefetch=Prefetch(models=True))
IMAGES = replace(OFF, prefetch=Prefetch(images=True))
BOTH = replace(OFF, prefetch=Prefetch(models=True, images=True))
NO_NODE = Needs(image="vllm:1", accelerator="L4", accelerators=1)


def asleep(world: World, name: str = "chat", needs: Needs | None = None) -> Workload:
    """A model at zero: whatever there is of it was prepared."""
    fetch = Fetch("swell:1", ("fetch", name))
    return world.workload(name, count=0, needs=needs or Needs(image=f"{name}:1", fetch_ahead=fetch))


def made(world: World) -> set[str]:
    """Names of what there is."""
    return {*world.cluster.objects["jobs"], *world.cluster.objects["daemonsets"]}


async def _until(world: World, condition: Callable[[], bool], steps: int = STEPS) -> None:
    for _ in range(steps):
        if condition():
            return
        await world.steps()
    raise AssertionError(f"not within {steps} steps: {world.fleet.preparations()}, {sorted(made(world))}")


async def _taken_out(world: World) -> None:
    """A server that is started again without `prefetch` in its file."""
    world.settings = OFF
    await world.restart()


@pytest.mark.parametrize(("settings", "needs"), [(QUEUED, None), (IMAGES, NO_NODE)], ids=["held by Kueue", "no node"])
async def test_what_has_no_pods_goes_too_when_prefetch_is_taken_out(
    settings: ClusterSettings, needs: Needs | None
) -> None:
    async with World(settings=settings) as world:
        world.want(asleep(world, needs=needs))
        await _until(world, lambda: bool(made(world)))
        await world.steps(4)
        assert not world.cluster.objects["pods"]
        await _taken_out(world)
        await _until(world, lambda: not made(world))
        assert world.fleet.preparations() == []


@pytest.mark.parametrize("verb", ["list", "delete"])
async def test_what_is_left_of_prefetch_goes_though_the_api_fails_at_first(verb: str) -> None:
    async with World(settings=BOTH) as world:
        world.want(asleep(world))
        await _until(world, lambda: len(made(world)) == 2)
        failures = {"jobs": 3, "daemonsets": 3}

        def fail(asked: str, kind: str) -> None:
            if asked == verb and failures.get(kind, 0):
                failures[kind] -= 1
                raise Refused(BROKEN, "etcd is busy")

        world.cluster.before_request = fail
        await _taken_out(world)
        assert made(world)
        await _until(world, lambda: not made(world))
        await _until(world, lambda: not world.fleet.preparations())
        assert failures == {"jobs": 0, "daemonsets": 0}


async def test_what_is_left_of_prefetch_and_may_not_be_seen_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with World(settings=BOTH) as world:
        world.want(asleep(world))
        await _until(world, lambda: bool(world.cluster.objects["pods"]))

        def refuse(verb: str, kind: str) -> None:
            if kind in ("jobs", "daemonsets"):
                raise Refused(FORBIDDEN, f"may not {verb} {kind}")

        world.cluster.before_request = refuse
        await _taken_out(world)
        await world.steps(4)
        assert "kubectl delete jobs,daemonsets -n models -l app.kubernetes.io/managed-by=swell" in caplog.text
        assert {each.says for _, each in world.fleet.preparations()} == {
            "the cluster's API says: may not list jobs",
            "the cluster's API says: may not list daemonsets",
        }
        world.cluster.before_request = lambda verb, kind: None
        await _until(world, lambda: not made(world))
        await _until(world, lambda: not world.fleet.preparations())
        lists = world.cluster.requests["list jobs"]
        await world.steps(STEPS)
        assert world.cluster.requests["list jobs"] == lists, "once all is gone, nothing is looked after any more"


async def _gone_in_time(world: World) -> None:
    """As at the end of a server, which waits so long for its places."""
    await _until(world, lambda: not world.fleet.preparations(), int(PREPARED_SECONDS / STEP_SECONDS))
    assert made(world) == set(), "nobody would have waited any longer"


async def test_a_deletion_that_fails_at_the_end_is_tried_again_in_time() -> None:
    async with World(settings=BOTH) as world:
        world.want(asleep(world))
        await _until(world, lambda: len(made(world)) == 2)
        failures = [Refused(BROKEN, "etcd is busy"), Refused(FORBIDDEN, "the webhook does not answer")]

        def fail(verb: str, kind: str) -> None:
            if verb == "delete" and kind in ("jobs", "daemonsets") and failures:
                raise failures.pop()

        world.cluster.before_request = fail
        world.want()
        await _gone_in_time(world)
        assert failures == []


async def test_what_was_refused_before_does_not_hold_up_the_end() -> None:
    async with World(settings=IMAGES) as world:
        world.want(asleep(world), asleep(world, "other"))
        await _until(world, lambda: len(made(world)) == 2)

        def refuse(verb: str, kind: str) -> None:
            if (verb, kind) == ("patch", "daemonsets"):
                raise Refused(FORBIDDEN, "exceeded quota")

        world.cluster.before_request = refuse
        elsewhere = Needs(image="chat:1", accelerator="L4", accelerators=1)
        world.want(asleep(world, needs=elsewhere), asleep(world, "other"))
        await world.steps(4)
        assert any("exceeded quota" in each.says for _, each in world.fleet.preparations())
        world.want()
        await _gone_in_time(world)
        assert world.cluster.requests["delete daemonsets"] == 2


async def test_a_write_whose_answer_was_lost_is_waited_for_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(settings=BOTH) as world:
        _lose_answers(world, monkeypatch)
        _deafen(world)
        world.want(asleep(world))
        await _until(world, lambda: bool(world.cluster.objects["jobs"]))
        world.want()
        assert world.fleet.preparations(), "it may be there"
        await _gone_in_time(world)


def _lose_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is applied is applied, and nobody hears of it."""
    apply = world.cluster.apply

    def lose(kind: str, *args: Any, **options: Any) -> Object:
        found = apply(kind, *args, **options)
        if kind in ("jobs", "daemonsets"):
            raise Refused(BROKEN, "the connection broke")
        return found

    monkeypatch.setattr(world.cluster, "apply", lose)


def _deafen(world: World) -> None:
    """Nobody hears of what happens to Jobs and DaemonSets."""

    def refuse(verb: str, kind: str) -> None:
        if verb == "watch" and kind in ("jobs", "daemonsets"):
            raise Refused(BROKEN, "no watches now")

    world.cluster.before_request = refuse
    world.cluster.break_watches()


@pytest.mark.parametrize("settings", [OFF, BOTH], ids=["taken out", "in the file"])
async def test_an_end_waits_until_it_is_known_what_there_is(
    settings: ClusterSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "BEGIN_SECONDS", 0.0)
    async with World(settings=BOTH) as world:
        world.want(asleep(world))
        await _until(world, lambda: len(made(world)) == 2)

        def fail(verb: str, kind: str) -> None:
            if kind == "jobs":
                raise Refused(BROKEN, "etcd is busy")

        world.cluster.before_request = fail
        world.settings = settings
        world.want()
        await world.restart()
        await _until(world, lambda: not world.cluster.objects["daemonsets"])
        ((place, unknown),) = world.fleet.preparations()
        assert (place, unknown.says) == ("cluster", "it is not known what there is: etcd is busy")
        assert unknown.by_hand.startswith("kubectl delete jobs,daemonsets -n models -l app.kubernetes.io/managed-by=")
        world.cluster.before_request = lambda verb, kind: None
        await _until(world, lambda: not world.fleet.preparations())
        assert made(world) == set()


async def test_an_end_without_the_right_to_see_what_there_is_says_so() -> None:
    async with World(settings=QUEUED) as world:
        world.want(asleep(world))
        await _until(world, lambda: bool(made(world)))

        def refuse(verb: str, kind: str) -> None:
            if kind == "jobs":
                raise Refused(FORBIDDEN, f"may not {verb} {kind}")

        world.cluster.before_request = refuse
        world.want()
        await world.restart()
        await world.steps(4)
        ((_, unknown),) = world.fleet.preparations()
        assert (unknown.says, bool(unknown.by_hand)) == ("it is not known what there is: may not list jobs", True)


async def test_a_model_that_is_declared_again_after_a_week_is_fetched_again() -> None:
    async with World(settings=MODELS) as world:
        world.want(asleep(world))
        await _until(world, lambda: _progress(world, "model") is Progress.DONE)
        world.want()
        await _until(world, lambda: not made(world))
        await world.steps(seconds=KEPT_SECONDS)
        world.want(asleep(world))
        assert _progress(world, "model") is Progress.WAITING
        await _until(world, lambda: _progress(world, "model") is Progress.DONE)
        assert world.cluster.requests["patch jobs"] == 2


def _progress(world: World, what: str) -> Progress | None:
    return next((each.progress for _, each in world.fleet.preparations() if each.what == what), None)


async def test_a_job_that_failed_is_made_anew_an_hour_later_whoever_serves_then() -> None:
    async with World(settings=MODELS) as world:
        world.controllers.kubelet.refused["chat"] = "not found"
        world.want(asleep(world))
        await _until(world, lambda: _progress(world, "model") is Progress.FAILED, steps=2000)
        del world.controllers.kubelet.refused["chat"]
        for _ in range(3):
            await world.steps(seconds=RETRY_SECONDS / 4)
            await world.restart()
        assert _progress(world, "model") is Progress.FAILED
        await world.steps(seconds=RETRY_SECONDS / 4)
        await _until(world, lambda: _progress(world, "model") is Progress.DONE)
        assert world.cluster.requests["patch jobs"] == 2


async def test_a_job_that_went_by_itself_is_not_missed_by_a_server_that_came_late() -> None:
    async with World(settings=MODELS) as world:
        world.want(asleep(world))
        await _until(world, lambda: _progress(world, "model") is Progress.DONE)
        await world.steps(seconds=KEPT_SECONDS - 600.0)
        await world.restart()
        await world.steps(seconds=600.0)
        await _until(world, lambda: not made(world))
        await world.steps(4)
        assert _progress(world, "model") is Progress.DONE
        assert world.cluster.requests["patch jobs"] == 1


@pytest.mark.parametrize(
    ("forbidden", "denied", "works"), [("jobs", "model", "image"), ("daemonsets", "image", "model")]
)
@pytest.mark.parametrize("problem", [FORBIDDEN, BROKEN])
async def test_one_kind_that_may_not_be_seen_does_not_keep_the_other(
    forbidden: str, denied: str, works: str, problem: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "BEGIN_SECONDS", 0.0)
    world = World(settings=BOTH)

    def refuse(verb: str, kind: str) -> None:
        if kind == forbidden:
            raise Refused(problem, f"may not {verb} {kind}")

    world.cluster.before_request = refuse
    async with world:
        world.want(asleep(world))
        await _until(world, lambda: _progress(world, works) is Progress.DONE)
        assert _progress(world, denied) is (Progress.FAILED if problem == FORBIDDEN else Progress.WAITING)


async def test_an_image_that_no_node_is_there_for_is_not_done() -> None:
    async with World(settings=IMAGES) as world:
        world.want(asleep(world, needs=NO_NODE))
        await _until(world, lambda: bool(made(world)))
        await world.steps(4)
        ((_, image),) = world.fleet.preparations()
        assert (image.progress, image.says) == (Progress.WAITING, "a node that it is for: there is none")


async def test_a_job_that_kueue_has_admitted_is_not_held_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(settings=QUEUED) as world:
        world.controllers.batch.admitting.add("downloads")
        world.controllers.kubelet.lasting.add("chat")
        with monkeypatch.context() as patched:
            _lose_answers(world, patched)
            _deafen(world)
            world.want(asleep(world))
            await _until(
                world, lambda: any(not job["spec"]["suspend"] for job in world.cluster.objects["jobs"].values())
            )
        (job,) = world.cluster.objects["jobs"].values()
        tried = world.cluster.requests["patch jobs"]
        for _ in range(STEPS):
            await world.steps()
            if world.cluster.requests["patch jobs"] > tried:
                break
        (now,) = world.cluster.objects["jobs"].values()
        assert world.cluster.requests["patch jobs"] > tried
        assert now["metadata"]["generation"] == job["metadata"]["generation"], "its spec is as Kueue left it"
        world.cluster.before_request = lambda verb, kind: None
        await _until(world, lambda: _progress(world, "model") is Progress.RUNNING)
        assert [each.says for _, each in world.fleet.preparations()] == [""], "no failure is told that is over"
