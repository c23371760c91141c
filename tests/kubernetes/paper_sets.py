"""The controller of LeaderWorkerSets on a real control plane, as far as tests need it.

The leader is a StatefulSet's, as with the real one; workers are its Pods without another between them, and nobody puts
variables into containers. What goes when something else does is the real garbage collector's business.
"""

from typing import Any

from lightkube import Client
from lightkube.core.exceptions import ApiError
from lightkube.core.resource import NamespacedResource
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.apps_v1 import StatefulSet
from lightkube.resources.core_v1 import Pod
from lightkube.types import CascadeType

from swell.adapters.providers.kubernetes import names

LeaderWorkerSet: Any = create_namespaced_resource(
    "leaderworkerset.x-k8s.io", "v1", "LeaderWorkerSet", "leaderworkersets"
)


class PaperSets:
    """In the namespace of `client`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def step(self) -> None:
        """Do what is to be done by now for every set."""
        pods: dict[str, dict[int, Pod]] = {}
        for pod in self._client.list(Pod):
            assert pod.metadata is not None
            labels = pod.metadata.labels or {}
            if names.SET_NAME in labels:
                pods.setdefault(labels[names.SET_NAME], {})[int(labels[names.SET_INDEX])] = pod
        for item in self._client.list(LeaderWorkerSet):
            self._look_at(item, pods.get(item.metadata.name, {}))

    def _look_at(self, item: Any, pods: dict[int, Pod]) -> None:
        name, group = item.metadata.name, item.spec["leaderWorkerTemplate"]
        self._make(StatefulSet, _leaders(name, group, _owner(item)))
        leader = pods.get(0)
        if leader is None or leader.metadata is None or leader.metadata.deletionTimestamp is not None:
            return
        if any(pod.metadata is not None and pod.metadata.deletionTimestamp is not None for pod in pods.values()):
            self._delete(leader)
            return
        for index in range(1, group["size"]):
            if index not in pods:
                template, metadata = group["workerTemplate"], {"name": f"{name}-0-{index}"}
                metadata |= {
                    "labels": _labels(template, name, index),
                    "annotations": template["metadata"]["annotations"],
                }
                metadata["ownerReferences"] = [_owner(leader)]
                self._make(Pod, {"metadata": metadata, "spec": template["spec"]})

    def _make(self, kind: type[NamespacedResource], manifest: dict[str, Any]) -> None:
        try:
            self._client.create(kind.from_dict(manifest))
        except ApiError as error:
            if error.status.code != 409:
                raise

    def _delete(self, pod: Pod) -> None:
        assert pod.metadata is not None
        try:
            self._client.delete(Pod, pod.metadata.name or "", cascade=CascadeType.FOREGROUND)
        except ApiError as error:
            if error.status.code != 404:
                raise


def _leaders(name: str, group: dict[str, Any], owner: dict[str, Any]) -> dict[str, Any]:
    template = group["leaderTemplate"]
    labels = _labels(template, name, 0)
    metadata = {"labels": labels, "annotations": template["metadata"]["annotations"]}
    return {
        "metadata": {"name": name, "ownerReferences": [owner]},
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {names.SET_NAME: name, names.SET_INDEX: "0"}},
            "template": {"metadata": metadata, "spec": template["spec"]},
        },
    }


def _labels(template: dict[str, Any], name: str, index: int) -> dict[str, str]:
    return {**template["metadata"]["labels"], names.SET_NAME: name, names.SET_INDEX: str(index)}


def _owner(item: Any) -> dict[str, Any]:
    kind, version = ("Pod", "v1") if isinstance(item, Pod) else ("LeaderWorkerSet", "leaderworkerset.x-k8s.io/v1")
    metadata = {"name": item.metadata.name, "uid": item.metadata.uid}
    return {"apiVersion": version, "kind": kind, **metadata, "controller": True, "blockOwnerDeletion": True}
