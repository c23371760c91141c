"""What Kubernetes does by itself, one `step` at a time: Deployments, ReplicaSets, scheduler, kubelets, collector; Jobs
and DaemonSets are in `batch`.

A ReplicaSet chooses its victims as the real one does: what has no node first, then what is pending, then what is not
ready, then by deletion cost. A Deployment whose template changes is replaced at once instead of rolled. The scheduler
knows extended resources, taints and required labels of nodes. A container ends at SIGTERM unless it is stubborn.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from swell.testing.cluster.batch import Batch
from swell.testing.cluster.kubelet import Kubelet, condition, has_condition
from swell.testing.cluster.leader_worker_sets import LeaderWorkerSets
from swell.testing.cluster.objects import FakeCluster, Object, Refused

COST = "controller.kubernetes.io/pod-deletion-cost"
MAX_ROUNDS = 50
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_PLAIN = ("cpu", "memory", "ephemeral-storage")


class Controllers:
    """Beside a `FakeCluster`. `paused` names those that do nothing: deployments, replicasets, leaderworkersets,
    batch, scheduler, kubelet."""

    def __init__(self, cluster: FakeCluster, fault_label: str = "app") -> None:
        self.cluster = cluster
        self.kubelet = Kubelet(cluster, fault_label)
        self.leader_worker_sets = LeaderWorkerSets(cluster)
        self.batch = Batch(cluster, fits)
        self.paused: set[str] = set()
        self.created = 0  # Pods, ever
        self._owned: dict[str, dict[str, list[Object]]] = {"replicasets": {}, "pods": {}}  # by kind and owner
        self._made = 0

    def step(self) -> None:
        """Let each of them do what is to be done by now, until nothing changes any more."""
        for _ in range(MAX_ROUNDS):
            before = self.cluster.version
            self._index()
            if "deployments" not in self.paused:
                self._deployments()
            if "replicasets" not in self.paused:
                self._index()
                self._replica_sets()
            if "leaderworkersets" not in self.paused:
                self.leader_worker_sets.step()
            if "batch" not in self.paused:
                self.batch.step(self._owned["pods"])
            if "scheduler" not in self.paused:
                self._schedule()
            if "kubelet" not in self.paused:
                self.kubelet.step()
            self._collect()
            if self.cluster.version == before:
                return
        raise AssertionError(f"the controllers did not settle in {MAX_ROUNDS} rounds")

    def add_node(
        self, name: str, *, zone: str = "zone-a", labels: Mapping[str, str] | None = None, **room: int
    ) -> None:
        """A machine with room for so many Pods, and of extended resources (`gpu=4` is nvidia.com/gpu)."""
        allocatable = {"pods": str(room.pop("pods", 110)), **({"nvidia.com/gpu": str(room["gpu"])} if room else {})}
        metadata = {"name": name, "labels": {"topology.kubernetes.io/zone": zone, **(labels or {})}}
        status = {"allocatable": allocatable, "conditions": [condition("Ready", "True")]}
        self.cluster.create("nodes", {"metadata": metadata, "spec": {}, "status": status})

    def taint(self, node: str, key: str, value: str = "", effect: str = "NoSchedule") -> None:
        """Mark a machine."""
        item = self.cluster.get("nodes", node)
        taints = [*item["spec"].get("taints", []), {"key": key, "value": value, "effect": effect}]
        self.cluster.put("nodes", {**item, "spec": {**item["spec"], "taints": taints}})

    def lose(self, node: str) -> None:
        """A machine's kubelet is not heard of any more: its Pods stay as they were last told, and end only by force."""
        self.kubelet.lost.add(node)
        self.cluster.set_status("nodes", node, {"conditions": [condition("Ready", "Unknown", "NodeStatusUnknown")]})

    def reclaim(self, node: str) -> None:
        """Take a machine away, with all that ran on it."""
        self.cluster.remove("nodes", node)
        for name, pod in list(self.cluster.objects["pods"].items()):
            if pod["spec"].get("nodeName") == node:
                self.cluster.remove("pods", name)

    def _deployments(self) -> None:
        cluster = self.cluster
        for name, item in list(cluster.objects["deployments"].items()):
            spec, own = item["spec"], f"{name}-{_digest(item['spec']['template'])}"
            replicas = spec.get("replicas", 1)
            if own not in cluster.objects["replicasets"]:
                labels = {**spec["template"]["metadata"]["labels"], "pod-template-hash": own.rsplit("-", 1)[1]}
                metadata = {"name": own, "labels": labels, "ownerReferences": _owned(item, "Deployment")}
                cluster.create("replicasets", {"metadata": metadata, "spec": {"replicas": replicas, **_without(spec)}})
            for each in self._owned["replicasets"].get(name, []):
                count = replicas if each["metadata"]["name"] == own else 0
                cluster.put("replicasets", {**each, "spec": {**each["spec"], "replicas": count}})
            pods = [pod for pod in self._owned["pods"].get(own, []) if is_active(pod)]
            ready = sum(has_condition(pod, "Ready") for pod in pods)
            generation = item["metadata"]["generation"]
            status = {"observedGeneration": generation, "replicas": len(pods), "readyReplicas": ready}
            cluster.set_status("deployments", name, status)

    def _replica_sets(self) -> None:
        for name, item in list(self.cluster.objects["replicasets"].items()):
            pods = [pod for pod in self._owned["pods"].get(name, []) if is_active(pod)]
            missing = item["spec"]["replicas"] - len(pods)
            for _ in range(max(0, missing)):
                self._make_pod(name, item)
            for pod in sorted(pods, key=_rank)[: max(0, -missing)]:
                self.cluster.delete("pods", pod["metadata"]["name"])

    def _make_pod(self, name: str, item: Object) -> None:
        self._made += 1
        self.created += 1
        template = item["spec"]["template"]
        metadata = {
            "name": f"{name}-{self._made:05x}",
            "labels": item["metadata"]["labels"],
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": _owned(item, "ReplicaSet"),
        }
        self.cluster.create("pods", {"metadata": metadata, "spec": template["spec"], "status": {"phase": "Pending"}})

    def _schedule(self) -> None:
        waiting = [pod for pod in self.cluster.objects["pods"].values() if not pod["spec"].get("nodeName")]
        if not waiting:
            return
        taken: dict[str, dict[str, int]] = {}
        for pod in self.cluster.objects["pods"].values():
            if node := pod["spec"].get("nodeName"):
                _add(taken.setdefault(node, {}), _asked(pod))
        for pod in waiting:
            reasons = []
            for name, node in self.cluster.objects["nodes"].items():
                reason = self._obstacle(pod, node, taken.setdefault(name, {}))
                if not reason:
                    _add(taken[name], _asked(pod))
                    bound = {**pod, "spec": {**pod["spec"], "nodeName": name}}
                    bound["status"] = {**pod["status"], "conditions": [condition("PodScheduled", "True")]}
                    self.cluster.put("pods", bound)
                    break
                reasons.append(reason)
            else:
                told = ", ".join(f"{reasons.count(each)} {each}" for each in sorted(set(reasons)))
                message = f"0/{len(reasons)} nodes are available: {told}."
                said = [condition("PodScheduled", "False", "Unschedulable", message)]
                self.cluster.set_status("pods", pod["metadata"]["name"], {"conditions": said})

    def _obstacle(self, pod: Object, node: Object, taken: Mapping[str, int]) -> str:
        if not has_condition(node, "Ready") or node["spec"].get("unschedulable"):
            return "node(s) were unschedulable"
        if taint := _unborne(pod["spec"], node):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
        if not _chosen(pod["spec"], node["metadata"].get("labels", {})):
            return "node(s) didn't match Pod's node affinity/selector"
        allocatable = node["status"]["allocatable"]
        for resource, count in _asked(pod).items():
            if taken.get(resource, 0) + count > int(allocatable.get(resource, "0")):
                return "Too many pods" if resource == "pods" else f"Insufficient {resource}"
        return ""

    def _collect(self) -> None:
        """What nobody owns any more goes."""
        owned = {
            "replicasets": ("deployments",),
            "pods": ("replicasets", "leaderworkersets", "pods", "jobs", "daemonsets"),
        }
        for kind, owners in owned.items():
            alive = {item["metadata"]["uid"] for each in owners for item in self.cluster.objects[each].values()}
            for name, item in list(self.cluster.objects[kind].items()):
                refs = item["metadata"].get("ownerReferences", [])
                if refs and refs[0]["uid"] not in alive and "deletionTimestamp" not in item["metadata"]:
                    try:
                        self.cluster.delete(kind, name)
                    except Refused:
                        continue

    def _index(self) -> None:
        """What belongs to whom, once a round: clusters of ten thousand Pods are played too."""
        for kind, owned in self._owned.items():
            owned.clear()
            for item in self.cluster.objects[kind].values():
                owned.setdefault(_owner(item), []).append(item)


