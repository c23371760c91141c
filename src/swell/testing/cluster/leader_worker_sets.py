"""What the controller of LeaderWorkerSets does: a leader and workers for every set, all anew where one of them failed.

The real one makes StatefulSets, which make the Pods; here it makes them itself. Pods have the labels, annotations and
variables that its webhook gives them, variables first. A group is made anew a second later at the earliest. Left out:
more than one group, updates, subgroups.
"""

from typing import Any

from swell.testing.cluster.objects import FakeCluster, Object, Refused

PREFIX = "leaderworkerset.sigs.k8s.io"
NAME, INDEX, GROUP, SIZE = (f"{PREFIX}/{each}" for each in ("name", "worker-index", "group-index", "size"))
REMAKE_SECONDS = 1.0
_RECREATING = ("RecreateGroupOnPodRestart",)


class LeaderWorkerSets:
    """Beside a `FakeCluster`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self._made_at: dict[str, float] = {}  # leaders, by name

    def step(self) -> None:
        """Do what is to be done by now for every set."""
        for name, item in list(self.cluster.objects["leaderworkersets"].items()):
            self._restart(name, item)
            self._make(name, item)

    def _make(self, name: str, item: Object) -> None:
        """The leader first; workers only beside a leader that is not ending."""
        leader_name, group = f"{name}-0", item["spec"]["leaderWorkerTemplate"]
        pods = self.cluster.objects["pods"]
        if leader_name not in pods:
            now = self.cluster.clock.monotonic()
            if now < self._made_at.get(leader_name, -REMAKE_SECONDS) + REMAKE_SECONDS:
                return
            self._made_at[leader_name] = now
            template = group.get("leaderTemplate") or group["workerTemplate"]
            self._make_pod(leader_name, 0, item, template, _owned(item))
        leader = pods[leader_name]
        if "deletionTimestamp" in leader["metadata"]:
            return
        for index in range(1, group.get("size", 1)):
            if f"{leader_name}-{index}" not in pods:
                self._make_pod(f"{leader_name}-{index}", index, item, group["workerTemplate"], _owned(leader))

    def _restart(self, name: str, item: Object) -> None:
        """One of the Pods ends, or a container of it was started again: the leader goes, and with it all of them."""
        group = item["spec"]["leaderWorkerTemplate"]
        if group.get("restartPolicy") not in _RECREATING:
            return
        leader = self.cluster.objects["pods"].get(f"{name}-0")
        if leader is None or "deletionTimestamp" in leader["metadata"]:
            return
        workers = self._workers(leader)
        if any(_is_broken(pod) for pod in (leader, *workers)):
            for pod in (leader, *workers):
                self._delete(pod["metadata"]["name"])

    def _workers(self, leader: Object) -> list[Object]:
        """Those of this leader, and not of the one before it."""
        own = leader["metadata"]["uid"]
        return [
            pod
            for pod in self.cluster.objects["pods"].values()
            if any(each["uid"] == own for each in pod["metadata"].get("ownerReferences", []))
        ]

    def _delete(self, name: str) -> None:
        try:
            self.cluster.delete("pods", name)
        except Refused:
            return

    def _make_pod(self, name: str, index: int, item: Object, template: Object, owners: list[Object]) -> None:
        set_name, size = item["metadata"]["name"], item["spec"]["leaderWorkerTemplate"].get("size", 1)
        given = template.get("metadata", {})
        variables = {
            "LWS_LEADER_ADDRESS": f"{set_name}-0.{set_name}.models",
            "LWS_GROUP_SIZE": str(size),
            "LWS_WORKER_INDEX": str(index),
        }
        metadata = {
            "name": name,
            "labels": {**given.get("labels", {}), NAME: set_name, GROUP: "0", INDEX: str(index)},
            "annotations": {**given.get("annotations", {}), SIZE: str(size)},
            "ownerReferences": owners,
        }
        spec = template["spec"]
        spec = {**spec, "containers": [_told(each, variables) for each in spec["containers"]], "subdomain": set_name}
        self.cluster.create("pods", {"metadata": metadata, "spec": spec, "status": {"phase": "Pending"}})


def _told(container: Object, variables: dict[str, str]) -> Object:
    own: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in variables.items()]
    return {**container, "env": [*own, *(each for each in container.get("env", []) if each["name"] not in variables)]}


def _is_broken(pod: Object) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return "deletionTimestamp" in pod["metadata"] or any(each["restartCount"] for each in statuses)


def _owned(item: Object) -> list[dict[str, Any]]:
    metadata = item["metadata"]
    return [{"kind": item["kind"], "name": metadata["name"], "uid": metadata["uid"], "controller": True}]
