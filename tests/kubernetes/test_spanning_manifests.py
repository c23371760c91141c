"""A LeaderWorkerSet is one that its definition takes, its Pods are ones that Kubernetes knows; nodes are told apart."""

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import CRDS
from custom_schemas import closed
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from kube_children import SETTINGS, child, children, cluster_settings
from kube_spanning import spanning
from kubernetes_validate import utils

from swell.adapters.providers.accelerators import Platform
from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.providers.kubernetes.worker_set_manifests import (
    AWAIT,
    AWAIT_SCRIPT,
    LEADER,
    RANK,
    leader_worker_set,
)
from swell.errors import LaunchFailed
from swell.ports.provider import ChildSpec, Needs
from swell.testing.cluster.objects import problem_of

OLDEST, NEWEST = "1.31", "1.37"


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Any:
    """The validator reads three megabytes for every object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


@cache
def _definition() -> Draft202012Validator:
    """Of the set alone: what is inside of its Pods is looked at as Pods are."""
    (path,) = CRDS.glob("leaderworkerset*")
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    group = schema["properties"]["spec"]["properties"]["leaderWorkerTemplate"]["properties"]
    group["leaderTemplate"] = group["workerTemplate"] = {"type": "object", "required": ["metadata", "spec"]}
    return Draft202012Validator(schema)


def _assert_pods_are_known(manifest: dict[str, Any]) -> None:
    group = manifest["spec"]["leaderWorkerTemplate"]
    for role in ("leaderTemplate", "workerTemplate"):
        template = group[role]
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": "pod", **template["metadata"]}}
        for version in (OLDEST, NEWEST):
            assert kubernetes_validate.validate(pod, version, strict=True) == version


def _told(word: str, **variables: str) -> str:
    """What a kubelet makes of a word of a command, where these variables are known."""

    def value(found: "re.Match[str]") -> str:
        return "$" if found[0] == "$$" else variables.get(found[1], found[0])

    return re.sub(r"\$\$|\$\((\w+)\)", value, word)


@settings(max_examples=100)
@given(children(), cluster_settings(), st.integers(2, 16), st.sampled_from(["", "example.com/rack"]))
def test_every_set_is_one_that_a_cluster_takes(
    child: ChildSpec, cluster: ClusterSettings, nodes: int, topology: str
) -> None:
    cluster = replace(cluster, exclusive_topology=topology)
    worker = (*child.argv, f"--rank={RANK}", f"--leader={LEADER}:1", "$HOME $(HOME) $$")
    spec = replace(child, needs=replace(child.needs, nodes=nodes), worker_argv=worker)
    try:
        manifest = leader_worker_set(spec, cluster)
    except LaunchFailed as error:
        assume("not to be had on" not in str(error))
        raise
    _definition().validate(manifest)
    _assert_pods_are_known(manifest)
    assert problem_of("leaderworkersets", manifest) == ""
    assert manifest["metadata"]["annotations"].get(names.SET_EXCLUSIVE, "") == topology
    assert not [value for value in spec.env.values() if len(value) > 8 and value in str(manifest)]
    group = manifest["spec"]["leaderWorkerTemplate"]
    (leader,), (other,) = (group[role]["spec"]["containers"] for role in ("leaderTemplate", "workerTemplate"))
    assert tuple(map(_told, leader["command"])) == child.argv
    here = {"LWS_WORKER_INDEX": "3", "LWS_LEADER_ADDRESS": "set-0.set"}
    assert [_told(word, **here) for word in other["command"]][-3:] == [
        "--rank=3", "--leader=set-0.set:1", "$HOME $(HOME) $$",
    ]  # fmt: skip


def test_a_field_that_there_is_not_would_have_been_found() -> None:
    manifest = leader_worker_set(spanning(child()), SETTINGS)
    manifest["spec"]["leaderWorkerTemplate"]["restartPolicies"] = "None"
    assert not _definition().is_valid(manifest)
    name = {**manifest, "metadata": {**manifest["metadata"], "name": "7b-chat"}}
    assert "DNS-1035" in problem_of("leaderworkersets", name)


def test_the_leader_is_asked_and_the_others_only_run() -> None:
    group = leader_worker_set(spanning(child()), SETTINGS)["spec"]["leaderWorkerTemplate"]
    (leader,) = group["leaderTemplate"]["spec"]["containers"]
    (worker,) = group["workerTemplate"]["spec"]["containers"]
    assert leader["readinessProbe"]["httpGet"]["path"] == leader["startupProbe"]["httpGet"]["path"] == "/health"
    assert not {"readinessProbe", "startupProbe", "ports"} & worker.keys()
    assert "http://127.0.0.1:8000/metrics" in leader["lifecycle"]["preStop"]["exec"]["command"]
    assert "http://${LWS_LEADER_ADDRESS}:8000/metrics" in worker["lifecycle"]["preStop"]["exec"]["command"]
    for role in ("leaderTemplate", "workerTemplate"):
        spec, metadata = group[role]["spec"], group[role]["metadata"]
        assert [each["name"] for each in spec["initContainers"]] == [AWAIT]
        assert metadata["annotations"][names.CHILD] == child().child_id
        assert spec["terminationGracePeriodSeconds"] == 2 + 30 + 5
        (near,) = spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert near["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
        assert {each["topologyKey"] for each in spec["topologySpreadConstraints"]} == {"kubernetes.io/hostname"}


def test_replicas_have_sets_and_secrets_of_their_own() -> None:
    first, second = (leader_worker_set(spanning(child(f"7b-chat-{n}.1a2b3c4d", "7b-chat")), SETTINGS) for n in (0, 1))
    assert first["metadata"]["name"] != second["metadata"]["name"]
    assert first["metadata"]["labels"] == second["metadata"]["labels"]
    for manifest in (first, second):
        (engine,) = manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["containers"]
        assert engine["envFrom"][0] == {"secretRef": {"name": manifest["metadata"]["name"]}}


def test_a_slice_of_tpus_is_a_node_pool_to_itself() -> None:
    needs = Needs(image="vllm", accelerator="v6e", accelerators=4, nodes=4)
    spec = replace(spanning(child()), needs=needs)
    manifest = leader_worker_set(spec, ClusterSettings("models", "inst-1", platform=Platform.GKE))
    assert manifest["metadata"]["annotations"][names.SET_EXCLUSIVE] == "cloud.google.com/gke-nodepool"
    assert "4x4" in json.dumps(manifest["spec"]["leaderWorkerTemplate"]["workerTemplate"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"worker_argv": ()}, "no command for its other nodes"),
        ({"worker_argv": ("a\0",)}, "NUL"),
        ({"argv": ()}, "no com"),
    ],
)
def test_what_no_set_can_be_made_of_is_refused_with_a_reason(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(LaunchFailed, match=problem):
        leader_worker_set(replace(spanning(child()), **changes), SETTINGS)


def test_a_node_waits_until_the_others_have_names(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    fake = f"""
import socket, time
from pathlib import Path
seen = Path({str(asked)!r})
def found(name, port):
    known = seen.read_text().split() if seen.exists() else []
    seen.write_text(" ".join([*known, name]))
    if name not in known:
        raise socket.gaierror("not yet")
socket.getaddrinfo, time.sleep = found, lambda seconds: None
"""
    env = {"LWS_LEADER_ADDRESS": "set-0.set.models", "LWS_GROUP_SIZE": "3"}
    ended = subprocess.run([sys.executable, "-c", fake + AWAIT_SCRIPT], env=env, check=False, timeout=30)
    assert ended.returncode == 0
    order = ["set-0.set.models", "set-0-1.set.models", "set-0-2.set.models"]
    assert asked.read_text().split() == [name for name in order for _ in range(2)]
    assert issubclass(socket.gaierror, OSError)