def fits(spec: Mapping[str, Any], node: Mapping[str, Any]) -> bool:
    """Whether a node is one for such Pods, however much room it has."""
    return _unborne(spec, node) is None and _chosen(spec, node["metadata"].get("labels", {}))


def _unborne(spec: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A taint that keeps such Pods away."""
    for taint in node["spec"].get("taints", []):
        borne = any(_bears(each, taint) for each in spec.get("tolerations", []))
        if taint["effect"] in ("NoSchedule", "NoExecute") and not borne:
            found: Mapping[str, Any] = taint
            return found
    return None


def is_active(pod: Mapping[str, Any]) -> bool:
    """Whether a ReplicaSet counts it."""
    return "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] not in ("Failed", "Succeeded")


def _rank(pod: Mapping[str, Any]) -> tuple[Any, ...]:
    """Who goes first, as `ActivePodsWithRanks` sorts them."""
    is_ready = has_condition(pod, "Ready")
    restarts = sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
    return (
        bool(pod["spec"].get("nodeName")),
        _PHASES.get(pod["status"]["phase"], 0),
        is_ready,
        int(pod["metadata"].get("annotations", {}).get(COST, "0")),
        -pod["status"].get("readyAt", 0.0) if is_ready else 0.0,
        -restarts,
        -pod["metadata"]["createdAt"],
    )


def _owned(item: Object, kind: str) -> list[dict[str, Any]]:
    metadata = item["metadata"]
    return [{"kind": kind, "name": metadata["name"], "uid": metadata["uid"], "controller": True}]


def _owner(item: Mapping[str, Any]) -> str:
    refs = item["metadata"].get("ownerReferences", [])
    return str(refs[0]["name"]) if refs else ""


def _without(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key in ("selector", "template")}


def _digest(template: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:9]


def _asked(pod: Mapping[str, Any]) -> dict[str, int]:
    asked = {"pods": 1}
    for container in pod["spec"]["containers"]:
        limits = container.get("resources", {}).get("limits", {})
        _add(asked, {name: int(value) for name, value in limits.items() if name not in _PLAIN})
    return asked


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


def _bears(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    same_key = toleration.get("key", taint["key"]) == taint["key"]
    same_value = toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
    return same_key and same_value and toleration.get("effect", taint["effect"]) in ("", taint["effect"])


def _chosen(spec: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return False
    affinity = spec.get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms", [])
    return not terms or any(
        all(
            (labels.get(each["key"]) in each["values"]) is (each["operator"] == "In")
            for each in term["matchExpressions"]
        )
        for term in terms
    )
