"""Every object that Swell can apply is one that Kubernetes knows, and says what it should."""

import base64
import dataclasses
import re
from dataclasses import replace
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
from chart import check_custom, custom_schemas
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kube_children import ISSUED_TLS, OWN_TLS, SETTINGS, child, children, cluster_settings
from kubernetes_validate import utils

from swell.adapters.providers.accelerators import Platform
from swell.adapters.providers.kubernetes import manifests, manifests_tls, names, pods
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.manifests import NOTHING, Scale
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.errors import LaunchFailed
from swell.ports.provider import ChildSpec, Needs

OLDEST, NEWEST = "1.31", "1.37"
SCHEMAS = custom_schemas()
LABEL = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Any:
    """The validator reads three megabytes for every object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


def _expanded(word: str) -> str:
    """What a kubelet makes of a word of a command where no variable is known (its `expansion.Expand`)."""
    written, at = "", 0
    while at < len(word):
        if word[at] != "$" or at + 1 == len(word):
            written, at = written + word[at], at + 1
        elif word[at + 1] == "$":
            written, at = written + "$", at + 2
        elif word[at + 1] == "(" and ")" in word[at:]:
            at = word.index(")", at) + 1
            written += "<a variable>"
        else:
            written, at = written + word[at : at + 2], at + 2
    return written


def _assert_known(manifest: dict[str, Any]) -> None:
    for version in (OLDEST, NEWEST):
        assert kubernetes_validate.validate(manifest, version, strict=True) == version
    for key, value in manifest["metadata"]["labels"].items():
        assert re.fullmatch(LABEL, value), (key, value)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", manifest["metadata"]["name"])


@settings(max_examples=150)
@given(children(), cluster_settings(), st.integers(0, 1000))
def test_every_object_is_one_that_kubernetes_knows(child: ChildSpec, cluster: ClusterSettings, count: int) -> None:
    try:
        deployment = manifests.deployment(child, cluster, Scale(count, (child.child_id,)))
    except LaunchFailed as error:
        assume("not to be had on" not in str(error))
        raise
    _assert_known(deployment)
    _assert_known(manifests.disruption_budget(child.workload, cluster))
    secret = manifests.secret(child, cluster)
    _assert_known(secret)
    assert {key: base64.b64decode(value).decode() for key, value in secret["data"].items()} == child.env
    # A value that is there without the environment, too, such as a field's name, tells nothing of it.
    known = str(manifests.deployment(replace(child, env={}), cluster, Scale(count, (child.child_id,))))
    found = [value for value in child.env.values() if len(value) > 8 and value in str(deployment)]
    assert [value for value in found if value not in known] == []
    template = deployment["spec"]["template"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (engine,) = template["spec"]["containers"]
    assert tuple(map(_expanded, engine["command"])) == child.argv


def test_behind_tls_an_engine_is_reached_by_its_sidecar_alone() -> None:
    engine_port = dataclasses.replace(child(needs=Needs(image="vllm", tls=OWN_TLS)), port=8002)
    pod = manifests.deployment(engine_port, SETTINGS, NOTHING)["spec"]["template"]["spec"]
    (engine,), (sidecar,) = pod["containers"], pod["initContainers"]
    assert "ports" not in engine
    assert engine["readinessProbe"]["httpGet"]["port"] == engine["startupProbe"]["httpGet"]["port"] == 8001
    assert "http://127.0.0.1:8002/metrics" in engine["lifecycle"]["preStop"]["exec"]["command"]
    assert (sidecar["restartPolicy"], sidecar["image"]) == ("Always", OWN_TLS.image)
    assert {"--engine-port=8002", "--port=8000", "--client=inst-1.gateway.swell.internal"} <= set(sidecar["command"])
    assert sidecar["securityContext"] == engine["securityContext"]
    (volume,) = [each for each in pod["volumes"] if "secret" in each]
    assert volume["secret"]["secretName"] == names.object_name("chat", "0123456789abcdef") + "-tls"
    assert volume["name"] not in {mount["name"] for mount in engine["volumeMounts"]}


@given(children(), cluster_settings())
def test_certificates_are_asked_for_as_cert_manager_knows_them(child: ChildSpec, cluster: ClusterSettings) -> None:
    key = names.group_key(names.labels(cluster.installation, child.workload, child.fingerprint))
    name = names.object_name(child.workload, child.fingerprint)
    group = Group(key, name, child.workload, ISSUED_TLS.authority, uid="00000000-0000-0000-0000-000000000000")
    asked = manifests_tls.replica_certificate(group, cluster, 86400.0)
    gateways = manifests_tls.gateways_certificate(group.authority, cluster, 86400.0)
    for manifest in (asked, gateways):
        check_custom(manifest, SCHEMAS)
        assert manifest["spec"]["issuerRef"] == {
            "group": "cert-manager.io", "kind": "ClusterIssuer", "name": "company-ca",
        }  # fmt: skip
        assert (manifest["spec"]["duration"], manifest["spec"]["renewBefore"]) == ("24h0m0s", "12h0m0s")
        assert all(re.fullmatch(LABEL, value) for value in manifest["spec"]["secretTemplate"]["labels"].values())
    (name,) = asked["spec"]["dnsNames"]
    assert len(name) <= 253
    assert gateways["spec"]["dnsNames"] != asked["spec"]["dnsNames"]


def test_a_misspelt_field_would_have_been_found() -> None:
    manifest = manifests.deployment(child(), SETTINGS, NOTHING)
    manifest["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def test_a_pod_can_do_little_besides_its_work() -> None:
    pod = manifests.deployment(child(), SETTINGS, NOTHING)["spec"]["template"]["spec"]
    (engine,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert engine["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert engine["securityContext"]["readOnlyRootFilesystem"] is True
    assert engine["readinessProbe"]["httpGet"]["path"] == engine["startupProbe"]["httpGet"]["path"] == "/health"
    assert pod["terminationGracePeriodSeconds"] == 2 + 30 + 5
    assert {mount["name"] for mount in engine["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_accelerators_are_asked_for_and_their_nodes_chosen() -> None:
    on_gke = ClusterSettings("models", "inst-1", platform=Platform.GKE)
    needs = Needs(image="vllm", cpus=7.5, memory_bytes=2**34, accelerator="L4", accelerators=2, market="spot")
    pod = manifests.deployment(child(needs=needs), on_gke, NOTHING)["spec"]["template"]["spec"]
    resources = pod["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": "2", "memory": str(2**34)}
    assert resources["requests"] == {"nvidia.com/gpu": "2", "cpu": "7500m", "memory": str(2**34)}
    assert "nvidia-l4" in str(pod["affinity"])
    assert {each["key"] for each in pod["tolerations"]} >= {"nvidia.com/gpu"}


@given(st.text(st.sampled_from("$()A"), max_size=12))
def test_no_word_of_a_command_is_taken_for_a_variable(word: str) -> None:
    assert _expanded(pods.literal(word)) == word


@pytest.mark.parametrize(
    ("changes", "problem"),
    [({"needs": Needs()}, "no image"), ({"env": {"A": "x\0"}}, "NUL"), ({"child_id": "a\nb"}, "end of a line")],
)
def test_what_no_pod_can_be_made_of_is_refused_with_a_reason(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(LaunchFailed, match=problem):
        manifests.deployment(child(**changes), SETTINGS, NOTHING)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=80), st.text(max_size=20)), min_size=2, unique=True))
def test_different_workloads_have_different_names_that_are_names(pairs: list[tuple[str, str]]) -> None:
    found = [names.object_name(*pair) for pair in pairs]
    assert len(set(found)) == len(pairs)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,40}", name) and not name.endswith("-") for name in found)
    assert all(re.fullmatch(LABEL, names.label_value(workload)) for workload, _ in pairs)


@given(st.lists(st.from_regex(r"[a-z/:.-]{1,30}-[0-9]{1,3}\.[0-9a-f]{8}", fullmatch=True), max_size=50), st.integers(0))
def test_the_replicas_of_a_deployment_are_read_as_they_were_written(children: list[str], replicas: int) -> None:
    scale = Scale(replicas, tuple(children))
    assert Scale.read(replicas, scale.annotation) == scale
    assert manifests.fits(children)


def test_a_deployment_for_more_replicas_than_it_can_name_is_told() -> None:
    assert not manifests.fits([f"{'x' * 200}-{number}" for number in range(1000)])
