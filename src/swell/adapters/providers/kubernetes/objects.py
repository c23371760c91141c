"""What is read of a cluster's objects: the few fields that matter here, named as Kubernetes names them.

Decoded straight from the wire: ten thousand Pods pass through this, and most of what an API server says of a Pod is
of no use to Swell.
"""

# ruff: noqa: N815  the API's own names

import msgspec


class Meta(msgspec.Struct):
    """An object's metadata."""

    name: str = ""
    uid: str = ""
    resourceVersion: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creationTimestamp: str | None = None
    deletionTimestamp: str | None = None


class Condition(msgspec.Struct):
    """One of an object's conditions."""

    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class Waiting(msgspec.Struct):
    """A container that does not run yet."""

    reason: str = ""
    message: str = ""


class Terminated(msgspec.Struct):
    """How a container ended."""

    exitCode: int = 0
    reason: str = ""
    message: str = ""  # the end of its log, where it failed


class ContainerState(msgspec.Struct):
    """At most one of these is set."""

    waiting: Waiting | None = None
    running: dict[str, object] | None = None
    terminated: Terminated | None = None


class ContainerStatus(msgspec.Struct):
    """How a container fares."""

    name: str
    ready: bool = False
    restartCount: int = 0
    state: ContainerState = msgspec.field(default_factory=ContainerState)
    lastState: ContainerState = msgspec.field(default_factory=ContainerState)


class PodStatus(msgspec.Struct):
    """How a Pod fares."""

    phase: str = ""
    podIP: str = ""
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    initContainerStatuses: list[ContainerStatus] = []
    containerStatuses: list[ContainerStatus] = []


class PodSpec(msgspec.Struct):
    """Where a Pod is."""

    nodeName: str = ""


class Pod(msgspec.Struct):
    """One replica's Pod."""

    metadata: Meta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class DeploymentSpec(msgspec.Struct):
    """How many Pods are asked for."""

    replicas: int = 1


class DeploymentStatus(msgspec.Struct):
    """How many there are."""

    observedGeneration: int = 0
    replicas: int = 0
    conditions: list[Condition] = []


class Deployment(msgspec.Struct):
    """The Pods of a workload and fingerprint."""

    metadata: Meta
    spec: DeploymentSpec = msgspec.field(default_factory=DeploymentSpec)
    status: DeploymentStatus = msgspec.field(default_factory=DeploymentStatus)


class GroupTemplate(msgspec.Struct):
    """What each group of a LeaderWorkerSet is made of."""

    size: int = 1


class LeaderWorkerSetSpec(msgspec.Struct):
    """How many Pods a group has."""

    leaderWorkerTemplate: GroupTemplate = msgspec.field(default_factory=GroupTemplate)


class LeaderWorkerSet(msgspec.Struct):
    """One replica over several nodes. Its Pods tell how it fares."""

    metadata: Meta
    spec: LeaderWorkerSetSpec = msgspec.field(default_factory=LeaderWorkerSetSpec)


class JobSpec(msgspec.Struct):
    """Whether it may run."""

    suspend: bool = False


class JobCondition(Condition):
    """One of a Job's conditions, and since when it is so."""

    lastTransitionTime: str | None = None


class JobStatus(msgspec.Struct):
    """How its Pods fare."""

    active: int = 0
    failed: int = 0
    conditions: list[JobCondition] = []


class Job(msgspec.Struct):
    """What fetches a model ahead."""

    metadata: Meta
    spec: JobSpec = msgspec.field(default_factory=JobSpec)
    status: JobStatus = msgspec.field(default_factory=JobStatus)


class DaemonSetStatus(msgspec.Struct):
    """On how many nodes it is and should be."""

    observedGeneration: int = 0
    desiredNumberScheduled: int = 0
    numberReady: int = 0


class DaemonSet(msgspec.Struct):
    """What keeps an image on nodes."""

    metadata: Meta
    status: DaemonSetStatus = msgspec.field(default_factory=DaemonSetStatus)


class Taint(msgspec.Struct):
    """What keeps Pods off a node."""

    key: str
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct):
    """What is declared of a node."""

    taints: list[Taint] = []


class NodeStatus(msgspec.Struct):
    """How a node fares."""

    conditions: list[Condition] = []


class Node(msgspec.Struct):
    """A machine."""

    metadata: Meta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class Plain(msgspec.Struct):
    """An object of which nothing but its metadata is read."""

    metadata: Meta


class Secret(msgspec.Struct):
    """One for TLS, whose content is read, in base64. Of others nothing but the metadata is of interest."""

    metadata: Meta
    data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.metadata.name!r}, {sorted(self.data)})"


class Resource(msgspec.Struct):
    """One of Swell's own: its spec as it was written, since an amount of money must not become a binary fraction."""

    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: dict[str, object] = {}


Read = Pod | Deployment | LeaderWorkerSet | Node | Job | DaemonSet | Plain | Secret | Resource
