"""What is made ahead of replicas, and when: manifests that Kubernetes knows, and the plan of each look."""

from dataclasses import replace

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_children import SETTINGS, cluster_settings, needs
from test_manifests import NEWEST, OLDEST, _expanded, schemas_are_read_once  # noqa: F401  a fixture

from swell.adapters.providers.accelerators import Platform
from swell.adapters.providers.kubernetes import names, objects
from swell.adapters.providers.kubernetes.api import Kind
from swell.adapters.providers.kubernetes.prefetch_manifests import KEPT_SECONDS, Wanted, wanted
from swell.adapters.providers.kubernetes.prefetch_plan import (
    CLOCK_SECONDS,
    JOBS_AT_ONCE,
    RETRY_SECONDS,
    Remembered,
    WorkSeen,
    plan,
    rows,
    see_job,
)
from swell.adapters.providers.kubernetes.settings import ClusterSettings, ModelVolume, Prefetch
from swell.ports.provider import Expected, Fetch, Needs, Progress, TlsSidecar

CLAIM = replace(SETTINGS, models=ModelVolume(claim="models"), place="cluster", prefetch=Prefetch(models=True))
FETCH = Fetch("swell:1", ("python3", "-m", "fetch", "hf://org/name/chat.gguf"))

UNIX = 1_700_000_000.0


def _fetched(*models: str) -> list[Expected]:
    """Each with a source of its own."""
    return [Expected(name, Needs(image="engine", fetch_ahead=Fetch("swell:1", ("fetch", name)))) for name in models]


def _seen(each: Wanted, progress: Progress) -> WorkSeen:
    return WorkSeen(each.kind, each.name, each.digest, progress)


@st.composite
def _prefetching(draw: st.DrawFn) -> ClusterSettings:
    prefetch = Prefetch(
        models=draw(st.booleans()),
        images=draw(st.booleans()),
        queue=draw(st.sampled_from(["", "downloads"])),
        cpus=draw(st.sampled_from([0.0001, 0.5, 4.0])),
        node_selector=draw(st.sampled_from([None, {}, {"pool": "cpu"}])),
    )
    return replace(draw(cluster_settings()), place=draw(st.sampled_from(["c", "On spot/1"])), prefetch=prefetch)


@settings(max_examples=100)
@given(st.lists(needs(), min_size=1, max_size=3), _prefetching())
def test_every_object_is_one_that_kubernetes_knows(each: list[Needs], cluster: ClusterSettings) -> None:
    expected = [Expected(f"m{n}", replace(one, fetch_ahead=one.fetch)) for n, one in enumerate(each)]
    found = wanted(expected, cluster)
    assert wanted(expected, cluster) == found
    commands = {one.fetch.argv for one in each if one.fetch is not None}
    for name, one in found.items():
        manifest = dict(one.manifest)
        for version in (OLDEST, NEWEST):
            assert kubernetes_validate.validate(manifest, version, strict=True) == version
        assert manifest["metadata"]["name"] == name
        template = manifest["spec"]["template"]
        labels = names.prefetch_labels(cluster.installation, cluster.place)
        assert labels.items() <= manifest["metadata"]["labels"].items()
        assert {**labels, names.PREPARES: name} == template["metadata"]["labels"]
        (container,) = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        if one.kind is Kind.JOBS:
            assert tuple(map(_expanded, container["command"])) in commands
            assert manifest["spec"].get("suspend", False) is bool(cluster.prefetch and cluster.prefetch.queue)
    for kind, is_asked in ((Kind.JOBS, cluster.prefetch.models), (Kind.DAEMON_SETS, cluster.prefetch.images)):  # type: ignore[union-attr]
        assert is_asked or not [one for one in found.values() if one.kind is kind]


def test_a_job_does_what_an_init_container_would_and_is_known_by_it() -> None:
    expected = [Expected(name, Needs(image="engine", fetch=FETCH, fetch_ahead=FETCH)) for name in ("chat", "twin")]
    ((name, job),) = wanted(expected, CLAIM).items()
    pod = job.manifest["spec"]["template"]["spec"]
    assert pod["containers"][0]["command"] == list(FETCH.argv)
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "models"}
    assert pod["restartPolicy"] == "Never"
    assert job.models == ("chat", "twin")
    assert job.manifest["metadata"]["labels"].get(names.QUEUE) is None
    others = [
        replace(CLAIM, models=ModelVolume(claim="others")),
        replace(CLAIM, place="elsewhere"),
        replace(CLAIM, prefetch=Prefetch(models=True, queue="downloads")),
    ]
    found = {name, *(key for each in others for key in wanted(expected, each))}
    assert len(found) == 1 + len(others), "whatever differs is another Job, since a template cannot change"


def test_an_image_is_kept_where_any_of_its_models_may_go() -> None:
    cluster = replace(SETTINGS, platform=Platform.GKE, prefetch=Prefetch(images=True))
    spot = Needs(image="vllm", accelerator="L4", accelerators=1, market="spot")
    expected = [Expected("a", spot), Expected("b", replace(spot, accelerator="H100")), Expected("a", spot)]
    (item,) = wanted(expected, cluster).values()
    pod = item.manifest["spec"]["template"]["spec"]
    terms = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert len(terms) == 2
    assert {each["key"] for each in pod["tolerations"]} == {"nvidia.com/gpu", "cloud.google.com/gke-spot"}
    assert "limits" in pod["containers"][0]["resources"]
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"], "it takes no accelerator from anybody"
    (anywhere,) = wanted([*expected, Expected("c", Needs(image="vllm"))], cluster).values()
    assert "affinity" not in anywhere.manifest["spec"]["template"]["spec"]
    assert (anywhere.name, anywhere.digest == item.digest) == (item.name, False), "the same one, put elsewhere"


