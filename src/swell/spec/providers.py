"""Where replicas run. To add a kind: a class of its own below, listed in KINDS and in ProviderSpec."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, StringConstraints, TypeAdapter
from pydantic_core import PydanticCustomError

from swell.spec.base import Conflict, Count, LocalPath, SpecModel, Switch, Text
from swell.spec.kinds import of_its_kind
from swell.spec.quantities import Size
from swell.spec.tenants import TenantName

MAX_PROVIDERS = 32
MAX_GPUS = 64
MAX_LISTED = 32
PROCESS, CONTAINER, KUBERNETES = "process", "container", "kubernetes"
RESERVED_NAMES = frozenset({"process", "external"})  # what the fleet calls what needs no place in the spec
CONTAINED_ENGINES = ("llama.cpp", "vllm")
DOCKER_SOCKET = "/var/run/docker.sock"

ImageReference = Annotated[
    Text,
    StringConstraints(
        max_length=500,
        pattern=r"^[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$",
    ),
]
NetworkName = Annotated[Text, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
DnsName = Annotated[Text, StringConstraints(max_length=253, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
QueueName = Annotated[Text, StringConstraints(max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
LabelKey = Annotated[
    Text,
    StringConstraints(max_length=317, pattern=r"^([a-z0-9][a-z0-9.-]*/)?[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"),
]
LabelValue = Annotated[
    str, Strict(), StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")
]
Platform = Literal["gke", "eks", "eks-auto", "aks", "generic"]
ContainerUser = Annotated[Text, StringConstraints(pattern=r"^[0-9]{1,10}:[0-9]{1,10}$")]
GpuName = Annotated[Text, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9:=/_.-]*$")]


class _Place(SpecModel):
    """What every place has."""

    name: TenantName


class ProcessSpec(_Place):
    """Child processes of the server, on its machine."""

    kind: Literal["process"] = "process"


def _engines_with_images(value: Mapping[str, str]) -> Mapping[str, str]:
    unknown = [name for name in value if name not in CONTAINED_ENGINES]
    if unknown:
        known = ", ".join(CONTAINED_ENGINES)
        raise PydanticCustomError(
            "images", "must name images by engine; engines that can have one are {known}", {"known": known}
        )
    return value


class ContainerSpec(_Place):
    """Containers of a daemon that speaks the Docker API (dockerd, podman), one a replica."""

    kind: Literal["container"] = "container"
    socket: LocalPath = Field(default=DOCKER_SOCKET, description="The daemon's Unix socket.")
    images: Annotated[Mapping[str, ImageReference], AfterValidator(_engines_with_images)] = Field(
        description="The image of each engine, such as {llama.cpp: swell-engine-llama.cpp:0.1.0}."
    )
    network: NetworkName | None = Field(
        default=None,
        description="A network that exists, for a server that is in it itself; default: a port of 127.0.0.1 each.",
    )
    model_cache: Text | None = Field(
        default=None,
        description="Volume or folder that is the server's model cache, where the daemon sees it under another name.",
    )
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = Field(default=None, description="Cores of a replica.")
    memory: Size | None = Field(default=None, description="Memory of a replica, such as 8GiB; no swap beside it.")
    gpus: Annotated[tuple[GpuName, ...], Field(max_length=MAX_GPUS)] = Field(
        default=(), description="GPUs for replicas, by index or id; each is one replica's at a time."
    )
    gpus_per_replica: Annotated[Count, Field(ge=1, le=MAX_GPUS)] | None = Field(
        default=None, description="Default: 1 where there are gpus."
    )
    user: ContainerUser | None = Field(
        default=None, description="uid:gid; default: the server's own, or 65532:65532 where that is root."
    )
    tmp: Size = Field(default=2 * 1024**3, description="The most that a replica may write, in /tmp, in memory.")
    shared_memory: Size = Field(default=1024**3, description="The most in /dev/shm.")

    @property
    def gpus_each(self) -> int:
        """GPUs of one replica."""
        return self.gpus_per_replica or min(1, len(self.gpus))

    def conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        if not self.images:
            found.append(("images", f"is empty; name the image of an engine: {', '.join(CONTAINED_ENGINES)}"))
        if self.name in RESERVED_NAMES:
            found.append(("name", f"{self.name!r} is Swell's own name for something else; choose another"))
        if self.network in ("host", "none"):
            found.append(("network", f"{self.network!r} gives a replica no network of its own; name another"))
        if len(set(self.gpus)) < len(self.gpus):
            found.append(("gpus", "names the same GPU twice; list each once"))
        if self.gpus_per_replica and self.gpus_per_replica > len(self.gpus):
            found.append(("gpus_per_replica", f"is more than there are in gpus ({len(self.gpus)})"))
        return found


class TolerationSpec(SpecModel):
    """A taint of nodes that does not keep replicas away."""

    key: LabelKey
    value: LabelValue = Field(default="", description="Default: whatever its value.")


class ClusterCacheSpec(SpecModel):
    """Where Pods keep models: a claim that all nodes can mount, or a folder of each node."""

    claim: DnsName | None = Field(default=None, description="Name of a PersistentVolumeClaim.")
    host_path: Annotated[Text, StringConstraints(pattern=r"^/[^:]*$")] | None = Field(
        default=None, description="A folder that is there on every node, writable for user 65532."
    )

    def conflicts(self) -> list[Conflict]:
        if self.claim and self.host_path:
            return [("host_path", "contradicts claim; keep one of them")]
        return [] if self.claim or self.host_path else [("", "names neither claim nor host_path; give one of them")]


class CertificateIssuerSpec(SpecModel):
    """An issuer of cert-manager with a CA of its own, such as one of kind CA or Vault."""

    kind: Literal["Issuer", "ClusterIssuer"] = Field(default="Issuer", description="An Issuer of the same namespace.")
    name: DnsName


class ReplicaTlsSpec(SpecModel):
    """TLS between gateways and replicas, in which both show short-lived certificates."""

    image: ImageReference = Field(description="Swell's gateway image, which stands in front of each engine.")
    issuer: CertificateIssuerSpec | None = Field(
        default=None, description="Default: an authority that Swell makes and keeps in a Secret of the namespace."
    )


class PrefetchSpec(SpecModel):
    """What a cluster gets ready before a replica needs it. Nothing of it is waited for."""

    models: Switch = Field(default=False, description="Jobs fetch models into the claim of model_cache.")
    images: Switch = Field(default=False, description="DaemonSets keep images on the nodes where replicas may run.")
    queue: QueueName | None = Field(default=None, description="Kueue's LocalQueue of the Jobs; default: none.")
    cpus: Annotated[float, Field(gt=0, le=4096)] = Field(default=0.5, description="Cores that a Job asks for.")
    memory: Size = Field(default=2 * 1024**3, description="Memory of a Job, such as 4GiB.")
    node_selector: Mapping[LabelKey, LabelValue] | None = Field(
        default=None, description="Labels of nodes for the Jobs; default: the place's node_selector."
    )

    def conflicts(self) -> list[Conflict]:
        if self.queue is not None and not self.models:
            return [("queue", "is for Jobs that fetch models, and there are none; write models: true")]
        return []


class KubernetesSpec(_Place):
    """Pods of a Kubernetes cluster: a Deployment for each model and pool; a LeaderWorkerSet a replica over nodes."""

    kind: Literal["kubernetes"] = "kubernetes"
    images: Annotated[Mapping[str, ImageReference], AfterValidator(_engines_with_images)] = Field(
        description="The image of each engine, such as {vllm: vllm/vllm-openai:v0.11.0}."
    )
    fetch_image: ImageReference | None = Field(
        default=None, description="An image with Swell in it, which fetches models; default: that of llama.cpp."
    )
    kubeconfig: LocalPath | None = Field(
        default=None, description="Credentials; default: the Pod's own, else KUBECONFIG, else ~/.kube/config."
    )
    context: Text | None = Field(default=None, description="Which context of them; default: the current one.")
    namespace: DnsName | None = Field(default=None, description="Default: that of the credentials.")
    platform: Platform = Field(default="generic", description="Whose labels nodes have: how accelerators are found.")
    market: Literal["spot", "on_demand"] | None = Field(default=None, description="Default: whatever there is.")
    zone: LabelValue | None = Field(default=None, description="Default: any.")
    region: LabelValue | None = Field(
        default=None, description="Where the cluster is, such as us-east1: whose prices and spot zones are meant."
    )
    cpus: Annotated[float, Field(gt=0, le=4096)] | None = Field(
        default=None, description="Cores that a replica asks for; llama.cpp runs as many threads (default: one)."
    )
    memory: Size | None = Field(default=None, description="Memory of a replica, such as 16GiB.")
    model_cache: ClusterCacheSpec | None = Field(default=None, description="Default: each Pod fetches its own.")
    prefetch: PrefetchSpec | None = Field(default=None, description="Default: nothing is there before a Pod needs it.")
    token_secret: DnsName | None = Field(
        default=None, description="A Secret whose keys are variables for fetching models, such as HF_TOKEN."
    )
    image_pull_secrets: Annotated[tuple[DnsName, ...], Field(max_length=MAX_LISTED)] = ()
    priority_class: DnsName | None = Field(default=None, description="PriorityClass of replicas.")
    runtime_class: DnsName | None = Field(default=None, description="RuntimeClass of replicas, such as nvidia.")
    node_selector: Mapping[LabelKey, LabelValue] = Field(default={}, description="Labels that nodes must have.")
    tolerations: Annotated[tuple[TolerationSpec, ...], Field(max_length=MAX_LISTED)] = ()
    tls: ReplicaTlsSpec | None = Field(default=None, description="Default: gateways reach replicas in plaintext.")
    exclusive_topology: LabelKey | None = Field(
        default=None,
        description="Label of nodes: a replica over several has nodes of one value of it, and has them alone.",
    )

    def conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        if not self.images:
            found.append(("images", f"is empty; name the image of an engine: {', '.join(CONTAINED_ENGINES)}"))
        if self.name in RESERVED_NAMES:
            found.append(("name", f"{self.name!r} is Swell's own name for something else; choose another"))
        if (
            self.prefetch is not None
            and self.prefetch.models
            and (self.model_cache is None or not self.model_cache.claim)
        ):
            reason = "needs a cache that all Pods share; give model_cache a claim, or leave models out of prefetch"
            found.append(("prefetch.models", reason))
        return found


KINDS: Mapping[str, type[SpecModel]] = {PROCESS: ProcessSpec, CONTAINER: ContainerSpec, KUBERNETES: KubernetesSpec}
AnyPlace = ProcessSpec | ContainerSpec | KubernetesSpec
ProviderSpec = Annotated[
    AnyPlace,
    Field(discriminator="kind"),
    BeforeValidator(of_its_kind(KINDS, shared=_Place, default=PROCESS)),
]
Places = tuple[AnyPlace, ...]
_PLACES: TypeAdapter[tuple[ProviderSpec, ...]] = TypeAdapter(tuple[ProviderSpec, ...])


def places_to_json(places: Sequence[AnyPlace]) -> bytes:
    """For a later server, which must find what runs in them even where its spec no longer names them."""
    return _PLACES.dump_json(tuple(places))


def places_from_json(text: bytes) -> Places:
    """What `places_to_json` wrote. Raises ValueError for anything else."""
    return _PLACES.validate_json(text)
