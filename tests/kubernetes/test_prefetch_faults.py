"""Models and images that are got ready while rights, writes and servers fail: a fleet's world in virtual time."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from kube_children import SETTINGS
from kube_world import World

from swell.adapters.providers.kubernetes import prefetch
from swell.adapters.providers.kubernetes.settings import ClusterSettings, Prefetch
from swell.control.workload import Workload
from swell.ports.provider import Fetch, Needs, Progress
from swell.testing.cluster import Refused

FORBIDDEN, BROKEN = 403, 500
STEPS = 400
OFF = replace(SETTINGS, place="c")
QUEUED = replace(OFF, prefetch=Prefetch(models=True, queue="downloads"))
MODELS = replace(OFF, prefetch=Prefetch(models=True))
IMAGES = replace(OFF, prefetch=Prefetch(images=True))
BOTH = replace(OFF, prefetch=Prefetch(models=True, images=True))
NO_NODE = Needs(image="vllm:1", accelerator="L4", accelerators=1)


def _asleep(world: World, name: str = "chat", needs: Needs | None = None) -> Workload:
    """A model at zero: whatever there is of it was prepared."""
    fetch = Fetch("swell:1", ("fetch", name))
    return world.workload(name, count=0, needs=needs or Needs(image=f"{name}:1", fetch_ahead=fetch))


def _made(world: World) -> set[str]:
    return {*world.cluster.objects["jobs"], *world.cluster.objects["daemonsets"]}


async def _until(world: World, condition: Callable[[], bool], steps: int = STEPS) -> None:
    for _ in range(steps):
        if condition():
            return
        await world.steps()
    raise AssertionError(f"not within {steps} steps: {world.fleet.preparations()}, {sorted(_made(world))}")


async def _taken_out(world: World) -> None:
    """A server that is started again without `prefetch` in its file."""
    world.settings = OFF
    await world.restart()


@pytest.mark.parametrize(("settings", "needs"), [(QUEUED, None), (IMAGES, NO_NODE)], ids=["held by Kueue", "no node"])
async def test_what_has_no_pods_goes_too_when_prefetch_is_taken_out(
    settings: ClusterSettings, needs: Needs | None
) -> None:
    async with World(settings=settings) as world:
        world.want(_asleep(world, needs=needs))
        await _until(world, lambda: bool(_made(world)))
        await world.steps(4)
        assert not world.cluster.objects["pods"]
        await _taken_out(world)
        await _until(world, lambda: not _made(world))
        assert world.fleet.preparations() == []


@pytest.mark.parametrize("verb", ["list", "delete"])
async def test_what_is_left_of_prefetch_goes_though_the_api_fails_at_first(verb: str) -> None:
    async with World(settings=BOTH) as world:
        world.want(_asleep(world))
        await _until(world, lambda: len(_made(world)) == 2)
        failures = {"jobs": 3, "daemonsets": 3}

        def fail(asked: str, kind: str) -> None:
            if asked == verb and failures.get(kind, 0):
                failures[kind] -= 1
                raise Refused(BROKEN, "etcd is busy")

        world.cluster.before_request = fail
        await _taken_out(world)
        assert _made(world)
        await _until(world, lambda: not _made(world))
        await _until(world, lambda: not world.fleet.preparations())
        assert failures == {"jobs": 0, "daemonsets": 0}


async def test_what_is_left_of_prefetch_and_may_not_be_seen_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with World(settings=BOTH) as world:
        world.want(_asleep(world))
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
        await _until(world, lambda: not _made(world))
        await _until(world, lambda: not world.fleet.preparations())
        lists = world.cluster.requests["list jobs"]
        await world.steps(STEPS)
        assert world.cluster.requests["list jobs"] == lists, "once all is gone, nothing is looked after any more"


def _progress(world: World, what: str) -> Progress | None:
    return next((each.progress for _, each in world.fleet.preparations() if each.what == what), None)


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
        world.want(_asleep(world))
        await _until(world, lambda: _progress(world, works) is Progress.DONE)
        assert _progress(world, denied) is (Progress.FAILED if problem == FORBIDDEN else Progress.WAITING)
