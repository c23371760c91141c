"""What holds for the objects of every rendering of the chart."""

import re
from functools import cache

import kubernetes_validate
from chart import Object, check_custom, custom_schemas, one, pod_labels, workloads
from kubernetes_validate import utils

from swell.spec import Spec, parse_spec

MAX_STATEFULSET_NAME = 52  # its Pods carry it with a hash of ten in one label
OLDEST, NEWEST = "1.31", "1.37"
LABEL = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
CUSTOM = custom_schemas()
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "StorageClass", "NodePool"}
_contents = cache(utils.schema_contents)  # three megabytes, which the validator reads for every object


def spec_of(objects: list[Object]) -> Spec:
    """As the server reads it."""
    return parse_spec(one(objects, "ConfigMap")["data"]["swell.yaml"], origin="swell.yaml")


def check_objects(objects: list[Object]) -> None:
    """Everything that holds for every rendering."""
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    for item in objects:
        if (item["apiVersion"], item["kind"]) in CUSTOM:
            check_custom(item, CUSTOM)
        else:
            _check_known(item)
        for value in item["metadata"].get("labels", {}).values():
            assert re.fullmatch(LABEL, value)
    makers = workloads(objects)
    for owner in makers:
        _check_pod(owner["spec"]["template"], [each["metadata"]["name"] for each in _claims(owner)])
        assert owner["kind"] != "StatefulSet" or len(owner["metadata"]["name"]) <= MAX_STATEFULSET_NAME
        if owner["kind"] != "Job":
            assert owner["spec"]["selector"]["matchLabels"].items() <= pod_labels(owner).items()
    for service in (each for each in objects if each["kind"] == "Service"):
        (behind,) = selected(service["spec"]["selector"], makers)
        ports = {port["name"] for port in behind["spec"]["template"]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for budget in (each for each in objects if each["kind"] == "PodDisruptionBudget"):
        assert len(selected(budget["spec"]["selector"]["matchLabels"], makers)) == 1


def selected(labels: dict[str, str], makers: list[Object]) -> list[Object]:
    """Whose Pods have these labels."""
    return [owner for owner in makers if labels.items() <= pod_labels(owner).items()]


def _claims(owner: Object) -> list[Object]:
    return list(owner["spec"].get("volumeClaimTemplates", []))


def _check_pod(template: Object, claims: list[str]) -> None:
    """It may do as little as replicas' Pods, and mounts what there is."""
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in pod.get("volumes", [])} | set(claims)
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def _check_known(item: Object) -> None:
    """By Kubernetes' own schemas, unknown fields refused."""
    original, utils.schema_contents = utils.schema_contents, _contents
    try:
        for version in (OLDEST, NEWEST):
            assert kubernetes_validate.validate(item, version, strict=True) == version
    finally:
        utils.schema_contents = original
