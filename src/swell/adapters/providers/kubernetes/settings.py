"""What an installation says of its cluster, checked already: the provider's own form of the spec."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from swell.adapters.providers.accelerators import Platform, Toleration

MODELS = "/models"  # where a Pod finds the cache of models
SCRATCH = "/scratch"  # the home of what an engine writes besides


@dataclass(frozen=True)
class ModelVolume:
    """Where models are kept between Pods. Neither is given: nowhere, each Pod fetches its own."""

    claim: str = ""  # name of a PersistentVolumeClaim that many nodes can mount
    host_path: str = ""  # folder of the node


@dataclass(frozen=True)
class Prefetch:
    """What is got ready before a Pod needs it. Neither: what earlier servers have made goes."""

    models: bool = False  # by Jobs, into the claim
    images: bool = False  # by DaemonSets
    queue: str = ""  # Kueue's, of the Jobs
    cpus: float = 0.5  # of a Job
    memory_bytes: int = 2 * 1024**3
    node_selector: Mapping[str, str] | None = None  # of the Jobs; None: that of all Pods


@dataclass(frozen=True)
class ClusterSettings:
    """Where and how Pods are made."""

    namespace: str
    installation: str  # tells this installation's objects from another's in the same namespace
    platform: Platform = Platform.GENERIC
    models: ModelVolume = ModelVolume()
    priority_class: str = ""
    runtime_class: str = ""
    token_secret: str = ""  # a Secret whose keys become variables, such as HF_TOKEN
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    place: str = ""  # as the spec calls it
    authority: str = ""  # whose certificates new Pods and gateways show each other; empty: none
    exclusive_topology: str = ""  # label of nodes: those of a replica over several have one value of it, and no other's
    prefetch: Prefetch | None = None
