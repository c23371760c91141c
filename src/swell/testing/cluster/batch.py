"""Jobs and DaemonSets, as their controllers and Kueue look after them, one `step` at a time.

A Job's Pods run one at a time until one succeeds, too many have failed or its time is over. A DaemonSet's Pod is put
on each node that it fits, without the scheduler's choice. Kueue's webhook holds what carries its label, and lets go
on what is in one of the queues of `admitting`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from swell.testing.cluster.kubelet import condition, has_condition
from swell.testing.cluster.objects import FakeCluster, Object

QUEUE = "kueue.x-k8s.io/queue-name"
RETRY_SECONDS = 10.0  # after the first failure, doubled each time
MAX_RETRY_SECONDS = 600.0

Fits = Callable[[Object, Object], bool]
"""Whether a Pod's spec fits a node."""


class Batch:
    """`pods_of` are a Job's or DaemonSet's by its name."""

    def __init__(self, cluster: FakeCluster, fits: Fits) -> None:
        self.cluster = cluster
        self.admitting: set[str] = set()
        self._fits = fits
        self._made = 0

    def step(self, pods_of: Mapping[str, list[Object]]) -> None:
        """What is to be done by now."""
        for name, job in list(self.cluster.objects["jobs"].items()):
            self._job(name, job, pods_of.get(name, []))
        for name, item in list(self.cluster.objects["daemonsets"].items()):
            self._daemon_set(name, item, pods_of.get(name, []))

    def _job(self, name: str, job: Object, pods: list[Object]) -> None:
        spec, status = job["spec"], job.get("status", {})
        now = self.cluster.clock.monotonic()
        if ended_at := status.get("endedAt"):
            if now >= ended_at + spec.get("ttlSecondsAfterFinished", float("inf")):
                self.cluster.remove("jobs", name)
            return
        queue = job["metadata"].get("labels", {}).get(QUEUE, "")
        if queue and spec.get("suspend") is not (queue not in self.admitting):
            held = {**job, "spec": {**spec, "suspend": queue not in self.admitting}}
            self.cluster.update("jobs", held, manager="kueue")
            return
        active = [pod for pod in pods if pod["status"]["phase"] not in ("Failed", "Succeeded")]
        failed = [pod for pod in pods if pod["status"]["phase"] == "Failed"]
        if spec.get("suspend"):
            for pod in active:
                self.cluster.delete("pods", pod["metadata"]["name"])
            self._tell(name, job, {"conditions": [condition("Suspended", "True", "JobSuspended")], "active": 0})
            return
        began = status.get("beganAt", now)
        told: dict[str, Any] = {"active": len(active), "failed": len(failed), "beganAt": began, "conditions": []}
        if any(pod["status"]["phase"] == "Succeeded" for pod in pods):
            told |= {"endedAt": now, "conditions": [self._ended("Complete")]}
        elif len(failed) > spec.get("backoffLimit", 6):
            why = self._ended("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            told |= {"endedAt": now, "conditions": [why]}
        elif now >= began + spec.get("activeDeadlineSeconds", float("inf")):
            why = self._ended("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            told |= {"endedAt": now, "active": 0, "conditions": [why]}
            for pod in active:
                self.cluster.delete("pods", pod["metadata"]["name"])
        elif not active and now >= self._retry_at(failed):
            self._make(name, job, "Job", {"batch.kubernetes.io/job-name": name}, node="")
            told["active"] = 1
        self._tell(name, job, told)

    def _ended(self, kind: str, reason: str = "", message: str = "") -> dict[str, str]:
        return {**condition(kind, "True", reason, message), "lastTransitionTime": self.cluster.stamp()}

    def _retry_at(self, failed: list[Object]) -> float:
        ends = [
            status["state"]["terminated"]["endedAt"]
            for pod in failed
            for status in pod["status"].get("containerStatuses", [])
            if "terminated" in status["state"]
        ]
        return max(ends, default=0.0) + min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** (len(ends) - 1)) if ends else 0.0

    def _daemon_set(self, name: str, item: Object, pods: list[Object]) -> None:
        template = item["spec"]["template"]
        revision = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:9]
        nodes = [
            node["metadata"]["name"]
            for node in self.cluster.objects["nodes"].values()
            if self._fits(template["spec"], node)
        ]
        there: dict[str, Object] = {}
        for pod in pods:
            metadata, node = pod["metadata"], pod["spec"]["nodeName"]
            if node in nodes and metadata["labels"]["controller-revision-hash"] == revision and node not in there:
                there[node] = pod
            elif "deletionTimestamp" not in metadata:
                self.cluster.delete("pods", metadata["name"])
        for node in nodes:
            if node not in there:
                self._make(name, item, "DaemonSet", {"controller-revision-hash": revision}, node=node)
        ready = sum(has_condition(pod, "Ready") for pod in there.values())
        told = {"desiredNumberScheduled": len(nodes), "currentNumberScheduled": len(there), "numberReady": ready}
        generation = item["metadata"]["generation"]
        self.cluster.set_status("daemonsets", name, {"observedGeneration": generation, **told})

    def _make(self, name: str, item: Object, kind: str, labels: Mapping[str, str], *, node: str) -> None:
        self._made += 1
        template, owner = item["spec"]["template"], item["metadata"]
        metadata = {
            "name": f"{name}-{self._made:05x}",
            "labels": {**template["metadata"]["labels"], **labels},
            "ownerReferences": [{"kind": kind, "name": name, "uid": owner["uid"], "controller": True}],
        }
        spec = {**template["spec"], **({"nodeName": node} if node else {})}
        status = {"phase": "Pending", "conditions": [condition("PodScheduled", "True")] if node else []}
        self.cluster.create("pods", {"metadata": metadata, "spec": spec, "status": status})

    def _tell(self, name: str, job: Object, status: Mapping[str, Any]) -> None:
        if {**job.get("status", {}), **status} != job.get("status", {}):
            self.cluster.set_status("jobs", name, status)
