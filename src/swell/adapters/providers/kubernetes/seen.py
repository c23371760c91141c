"""What is kept of Pods, Deployments and nodes: small values, made once per change. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swell.adapters.providers.kubernetes import names, objects
from swell.adapters.providers.kubernetes.manifests import Scale
from swell.adapters.providers.kubernetes.pods import ENGINE
from swell.adapters.providers.kubernetes.sidecar import SIDECAR
from swell.adapters.providers.kubernetes.worker_set_manifests import AWAIT
from swell.state.replica_runs import RunMarket

SIGNAL_BASE = 128  # a shell's and a runtime's way to say that a signal ended a process
MAX_SIGNAL = 64
MAX_WAITING_CHARACTERS = 300
ZONE_LABEL = "topology.kubernetes.io/zone"

# A node with one of these goes away soon; each is said by who takes it.
ENDING_TAINTS = frozenset(
    {
        "cloud.google.com/impending-node-termination",
        "aws-node-termination-handler/spot-itn",
        "aws-node-termination-handler/asg-lifecycle-termination",
        "aws-node-termination-handler/scheduled-maintenance",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "ToBeDeletedByClusterAutoscaler",
        "node.kubernetes.io/out-of-service",
    }
)
SPOT_LABELS = {
    "cloud.google.com/gke-spot": "true",
    "karpenter.sh/capacity-type": "spot",
    "eks.amazonaws.com/capacityType": "SPOT",
    "kubernetes.azure.com/scalesetpriority": "spot",
}

CLOUD_LABELS = (
    "cloud.google.com/gke-nodepool",
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "eks.amazonaws.com/capacityType",
    "kubernetes.azure.com/cluster",
)


@dataclass(frozen=True, slots=True)
class PodSeen:
    """One Pod. `run` counts starts of its container; what is said of an end is of the last one."""

    name: str
    uid: str
    group: str  # of its workload and fingerprint
    node: str
    address: str
    born: str
    is_active: bool  # its ReplicaSet counts it: it has not failed and is not ending
    is_ending: bool
    is_over: bool  # the kubelet has given it up, though it is still listed
    is_running: bool
    is_ready: bool
    is_disrupted: bool  # its end was not its own fault, and Kubernetes says so
    run: int
    ended_run: int | None  # the run that ended last
    exit_code: int | None
    last_words: str
    child_id: str  # whose it is said to be
    child_run: int
    cost: int
    accelerator: str  # as Swell names it
    waiting: str
    set_name: str = ""  # its LeaderWorkerSet, where it is a node of several
    index: int = 0  # which of its nodes: 0 leads
    set_size: int = 0  # how many there are; 0 where nobody says
    workload: str = ""  # of a LeaderWorkerSet's Pod
    preparing_code: int | None = None  # what runs before the engine has failed, with this exit code
    preparing_words: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSetSeen:
    """One LeaderWorkerSet."""

    name: str
    uid: str
    workload: str
    child_id: str
    size: int  # nodes
    is_ending: bool


@dataclass(frozen=True, slots=True)
class DeploymentSeen:
    """One Deployment."""

    name: str
    uid: str
    group: str
    workload: str
    generation: int
    scale: Scale
    problem: str  # why its ReplicaSet cannot make Pods
    authority: str  # whose certificates its Pods show; empty: they take plaintext


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """One machine."""

    name: str
    is_ready: bool
    is_ending: bool
    market: RunMarket
    zone: str


def see_pod(pod: objects.Read) -> PodSeen:
    """What matters of a Pod."""
    assert isinstance(pod, objects.Pod)  # noqa: S101  it was decoded as one
    meta, status = pod.metadata, pod.status
    engine = next((each for each in status.containerStatuses if each.name == ENGINE), None)
    is_over = status.phase in ("Failed", "Succeeded")
    is_ending = meta.deletionTimestamp is not None
    run = engine.restartCount if engine is not None else 0
    ended_run, end = _end_of(engine)
    words = end.message.strip() if end is not None else ""
    return PodSeen(
        name=meta.name,
        uid=meta.uid,
        group=names.group_key(meta.labels),
        node=pod.spec.nodeName,
        address=status.podIP,
        born=meta.creationTimestamp or "",
        is_active=not is_over and not is_ending,
        is_ending=is_ending,
        is_over=is_over,
        is_running=engine is not None and engine.state.running is not None,
        is_ready=_holds(status.conditions, "Ready"),
        is_disrupted=_holds(status.conditions, "DisruptionTarget"),
        run=run,
        ended_run=ended_run,
        exit_code=_exit_code(end.exitCode) if end is not None else None,
        last_words=words or (f"{status.reason}: {status.message}" if is_over and status.reason else ""),
        child_id=meta.annotations.get(names.CHILD, ""),
        child_run=_number(meta.annotations.get(names.RUN, "")),
        cost=_number(meta.annotations.get(names.DELETION_COST, "")),
        accelerator=meta.annotations.get(names.ACCELERATOR, ""),
        waiting=waiting_for(pod, engine)[:MAX_WAITING_CHARACTERS],
        **_place_in_set(meta),
        **_prepared(status),
    )


def _place_in_set(meta: objects.Meta) -> dict[str, Any]:
    """All that has to be known of a LeaderWorkerSet where only its Pods can be read."""
    if not meta.labels.get(names.SET_NAME):
        return {}
    return {
        "set_name": meta.labels[names.SET_NAME],
        "index": _number(meta.labels.get(names.SET_INDEX, "")),
        "set_size": _number(meta.annotations.get(names.SET_SIZE, "")),
        "workload": full_name(meta),
    }


def full_name(meta: objects.Meta) -> str:
    """The workload that an object is of."""
    return meta.annotations.get(names.FULL_NAME, meta.labels.get(names.WORKLOAD, ""))


def see_deployment(item: objects.Read) -> DeploymentSeen:
    """What matters of a Deployment."""
    assert isinstance(item, objects.Deployment)  # noqa: S101  it was decoded as one
    meta = item.metadata
    failed = next((each for each in item.status.conditions if each.type == "ReplicaFailure"), None)
    return DeploymentSeen(
        name=meta.name,
        uid=meta.uid,
        group=names.group_key(meta.labels),
        workload=full_name(meta),
        generation=meta.generation,
        scale=Scale.read(item.spec.replicas, meta.annotations.get(names.CHILDREN, "")),
        problem=failed.message if failed is not None and failed.status == "True" else "",
        authority=meta.annotations.get(names.AUTHORITY, ""),
    )


def see_worker_set(item: objects.Read) -> WorkerSetSeen:
    """What matters of a LeaderWorkerSet: its Pods tell the rest."""
    assert isinstance(item, objects.LeaderWorkerSet)  # noqa: S101  it was decoded as one
    meta = item.metadata
    return WorkerSetSeen(
        name=meta.name,
        uid=meta.uid,
        workload=full_name(meta),
        child_id=meta.annotations.get(names.CHILD, ""),
        size=item.spec.leaderWorkerTemplate.size,
        is_ending=meta.deletionTimestamp is not None,
    )


def see_node(node: objects.Read) -> NodeSeen:
    """What matters of a machine."""
    assert isinstance(node, objects.Node)  # noqa: S101  it was decoded as one
    labels = node.metadata.labels
    return NodeSeen(
        name=node.metadata.name,
        is_ready=_holds(node.status.conditions, "Ready"),
        is_ending=any(taint.key in ENDING_TAINTS for taint in node.spec.taints),
        market=_market(labels),
        zone=labels.get(ZONE_LABEL, ""),
    )


def _market(labels: Mapping[str, str]) -> RunMarket:
    """Whether a machine is bought on spot; one of no cloud is somebody's own."""
    if any(labels.get(key) == value for key, value in SPOT_LABELS.items()):
        return "spot"
    return "on_demand" if any(key in labels for key in CLOUD_LABELS) else "own"


