"""Models and images are got ready by Jobs and DaemonSets: on a cluster of make-believe, and on a real control plane."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
from kube_harness import ClusterHarness, FakeClusterHarness, RealClusterHarness
from lightkube import Client
from lightkube.resources.apps_v1 import DaemonSet
from lightkube.resources.batch_v1 import Job

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import FORBIDDEN
from swell.adapters.providers.kubernetes.prefetch_manifests import BACKOFF_LIMIT, KEPT_SECONDS
from swell.adapters.providers.kubernetes.prefetch_plan import RETRY_SECONDS
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.adapters.providers.kubernetes.settings import Prefetch
from swell.adapters.providers.kubernetes.watch import RELIST_SECONDS
from swell.ports.provider import Expected, Fetch, Needs, Preparation, Prepares, Progress
from swell.testing.cluster import Refused

BOTH = Prefetch(models=True, images=True)
MODELS = Prefetch(models=True)
IMAGES = Prefetch(images=True)
GONE = "hf://org/gone cannot be fetched: not found"


def _expected(*sources: str) -> list[Expected]:
    fetches = {source: Fetch("swell:1", ("fetch", source)) for source in sources}
    return [Expected(source, Needs(image="engine:1", fetch=one, fetch_ahead=one)) for source, one in fetches.items()]


async def _served(
    harness: ClusterHarness, prefetch: Prefetch | None, expected: Sequence[Expected]
) -> KubernetesProvider:
    """A server that has just taken over."""
    harness.prefetch = prefetch
    provider = harness.provider()
    assert isinstance(provider, Prepares)
    provider.expect(expected)
    await provider.end_orphans()
    return provider


def _told(provider: KubernetesProvider) -> dict[str, Preparation]:
    return {f"{each.what} {' '.join(each.models)}": each for each in provider.preparations()}


async def _until(harness: ClusterHarness, provider: KubernetesProvider, what: str, progress: Progress) -> Preparation:
    await harness.until(lambda: what in _told(provider) and _told(provider)[what].progress is progress)
    return _told(provider)[what]


def _made(harness: FakeClusterHarness) -> dict[str, str]:
    return {
        name: item["metadata"]["uid"]
        for kind in ("jobs", "daemonsets")
        for name, item in harness.cluster.objects[kind].items()
    }


async def test_a_model_is_fetched_once_whoever_serves(fake_harness: FakeClusterHarness) -> None:
    provider = await _served(fake_harness, MODELS, _expected("a", "b"))
    await _until(fake_harness, provider, "model a", Progress.DONE)
    await _until(fake_harness, provider, "model b", Progress.DONE)
    made = _made(fake_harness)
    applied = fake_harness.cluster.requests["patch jobs"]
    later = await _served(fake_harness, MODELS, _expected("a", "b"))
    await _until(fake_harness, later, "model b", Progress.DONE)
    assert (_made(fake_harness), fake_harness.cluster.requests["patch jobs"]) == (made, applied)
    assert len(made) == applied == 2


async def test_a_job_that_is_over_goes_by_itself_and_is_not_missed(fake_harness: FakeClusterHarness) -> None:
    provider = await _served(fake_harness, MODELS, _expected("a"))
    await _until(fake_harness, provider, "model a", Progress.DONE)
    fake_harness.clock.advance(KEPT_SECONDS)
    await fake_harness.until(lambda: not fake_harness.cluster.objects["jobs"])
    fake_harness.clock.advance(60.0)
    await fake_harness.until(lambda: not fake_harness.cluster.objects["pods"])
    assert _told(provider)["model a"].progress is Progress.DONE
    assert fake_harness.cluster.requests["patch jobs"] == 1


async def test_a_model_that_cannot_be_had_says_why_and_is_tried_again_later(
    fake_harness: FakeClusterHarness, caplog: pytest.LogCaptureFixture
) -> None:
    fake_harness.controllers.kubelet.refused["a"] = f"some words\n{GONE}\n"
    with caplog.at_level(logging.WARNING):
        provider = await _served(fake_harness, MODELS, _expected("a", "b"))
        failed = await _until(fake_harness, provider, "model a", Progress.FAILED)
    await _until(fake_harness, provider, "model b", Progress.DONE)
    assert failed.says == GONE
    assert GONE in caplog.text
    pods = [pod for pod in fake_harness.cluster.objects["pods"].values() if pod["status"]["phase"] == "Failed"]
    assert len(pods) == BACKOFF_LIMIT + 1
    del fake_harness.controllers.kubelet.refused["a"]
    fake_harness.clock.advance(RETRY_SECONDS)
    await _until(fake_harness, provider, "model a", Progress.DONE)


async def test_kueue_says_when(fake_harness: FakeClusterHarness) -> None:
    provider = await _served(fake_harness, replace(MODELS, queue="downloads"), _expected("a"))
    await fake_harness.until(lambda: "queue" in _told(provider)["model a"].says)
    assert _told(provider)["model a"].says == "the queue downloads to admit it"
    (job,) = fake_harness.cluster.objects["jobs"].values()
    assert job["metadata"]["labels"][names.QUEUE] == "downloads"
    assert not fake_harness.cluster.objects["pods"]
    fake_harness.controllers.batch.admitting.add("downloads")
    await _until(fake_harness, provider, "model a", Progress.DONE)
    assert fake_harness.cluster.requests["patch jobs"] == 1, "what Kueue has changed is left alone"


async def test_a_download_that_lasts_is_seen_and_ends_with_its_model(fake_harness: FakeClusterHarness) -> None:
    fake_harness.controllers.kubelet.lasting.add("a")
    provider = await _served(fake_harness, MODELS, _expected("a", "b"))
    await _until(fake_harness, provider, "model a", Progress.RUNNING)
    await _until(fake_harness, provider, "model b", Progress.DONE)
    provider.expect(_expected("b"))
    await fake_harness.until(lambda: len(fake_harness.cluster.objects["jobs"]) == 1)
    await fake_harness.until(lambda: set(_told(provider)) == {"model b"})
    provider.expect([])
    await fake_harness.until(lambda: not provider.preparations())
    await fake_harness.until(lambda: not fake_harness.cluster.objects["pods"])
    assert not fake_harness.cluster.objects["jobs"]


async def test_what_was_prepared_while_the_place_was_called_otherwise_goes(fake_harness: FakeClusterHarness) -> None:
    provider = await _served(fake_harness, BOTH, _expected("a"))
    await _until(fake_harness, provider, "model a", Progress.DONE)
    await fake_harness.until(lambda: len(_made(fake_harness)) == 3)
    before = _made(fake_harness)
    fake_harness.place = "elsewhere"
    later = await _served(fake_harness, BOTH, _expected("a"))
    await _until(fake_harness, later, "model a", Progress.DONE)
    await fake_harness.until(lambda: len(_made(fake_harness)) == 3 and _made(fake_harness).keys().isdisjoint(before))
    await fake_harness.until(lambda: bool(_pods(fake_harness)))
    last = await _served(fake_harness, None, [])
    await fake_harness.until(lambda: not last.preparations())
    assert not _made(fake_harness)


async def test_images_are_on_every_node_that_fits(fake_harness: FakeClusterHarness) -> None:
    spot = Needs(image="vllm:1", accelerator="L4", accelerators=1, market="spot")
    provider = await _served(fake_harness, IMAGES, [Expected("chat", spot), Expected("small", Needs(image="llama:1"))])
    await fake_harness.until(lambda: _told(provider)["image chat"].says == "on 1 of 1 nodes")
    await fake_harness.until(lambda: _told(provider)["image small"].says == "on 2 of 2 nodes")
    on = {(pod["spec"]["nodeName"], pod["spec"]["containers"][0]["image"]) for pod in _pods(fake_harness)}
    assert on == {("spot-1", "vllm:1"), ("spot-1", "llama:1"), ("node-1", "llama:1")}
    fake_harness.controllers.kubelet.pulling.add("llama:1")
    fake_harness.controllers.add_node("node-2")
    await fake_harness.until(lambda: "Back-off" in _told(provider)["image small"].says)
    assert _told(provider)["image small"].says.startswith("on 2 of 3 nodes; one waits for ImagePullBackOff")
    fake_harness.controllers.kubelet.pulling.clear()
    await fake_harness.until(lambda: _told(provider)["image small"].says == "on 3 of 3 nodes")
    provider.expect([Expected("small", Needs(image="llama:2"))])
    await fake_harness.until(
        lambda: {pod["spec"]["containers"][0]["image"] for pod in _pods(fake_harness)} == {"llama:2"}
    )


def _pods(harness: FakeClusterHarness) -> list[dict[str, dict[str, list[dict[str, str]]]]]:
    return [pod for pod in harness.cluster.objects["pods"].values() if "deletionTimestamp" not in pod["metadata"]]


async def test_replicas_wait_for_nothing_of_it(fake_harness: FakeClusterHarness) -> None:
    fake_harness.controllers.batch.admitting.clear()
    provider = await _served(fake_harness, replace(BOTH, queue="never"), _expected("a"))
    handle = await provider.start(fake_harness.steady())
    await fake_harness.settled(handle)
    assert _told(provider)["model a"].progress is Progress.WAITING
    assert len(provider.groups) == 1, "Pods that prepare are nobody's replicas"


async def test_what_was_prepared_goes_where_nothing_is_any_more(fake_harness: FakeClusterHarness) -> None:
    before = await _served(fake_harness, BOTH, _expected("a"))
    await _until(fake_harness, before, "model a", Progress.DONE)
    await fake_harness.until(lambda: bool(_pods(fake_harness)) and len(_made(fake_harness)) == 3)
    later = await _served(fake_harness, None, _expected("a"))
    await fake_harness.until(lambda: not _made(fake_harness) and not later.preparations())
    assert fake_harness.cluster.requests["delete jobs"] == 1


async def test_without_prefetch_it_is_looked_once_for_what_there_is(fake_harness: FakeClusterHarness) -> None:
    provider = await _served(fake_harness, None, _expected("a"))
    asked = fake_harness.cluster.requests
    await fake_harness.until(lambda: asked["list jobs"] == asked["list daemonsets"] == 1)
    await fake_harness.until(lambda: len([each for each in provider.tasks if each.done()]) == 5)
    for _ in range(5):
        await fake_harness.pass_seconds(RELIST_SECONDS)
    assert (asked["list jobs"], asked["list daemonsets"]) == (1, 1)


async def test_without_rights_it_is_told_and_replicas_run(fake_harness: FakeClusterHarness) -> None:
    def refuse(verb: str, kind: str) -> None:
        if kind in ("jobs", "daemonsets"):
            raise Refused(FORBIDDEN, f"may not {verb} {kind}")

    fake_harness.cluster.before_request = refuse
    provider = await _served(fake_harness, MODELS, _expected("a"))
    handle = await provider.start(fake_harness.steady())
    await fake_harness.settled(handle)
    told = _told(provider)["model a"]
    assert (told.progress, told.says) == (Progress.FAILED, "the cluster's API says: may not list jobs")


async def test_a_write_that_is_refused_is_told(fake_harness: FakeClusterHarness) -> None:
    def refuse(verb: str, kind: str) -> None:
        if (verb, kind) == ("patch", "jobs"):
            raise Refused(FORBIDDEN, "exceeded quota")

    fake_harness.cluster.before_request = refuse
    provider = await _served(fake_harness, MODELS, _expected("a"))
    await fake_harness.until(lambda: "exceeded quota" in _told(provider)["model a"].says)
    tried = fake_harness.cluster.requests["patch jobs"]
    await fake_harness.pass_seconds(60.0)
    fake_harness.step()
    assert fake_harness.cluster.requests["patch jobs"] == tried == 1
    fake_harness.cluster.before_request = lambda verb, kind: None
    await fake_harness.pass_seconds(300.0)
    await _until(fake_harness, provider, "model a", Progress.DONE)


async def test_on_a_real_control_plane(real_harness: RealClusterHarness) -> None:
    client: Client = real_harness.nodes.client
    real_harness.nodes.refused["gone"] = GONE
    expected = [
        *_expected("a", "gone"),
        Expected("chat", Needs(image="vllm:1", accelerator="L4", accelerators=1, market="spot")),
    ]
    provider = await _served(real_harness, BOTH, expected)
    await _until(real_harness, provider, "model a", Progress.DONE)
    await real_harness.until(lambda: _told(provider)["image chat"].says == "on 1 of 1 nodes")
    await real_harness.until(lambda: _told(provider)["image a gone"].says == "on 2 of 2 nodes")
    await real_harness.until(lambda: GONE in _told(provider)["model gone"].says)
    uids = {each.metadata.uid for each in client.list(Job) if each.metadata is not None}
    later = await _served(real_harness, replace(BOTH, queue=""), expected)
    await _until(real_harness, later, "model a", Progress.DONE)
    assert {each.metadata.uid for each in client.list(Job) if each.metadata is not None} == uids
    queued = await _served(real_harness, replace(MODELS, queue="downloads"), _expected("a"))
    await real_harness.until(
        lambda: "queue" in _told(queued).get("model a", Preparation("", "", (), Progress.DONE)).says
    )
    await real_harness.until(lambda: not list(client.list(DaemonSet)))
    (job,) = client.list(Job)
    assert job.spec is not None
    assert job.spec.suspend is True
    queued.expect([])
    await real_harness.until(lambda: not queued.preparations())
    assert list(client.list(Job)) == []