def test_few_jobs_run_at_once_unless_a_queue_says_how_many() -> None:
    found = wanted(_fetched(*(f"m{n}" for n in range(JOBS_AT_ONCE + 5))), CLAIM)
    assert len(plan(found, [], Remembered(), "", 0.0, UNIX).applies) == JOBS_AT_ONCE
    assert len(plan(found, [], Remembered(), "downloads", 0.0, UNIX).applies) == JOBS_AT_ONCE + 5
    first, second, *_ = found.values()
    seen = [_seen(first, Progress.DONE), _seen(second, Progress.RUNNING)]
    assert len(plan(found, seen, Remembered(), "", 0.0, UNIX).applies) == JOBS_AT_ONCE - 1


def test_a_job_that_has_done_its_work_is_not_made_again_and_one_that_was_deleted_is() -> None:
    found = wanted(_fetched("chat"), CLAIM)
    (job,) = found.values()
    known = Remembered()
    assert plan(found, [_seen(job, Progress.DONE)], known, "", 0.0, UNIX).applies == ()
    assert plan(found, [], known, "", 100.0, UNIX).applies == (job,)
    late = KEPT_SECONDS - CLOCK_SECONDS
    assert plan(found, [], known, "", late, UNIX).applies == ()
    (row,) = rows(found, [], [], known, {})
    assert (row.progress, row.models) == (Progress.DONE, ("chat",))


def test_a_job_that_failed_is_tried_again_after_a_while() -> None:
    found = wanted(_fetched("chat"), CLAIM)
    (job,) = found.values()
    known, failed = Remembered(), [_seen(job, Progress.FAILED)]
    steps = plan(found, failed, known, "", 10.0, UNIX)
    assert (steps.deletions, steps.applies, steps.next_at) == ((), (), 10.0 + RETRY_SECONDS)
    assert plan(found, failed, known, "", steps.next_at, UNIX).deletions == ((Kind.JOBS, job.name),)
    assert plan(found, [], known, "", steps.next_at + 1.0, UNIX).applies == (job,)


@pytest.mark.parametrize(("clock_error", "tried_again"), [(0.0, 3590.0), (-7200.0, 3600.0), (7200.0, 0.0)])
def test_when_a_job_failed_is_the_clusters_word(clock_error: float, tried_again: float) -> None:
    found = wanted(_fetched("chat"), CLAIM)
    (job,) = found.values()
    failed = [replace(_seen(job, Progress.FAILED), ended_at=UNIX - 10.0)]
    later = plan(found, failed, Remembered(), "", 0.0, UNIX + clock_error)
    assert (later.next_at if not later.deletions else 0.0) == tried_again


def test_a_clock_that_is_wrong_makes_no_job_anew_sooner_than_an_hour_after_this_server_made_it() -> None:
    found = wanted(_fetched("chat"), CLAIM)
    (job,) = found.values()
    failed = [replace(_seen(job, Progress.FAILED), ended_at=UNIX - 7200.0)]
    steps = plan(found, failed, Remembered(made={job.name: 50.0}), "", 60.0, UNIX)
    assert (steps.deletions, steps.next_at) == ((), 50.0 + RETRY_SECONDS)


@pytest.mark.parametrize("stamp", ["", None, "yesterday"])
def test_a_job_that_does_not_say_when_it_ended_is_taken_to_have_ended_when_it_was_seen(stamp: str | None) -> None:
    condition = objects.JobCondition("Failed", "True", "BackoffLimitExceeded", "", stamp)
    job = objects.Job(objects.Meta("model-1"), status=objects.JobStatus(conditions=[condition]))
    assert (see_job(job).progress, see_job(job).ended_at) == (Progress.FAILED, None)


@pytest.mark.parametrize("progress", list(Progress))
def test_what_nobody_expects_any_more_goes(progress: Progress) -> None:
    (job,) = wanted(_fetched("chat"), CLAIM).values()
    steps = plan({}, [_seen(job, progress)], Remembered(), "", 0.0, UNIX)
    assert (steps.deletions, steps.applies) == (((Kind.JOBS, job.name),), ())
    (row,) = rows({}, [_seen(job, progress)], [], Remembered(), {})
    assert row.progress is Progress.LEAVING


def test_what_was_refused_is_not_written_again_at_once() -> None:
    found = wanted(_fetched("chat"), CLAIM)
    (job,) = found.values()
    known = Remembered(not_before={(Kind.JOBS, job.name): 30.0})
    assert plan(found, [], known, "", 29.0, UNIX).applies == ()
    assert plan(found, [], known, "", 29.0, UNIX).next_at == 30.0
    assert plan(found, [], known, "", 30.0, UNIX).applies == (job,)


def test_what_stands_in_front_of_engines_is_kept_on_nodes_as_well() -> None:
    needs = Needs(image="engine:1", tls=TlsSidecar("gateway:1", "own"))
    found = wanted([Expected("chat", needs)], replace(SETTINGS, prefetch=Prefetch(models=False, images=True)))
    assert [each.subject for each in found.values()] == ["engine:1", "gateway:1"]
