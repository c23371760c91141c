"""The objects that Swell applies: a Deployment and a Secret for each workload and fingerprint, a budget of disruptions.

Pure. A Deployment's template never changes once it is made: another launch line has another fingerprint, and so a
Deployment of its own. What changes is how many Pods it has and for which replicas, and that is applied by itself.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.pods import pod_template
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.errors import LaunchFailed
from swell.ports.provider import ChildSpec

OLD_REPLICA_SETS = 1  # kept by a Deployment whose template an operator has edited
PROGRESS_DEADLINE_SECONDS = 24 * 3600  # a machine with room may take long; Swell tells what is waited for
MAX_CHILDREN_BYTES = 200_000  # of an object's annotations, which may have 256 KiB


@dataclass(frozen=True)
class Scale:
    """How many Pods there shall be, and the replicas that they are for."""

    replicas: int
    children: tuple[str, ...]

    @property
    def annotation(self) -> str:
        """The replicas' ids, one a line."""
        return "\n".join(self.children)

    @classmethod
    def read(cls, replicas: int, annotation: str) -> "Scale":
        """What a Deployment says; lines that are empty are none."""
        return cls(replicas, tuple(line for line in annotation.splitlines() if line))


NOTHING = Scale(0, ())


def deployment(child: ChildSpec, settings: ClusterSettings, scale: Scale) -> dict[str, Any]:
    """The whole Deployment of `child` and its like. Raises LaunchFailed for what no Pod can be made of."""
    problem = problem_of(child)
    if problem:
        raise LaunchFailed(f"{child.workload} cannot run as a Pod: {problem}")
    labels = names.labels(settings.installation, child.workload, child.fingerprint)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.object_name(child.workload, child.fingerprint),
            "labels": {**labels, names.COMPONENT: names.REPLICA},
            "annotations": {
                names.FULL_NAME: child.workload,
                names.CHILDREN: scale.annotation,
                **({names.AUTHORITY: child.needs.tls.authority} if child.needs.tls is not None else {}),
            },
        },
        "spec": {
            "replicas": scale.replicas,
            "revisionHistoryLimit": OLD_REPLICA_SETS,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            # Accelerators are scarce: where an operator restarts a Deployment, Pods go before their successors come.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": pod_template(child, settings, {**labels, names.COMPONENT: names.REPLICA}),
        },
    }


def scaled(name: str, uid: str, scale: Scale) -> dict[str, Any]:
    """What changes of a Deployment. `uid` keeps it from being made anew where somebody has deleted it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "uid": uid, "annotations": {names.CHILDREN: scale.annotation}},
        "spec": {"replicas": scale.replicas},
    }


def secret(child: ChildSpec, settings: ClusterSettings, name: str = "") -> dict[str, Any]:
    """The environment of a Deployment's engines, where only they can read it; of a LeaderWorkerSet's by its `name`.

    It is made first and goes last, so that a later server knows by it whatever a killed one may have left.
    """
    data = {key: base64.b64encode(value.encode()).decode() for key, value in child.env.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name or names.object_name(child.workload, child.fingerprint),
            "labels": {
                **names.labels(settings.installation, child.workload, child.fingerprint),
                names.COMPONENT: names.REPLICA,
            },
            "annotations": {names.FULL_NAME: child.workload, **({names.CHILD: child.child_id} if name else {})},
        },
        "type": "Opaque",
        "data": data,
    }


def disruption_budget(workload: str, settings: ClusterSettings) -> dict[str, Any]:
    """One Pod of a workload at a time may be moved by whoever drains nodes; what is not ready anyway may go."""
    labels = names.labels(settings.installation, workload)
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": names.object_name(workload), "labels": {**labels, names.COMPONENT: names.REPLICA}},
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def mark(*, child_id: str = "", run: int = 0, cost: int) -> dict[str, Any]:
    """A Pod's annotations: whose it is, in which run of its container, and how dear its deletion is."""
    own = {names.CHILD: child_id, names.RUN: str(run)} if child_id else {}
    return {"metadata": {"annotations": {**own, names.DELETION_COST: str(cost)}}}


def fits(children: Sequence[str]) -> bool:
    """Whether a Deployment's annotation can hold these ids."""
    return sum(len(child_id.encode()) + 1 for child_id in children) <= MAX_CHILDREN_BYTES


def problem_of(child: ChildSpec) -> str:
    """What no API server would take, in words that say what to do; what else it refuses it says itself."""
    if not child.needs.image:
        return "it has no image; give one in the provider's images"
    if not child.argv or not child.workload or not child.fingerprint:
        return "it has no command, workload or fingerprint"
    words = (child.child_id, child.needs.image, *child.argv, *child.env, *child.env.values())
    if any("\0" in word for word in words):
        return "a word of its command or environment holds a NUL"
    if "\n" in child.child_id:
        return "its id holds the end of a line"
    return ""
