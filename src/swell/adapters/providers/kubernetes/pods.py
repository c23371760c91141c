"""The template of a workload's Pods, as Kubernetes wants it. Pure.

An engine's container runs as nobody in particular, cannot write to its image, and has no way to the cluster's API.
What it writes goes to three places: the cache of models, a scratch folder that ends with the Pod, and shared memory.
"""

import math
from collections.abc import Mapping
from typing import Any

from swell.adapters.providers.accelerators import NodePlacement, node_placement
from swell.adapters.providers.kubernetes import idle, names, sidecar
from swell.adapters.providers.kubernetes.settings import MODELS, SCRATCH, ClusterSettings
from swell.ports.provider import ChildSpec, Fetch, Needs

ENGINE = "engine"  # name of the container, and of its port
FETCH = "fetch-model"
USER_ID = 65532  # of nobody in particular, as distroless images have it
PROBE_SECONDS = 2  # between two probes, and for the answer of one
PROBES_MISSED = 2  # in a row, and a Pod is not ready
START_MARGIN_SECONDS = 60.0  # Swell's own start timeout comes first, and tells more than a kubelet's
WORKERS_SPREAD = 1  # most by which two nodes or zones should differ, where there is a choice

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}
_ENVIRONMENT = {
    "HOME": SCRATCH,
    "USER": names.MANAGER,  # libraries that ask who runs them find no such user in the image
    "LOGNAME": names.MANAGER,
    "XDG_CACHE_HOME": f"{SCRATCH}/cache",
    "HF_HOME": f"{MODELS}/hub",
    "SWELL_CACHE": MODELS,
}


def pod_template(
    child: ChildSpec, settings: ClusterSettings, labels: Mapping[str, str], secret: str = ""
) -> dict[str, Any]:
    """The Pods of a Deployment. Raises LaunchFailed where the platform has no such accelerator.

    `secret` holds their environment; it is called as the Deployment where it has no name of its own.
    """
    placement = node_placement(child.needs, settings.platform)
    secret = secret or names.object_name(child.workload, child.fingerprint)
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_engine(child, settings, placement, secret)],
        "securityContext": POD_SECURITY,
        "terminationGracePeriodSeconds": idle.termination_seconds(child.lifecycle),
        "topologySpreadConstraints": _spread(child.needs, labels),
        "volumes": volumes(settings),
        **_chosen(settings),
    }
    before = [fetch_container(child.needs.fetch, settings)] if child.needs.fetch is not None else []
    if child.needs.tls is not None:
        before.append(sidecar.container(child, settings, CONTAINER_SECURITY))
        spec["volumes"].append(sidecar.volume(child))
    if before:
        spec["initContainers"] = before
    if affinity := placement.affinity():
        spec["affinity"] = affinity
    if tolerations := [each.manifest() for each in (*placement.tolerations, *settings.tolerations)]:
        spec["tolerations"] = tolerations
    annotations = {names.FULL_NAME: child.workload, names.ACCELERATOR: child.needs.accelerator}
    return {"metadata": {"labels": dict(labels), "annotations": annotations}, "spec": spec}


def _chosen(settings: ClusterSettings) -> dict[str, Any]:
    """What only some installations say."""
    said: dict[str, Any] = {
        "priorityClassName": settings.priority_class,
        "runtimeClassName": settings.runtime_class,
        "nodeSelector": dict(settings.node_selector),
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {field: value for field, value in said.items() if value}


def _engine(child: ChildSpec, settings: ClusterSettings, placement: NodePlacement, secret: str) -> dict[str, Any]:
    lifecycle = child.lifecycle
    container: dict[str, Any] = {
        "name": ENGINE,
        "image": child.needs.image,
        "command": [literal(word) for word in child.argv],
        "env": _environment(),
        "envFrom": _secrets(secret, settings),
        "resources": _resources(child.needs, placement),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": _mounts(),
        # The end of the log comes with the news that the container ended: the Pod may be gone when somebody asks.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": {"exec": {"command": idle.wait_until_idle(child.port, lifecycle.metrics, child.env)}}},
    }
    if child.port and child.needs.tls is None:
        container["ports"] = [{"name": ENGINE, "containerPort": child.port, "protocol": "TCP"}]
    if child.port and lifecycle.health_path:
        probe = {
            "httpGet": {"path": lifecycle.health_path, "port": sidecar.probed_port(child), "scheme": "HTTP"},
            "periodSeconds": PROBE_SECONDS,
            "timeoutSeconds": PROBE_SECONDS,
        }
        patience = math.ceil((lifecycle.start_timeout_seconds + START_MARGIN_SECONDS) / PROBE_SECONDS)
        container["startupProbe"] = {**probe, "failureThreshold": patience}
        container["readinessProbe"] = {**probe, "failureThreshold": PROBES_MISSED}
    return container


def fetch_container(fetch: Fetch, settings: ClusterSettings) -> dict[str, Any]:
    """What brings a model into the cache, whether a Pod's engine waits for it or not."""
    return {
        "name": FETCH,
        "image": fetch.image,
        "command": [literal(word) for word in fetch.argv],
        "env": _environment(),
        "envFrom": _secrets("", settings),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": _mounts(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def literal(word: str) -> str:
    """A word of a command so that it comes out as it is: `$(NAME)` is replaced by a variable, `$$` by one dollar."""
    return word.replace("$", "$$")


def _environment() -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in _ENVIRONMENT.items()]


def _secrets(own: str, settings: ClusterSettings) -> list[dict[str, Any]]:
    found = [{"secretRef": {"name": own}}] if own else []
    if settings.token_secret:
        found.append({"secretRef": {"name": settings.token_secret}})
    return found


def _resources(needs: Needs, placement: NodePlacement) -> dict[str, Any]:
    """Cores are asked for and may be exceeded, memory may not; accelerators are whole, so both are one."""
    requests, limits = dict(placement.resources), dict(placement.resources)
    if needs.cpus:
        requests["cpu"] = f"{math.ceil(needs.cpus * 1000)}m"
    if needs.memory_bytes:
        requests["memory"] = limits["memory"] = str(needs.memory_bytes)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _mounts() -> list[dict[str, Any]]:
    places = {"models": MODELS, "scratch": SCRATCH, "temporary": "/tmp", "shared-memory": "/dev/shm"}  # noqa: S108
    return [{"name": name, "mountPath": path} for name, path in places.items()]


def volumes(settings: ClusterSettings) -> list[dict[str, Any]]:
    """The cache of models, and what ends with a Pod."""
    models: dict[str, Any] = {"emptyDir": {}}
    if settings.models.claim:
        models = {"persistentVolumeClaim": {"claimName": settings.models.claim}}
    elif settings.models.host_path:
        models = {"hostPath": {"path": settings.models.host_path, "type": "Directory"}}
    return [
        {"name": "models", **models},
        {"name": "scratch", "emptyDir": {}},
        {"name": "temporary", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # between the processes of one engine
    ]


def _spread(needs: Needs, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """Over nodes and zones as evenly as there is a choice: one that fails takes few with it."""
    keys = ["kubernetes.io/hostname"] if needs.zone else ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    return [
        {
            "maxSkew": WORKERS_SPREAD,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": dict(labels)},
        }
        for key in keys
    ]
