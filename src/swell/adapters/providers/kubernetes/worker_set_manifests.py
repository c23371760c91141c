"""The object that Swell applies for a replica over several nodes: a LeaderWorkerSet of one group. Pure.

A LeaderWorkerSet of many groups gives up the last one when it shrinks, whichever the plan chose. So each replica has
one of its own, and ends with it. Fields are those of `leaderworkerset.x-k8s.io/v1`.
"""

from collections.abc import Mapping
from typing import Any

from swell.adapters.providers.accelerators import ZONE_LABEL, node_placement
from swell.adapters.providers.kubernetes import idle, manifests, names
from swell.adapters.providers.kubernetes.pods import CONTAINER_SECURITY, literal, pod_template
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.errors import LaunchFailed
from swell.ports.provider import ChildSpec

AWAIT = "await-nodes"  # name of the container that waits for the other nodes
# What that controller puts into every container's environment, before everything else.
LEADER, RANK = "$(LWS_LEADER_ADDRESS)", "$(LWS_WORKER_INDEX)"
_LEADER_IN_SCRIPT = "${LWS_LEADER_ADDRESS}"
NEAR = 100  # the most that a preference weighs

# A Pod has a name in the cluster's DNS from when a machine has taken it. Engines that wait for one another give up
# after some minutes, and machines may take longer.
AWAIT_SCRIPT = """
import os, socket, time
leader, nodes = os.environ["LWS_LEADER_ADDRESS"], int(os.environ["LWS_GROUP_SIZE"])
first, _, rest = leader.partition(".")
for name in [leader, *(f"{first}-{index}.{rest}" for index in range(1, nodes))]:
    while True:
        try:
            socket.getaddrinfo(name, None)
            break
        except OSError:
            time.sleep(1)
"""


def leader_worker_set(child: ChildSpec, settings: ClusterSettings) -> dict[str, Any]:
    """All of it. Raises LaunchFailed for what no Pods can be made of."""
    problem = manifests.problem_of(child) or _problem_of(child)
    if problem:
        raise LaunchFailed(f"{child.workload} cannot run as a LeaderWorkerSet: {problem}")
    name = names.set_name(child.workload, child.child_id)
    labels = {
        **names.labels(settings.installation, child.workload, child.fingerprint),
        names.COMPONENT: names.REPLICA,
    }
    annotations = {names.FULL_NAME: child.workload, names.CHILD: child.child_id}
    exclusive = settings.exclusive_topology or node_placement(child.needs, settings.platform).exclusive
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {**annotations, **({names.SET_EXCLUSIVE: exclusive} if exclusive else {})},
        },
        "spec": {
            "replicas": 1,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": child.needs.nodes,
                # Where no server is there to start another replica, this one heals by itself.
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _template(child, settings, labels, name),
                "workerTemplate": _worker(child, _template(child, settings, labels, name)),
            },
        },
    }


def _template(child: ChildSpec, settings: ClusterSettings, labels: Mapping[str, str], name: str) -> dict[str, Any]:
    """The Pod of the first node."""
    template = pod_template(child, settings, labels, secret=name)
    template["metadata"]["annotations"][names.CHILD] = child.child_id
    spec = template["spec"]
    (engine,) = spec["containers"]
    engine["command"] = [_told(word) for word in child.argv]
    spec["initContainers"] = [*spec.get("initContainers", []), _await(engine)]
    # Near one another, wherever there are zones; from those of other replicas Pods are kept by node alone.
    near = {"labelSelector": {"matchLabels": {names.SET_NAME: name}}, "topologyKey": ZONE_LABEL}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": NEAR, "podAffinityTerm": near}]}
    spec["affinity"] = {**spec.get("affinity", {}), "podAffinity": preferred}
    spec["topologySpreadConstraints"] = [
        each for each in spec["topologySpreadConstraints"] if each["topologyKey"] != ZONE_LABEL
    ]
    return template


def _worker(child: ChildSpec, template: dict[str, Any]) -> dict[str, Any]:
    """The Pod of every other node: nobody speaks to it, so it is ready when it runs, and idle when the first one is."""
    (engine,) = template["spec"]["containers"]
    for field in ("ports", "startupProbe", "readinessProbe"):
        engine.pop(field, None)
    engine["command"] = [_told(word) for word in child.worker_argv]
    wait = idle.wait_until_idle(child.port, child.lifecycle.metrics, child.env, _LEADER_IN_SCRIPT)
    engine["lifecycle"] = {"preStop": {"exec": {"command": wait}}}
    return template


def _await(engine: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": AWAIT,
        "image": engine["image"],
        "command": [idle.PYTHON, "-c", literal(AWAIT_SCRIPT)],
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _told(word: str) -> str:
    """A word of a command as it is, but that nodes are told their place in it."""
    return LEADER.join(RANK.join(map(literal, part.split(RANK))) for part in word.split(LEADER))


def _problem_of(child: ChildSpec) -> str:
    if not child.worker_argv:
        return "it has no command for its other nodes"
    if any("\0" in word for word in child.worker_argv):
        return "a word of its command holds a NUL"
    return ""
