"""What is applied ahead of replicas: a Job for each model that is fetched, a DaemonSet for each image that is kept.

Pure. A Job's name is a digest of all that it does, since its template cannot change: who asks for the same again finds
it there, and another command, image or volume is another Job. A DaemonSet is known by its image; where it shall be may
change. Its container is the image itself, asleep: what is used, a kubelet does not take away when a disk fills.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swell.adapters.providers.accelerators import NodePlacement, Toleration, node_placement
from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.api import Kind
from swell.adapters.providers.kubernetes.idle import PYTHON
from swell.adapters.providers.kubernetes.pods import CONTAINER_SECURITY, POD_SECURITY, fetch_container, volumes
from swell.adapters.providers.kubernetes.settings import ClusterSettings, Prefetch
from swell.errors import LaunchFailed
from swell.ports.provider import Expected, Fetch

MODEL, IMAGE = "model", "image"
BACKOFF_LIMIT = 4  # Pods that may fail; 10 s, 20 s, … lie between them, as Kubernetes has it
ACTIVE_SECONDS = 24 * 3600  # of a Job from when it may run: a terabyte by a tenth of a gigabit
KEPT_SECONDS = 7 * 24 * 3600  # of a Job that has ended, for who looks
JOB_GRACE_SECONDS = 5  # what was downloaded stays, and is continued
ASLEEP = "asleep"  # name of the container
ASLEEP_CPU, ASLEEP_MEMORY = "1m", "32Mi"
ASLEEP_GRACE_SECONDS = 1
# Isolated and without the engine's packages; as process 1 it would not even hear of SIGTERM without waiting for it.
ASLEEP_SCRIPT = (
    "import signal; wanted = {signal.SIGTERM, signal.SIGINT}; "
    "signal.pthread_sigmask(signal.SIG_BLOCK, wanted); signal.sigwait(wanted)"
)
# Images of CUDA ask for every GPU by a variable, which some nodes' runtime grants whoever asks: this one wants none.
NO_GPU = {"NVIDIA_VISIBLE_DEVICES": "void"}


@dataclass(frozen=True)
class Wanted:
    """An object that shall be there. `digest` is that of its manifest, as also the object says."""

    kind: Kind
    name: str
    digest: str
    what: str  # it prepares
    subject: str
    models: tuple[str, ...]
    manifest: Mapping[str, Any]


def wanted(expected: Sequence[Expected], settings: ClusterSettings) -> dict[str, Wanted]:
    """What shall be there for these children, by name, in the order in which it is to be made."""
    prefetch = settings.prefetch
    if prefetch is None:
        return {}
    found: dict[str, Wanted] = {}
    if prefetch.models:
        for fetch, models in _by_fetch(expected).items():
            each = _wanted(Kind.JOBS, MODEL, "", models, _job(fetch, settings, prefetch))
            found[each.name] = each
    if prefetch.images:
        for image, (models, placements) in _by_image(expected, settings).items():
            each = _wanted(Kind.DAEMON_SETS, IMAGE, image, models, _daemon_set(image, placements, settings))
            found[each.name] = each
    return found


def _by_fetch(expected: Iterable[Expected]) -> dict[Fetch, list[str]]:
    found: dict[Fetch, list[str]] = {}
    for each in expected:
        if each.needs.fetch_ahead is not None:
            found.setdefault(each.needs.fetch_ahead, []).append(each.model)
    return found


def _by_image(
    expected: Iterable[Expected], settings: ClusterSettings
) -> dict[str, tuple[list[str], list[NodePlacement]]]:
    """Each image, with the models that it is for and where those may go."""
    found: dict[str, tuple[list[str], list[NodePlacement]]] = {}
    for each in expected:
        needs = each.needs
        images = [needs.image, needs.fetch.image if needs.fetch else "", needs.tls.image if needs.tls else ""]
        try:
            placement = node_placement(each.needs, settings.platform)
        except LaunchFailed:
            continue  # no replica can be started there either, and that is told
        for image in filter(None, dict.fromkeys(images)):
            models, placements = found.setdefault(image, ([], []))
            models.append(each.model)
            if placement not in placements:
                placements.append(placement)
    return found


def _wanted(kind: Kind, what: str, subject: str, models: list[str], manifest: dict[str, Any]) -> Wanted:
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    labels = manifest["metadata"]["labels"]
    # Places and installations of one namespace have objects of their own, and so has each image.
    name = names.prefetch_name(what, digest if kind is Kind.JOBS else f"{sorted(labels.items())} {subject}")
    template = manifest["spec"]["template"]
    marked = {**template, "metadata": {"labels": {**template["metadata"]["labels"], names.PREPARES: name}}}
    spec = {**manifest["spec"], "template": marked}
    if kind is Kind.DAEMON_SETS:
        spec["selector"] = {"matchLabels": {**labels, names.PREPARES: name}}
    metadata = {**manifest["metadata"], "name": name, "annotations": {names.DIGEST: digest}}
    whole = {**manifest, "metadata": metadata, "spec": spec}
    return Wanted(kind, name, digest, what, subject or name, tuple(dict.fromkeys(models)), whole)


def _job(fetch: Fetch, settings: ClusterSettings, prefetch: Prefetch) -> dict[str, Any]:
    """Without its name."""
    labels = names.prefetch_labels(settings.installation, settings.place)
    memory = str(prefetch.memory_bytes)
    requests = {"cpu": f"{math.ceil(prefetch.cpus * 1000)}m", "memory": memory}
    container = {**fetch_container(fetch, settings), "resources": {"requests": requests, "limits": {"memory": memory}}}
    selector = settings.node_selector if prefetch.node_selector is None else prefetch.node_selector
    pod: dict[str, Any] = {
        **_common(settings, selector, settings.tolerations),
        "restartPolicy": "Never",  # failed Pods stay, and say why
        "terminationGracePeriodSeconds": JOB_GRACE_SECONDS,
        "containers": [container],
        "volumes": volumes(settings),
    }
    spec: dict[str, Any] = {
        "backoffLimit": BACKOFF_LIMIT,
        "activeDeadlineSeconds": ACTIVE_SECONDS,
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        # A Pod whose node was taken has not failed: the next one goes on where it was.
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    if prefetch.queue:
        spec["suspend"] = True  # until Kueue admits it, also where its webhook is not asked
    queue = {names.QUEUE: prefetch.queue} if prefetch.queue else {}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"labels": {**labels, **queue}}, "spec": spec}


def _daemon_set(image: str, placements: Sequence[NodePlacement], settings: ClusterSettings) -> dict[str, Any]:
    """Without its name and selector."""
    labels = names.prefetch_labels(settings.installation, settings.place)
    container = {
        "name": ASLEEP,
        "image": image,
        "command": [PYTHON, "-I", "-S", "-c", ASLEEP_SCRIPT],
        "env": [{"name": name, "value": value} for name, value in NO_GPU.items()],
        "resources": {
            "requests": {"cpu": ASLEEP_CPU, "memory": ASLEEP_MEMORY},
            "limits": {"memory": ASLEEP_MEMORY},
        },
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    borne = dict.fromkeys(each for placement in placements for each in placement.tolerations)
    pod: dict[str, Any] = {
        **_common(settings, settings.node_selector, [*borne, *settings.tolerations]),
        "terminationGracePeriodSeconds": ASLEEP_GRACE_SECONDS,
        "containers": [container],
    }
    # Terms are alternatives. One that asks for nothing means every node, and cannot be written as a term.
    if placements and all(placement.requirements for placement in placements):
        terms = dict.fromkeys(placement.requirements for placement in placements)
        nodes = [{"matchExpressions": [each.manifest() for each in term]} for term in terms]
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": nodes}}
        pod["affinity"] = {"nodeAffinity": required}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"labels": labels},
        "spec": {
            # Nobody is served by these Pods: where they shall be elsewhere they may all go at once.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _common(
    settings: ClusterSettings, node_selector: Mapping[str, str], tolerations: Sequence[Toleration]
) -> dict[str, Any]:
    """What both kinds of Pods have. Neither has the replicas' priority or runtime: they have time, and need no GPU."""
    said: dict[str, Any] = {
        "nodeSelector": dict(node_selector),
        "tolerations": [each.manifest() for each in dict.fromkeys(tolerations)],
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        **{field: value for field, value in said.items() if value},
    }