def _end_of(engine: objects.ContainerStatus | None) -> tuple[int | None, objects.Terminated | None]:
    """Which run of the container ended last, and how."""
    if engine is None:
        return None, None
    if engine.state.terminated is not None:
        return engine.restartCount, engine.state.terminated
    if engine.lastState.terminated is None:
        return None, None
    # One that waits to be started again has not been counted as such yet.
    before = engine.restartCount - 1 if engine.state.running is not None else engine.restartCount
    return max(0, before), engine.lastState.terminated


def _prepared(status: objects.PodStatus) -> dict[str, Any]:
    """How what runs before the engine has failed, if it has: it may be running again by now."""
    for each in status.initContainerStatuses:
        end = each.state.terminated or each.lastState.terminated
        if end is not None and end.exitCode:
            return {"preparing_code": _exit_code(end.exitCode), "preparing_words": end.message.strip() or each.name}
    return {}


def _exit_code(code: int) -> int:
    """Negative for a signal, as a parent is told it."""
    return SIGNAL_BASE - code if SIGNAL_BASE < code <= SIGNAL_BASE + MAX_SIGNAL else code


def waiting_for(pod: objects.Pod, engine: objects.ContainerStatus | None) -> str:
    """What a Pod waits for before its engine runs; empty where it runs."""
    if engine is not None and engine.state.running is not None:
        return ""
    unscheduled = next((each for each in pod.status.conditions if each.type == "PodScheduled"), None)
    if not pod.spec.nodeName:
        told = unscheduled.message if unscheduled is not None else ""
        return f"a machine: {told}" if told else "a machine"
    for status in (*pod.status.initContainerStatuses, *((engine,) if engine is not None else ())):
        if status.state.waiting is not None and status.state.waiting.reason not in ("", "PodInitializing"):
            reason, message = status.state.waiting.reason, status.state.waiting.message
            return f"{reason}: {message}" if message else reason
        if status is not engine and status.name != SIDECAR and status.state.terminated is None:
            return "Pods of its other nodes" if status.name == AWAIT else "its model to be fetched"
    return "its container to be made"


def _holds(conditions: list[objects.Condition], kind: str) -> bool:
    return any(each.type == kind and each.status == "True" for each in conditions)


def _number(text: str) -> int:
    """A number that was written here; 0 for what somebody else wrote."""
    try:
        return int(text)
    except ValueError:
        return 0
