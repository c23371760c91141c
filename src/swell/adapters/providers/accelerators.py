"""Where Kubernetes shall put a child: from what it needs to resources, labels of nodes and taints that it bears."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from swell.errors import LaunchFailed, UserError
from swell.ports.provider import Needs
from swell.state.accelerators import AMD, NVIDIA, TPU_SLICES, TPU_TOPOLOGIES, Asked, asked_for, slice_problem
from swell.state.replica_runs import RunMarket

SPOT, ON_DEMAND = "spot", "on_demand"
ZONE_LABEL = "topology.kubernetes.io/zone"
ZONE_ID_LABEL = "topology.k8s.aws/zone-id"
NODE_POOL_LABEL = "cloud.google.com/gke-nodepool"  # of GKE; a slice of several machines is a node pool
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"


class Platform(StrEnum):
    """Who runs the cluster: each labels its nodes in its own way."""

    GKE = "gke"
    EKS = "eks"  # nodes from Karpenter
    EKS_AUTO = "eks-auto"
    AKS = "aks"
    GENERIC = "generic"  # NVIDIA's GPU feature discovery, or AMD's node labeller


_SPOT_LABELS = {
    Platform.GKE: ("cloud.google.com/gke-spot", "true"),
    Platform.AKS: ("kubernetes.azure.com/scalesetpriority", "spot"),
}


_ZONE_ID = re.compile(r"[a-z0-9]+-az\d+")


@dataclass(frozen=True)
class Requirement:
    """A node's label `key` must have one of `values`; or none, as also where there is no such label."""

    key: str
    values: tuple[str, ...]
    is_negated: bool = False

    def manifest(self) -> dict[str, object]:
        """As a node affinity's `matchExpressions` have it."""
        return {"key": self.key, "operator": "NotIn" if self.is_negated else "In", "values": list(self.values)}


@dataclass(frozen=True)
class Toleration:
    """A taint that keeps others away and not this child."""

    key: str
    value: str = ""  # empty: whatever its value

    def manifest(self) -> dict[str, str]:
        """As a Pod's `tolerations` have it."""
        how = {"operator": "Equal", "value": self.value} if self.value else {"operator": "Exists"}
        return {"key": self.key, **how, "effect": "NoSchedule"}


@dataclass(frozen=True)
class NodePlacement:
    """All of it. `resources` are limits, which for extended resources are requests too."""

    resources: dict[str, str] = field(default_factory=dict)
    requirements: tuple[Requirement, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    exclusive: str = ""  # label of nodes: all of a child over several must have one value of it, and no other child's

    def affinity(self) -> dict[str, object]:
        """A Pod's `affinity`; empty where any node will do."""
        if not self.requirements:
            return {}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [each.manifest() for each in self.requirements]}]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def node_placement(needs: Needs, platform: Platform) -> NodePlacement:
    """Where a child with these needs may go. Raises LaunchFailed for what the platform does not have."""
    requirements, tolerations = _market(needs.market, platform)
    if needs.zone:
        requirements = (*requirements, Requirement(_zone_label(needs.zone, platform), (needs.zone,)))
    if not needs.accelerator:
        return NodePlacement({}, requirements, tolerations)
    name = f"{needs.accelerators}x{needs.accelerator}" if needs.accelerators > 1 else needs.accelerator
    try:
        asked = asked_for(name)
    except UserError as error:
        raise LaunchFailed(str(error)) from error
    if problem := slice_problem(asked, needs.nodes):
        raise LaunchFailed(problem)
    resource, where = _accelerator(asked, platform, needs.nodes)
    return NodePlacement(
        {resource: str(asked.count)},
        (*where, *requirements),
        (Toleration(asked.accelerator.resource), *tolerations),
        NODE_POOL_LABEL if asked.accelerator.is_tpu and needs.nodes > 1 else "",
    )


def _zone_label(zone: str, platform: Platform) -> str:
    """AWS's prices go by ids of zones, such as `use1-az2`: names such as `us-east-1a` differ by account."""
    is_id = platform in (Platform.EKS, Platform.EKS_AUTO) and _ZONE_ID.fullmatch(zone)
    return ZONE_ID_LABEL if is_id else ZONE_LABEL


def _market(market: RunMarket | None, platform: Platform) -> tuple[tuple[Requirement, ...], tuple[Toleration, ...]]:
    """Spot nodes are known by a label, and may keep others away by a taint of the same name. Not all do."""
    if market is None or market not in (SPOT, ON_DEMAND):
        return (), ()
    if platform in (Platform.EKS, Platform.EKS_AUTO):
        return (Requirement("karpenter.sh/capacity-type", (market.replace("_", "-"),)),), ()
    if platform not in _SPOT_LABELS:
        return (), ()
    key, value = _SPOT_LABELS[platform]
    if market == ON_DEMAND:
        return (Requirement(key, (value,), is_negated=True),), ()
    return (Requirement(key, (value,)),), (Toleration(key, value),)


def _accelerator(asked: Asked, platform: Platform, nodes: int) -> tuple[str, tuple[Requirement, ...]]:
    """The resource to ask for, and the nodes that have the right one."""
    row = asked.accelerator
    match platform:
        case Platform.GKE:
            return _gke(asked, nodes)
        case Platform.EKS | Platform.EKS_AUTO if row.eks:
            group = "karpenter.k8s.aws" if platform is Platform.EKS else "eks.amazonaws.com"
            where = [Requirement(f"{group}/instance-gpu-name", (row.eks,))]
            if row.eks_memory_mib:
                where.append(Requirement(f"{group}/instance-gpu-memory", (str(row.eks_memory_mib),)))
            return _resource(asked), tuple(where)
        case Platform.AKS if row.aks:
            return _resource(asked), (Requirement(INSTANCE_TYPE_LABEL, row.aks),)
        case Platform.GENERIC if row.product:
            key = "nvidia.com/gpu.product" if row.resource == NVIDIA else "amd.com/gpu.product-name"
            return _resource(asked), (Requirement(key, _products(asked)),)
    raise LaunchFailed(f"{row.name} is not to be had on {platform}; choose another accelerator or provider")


def _products(asked: Asked) -> tuple[str, ...]:
    """Feature discovery writes partitions and sharing behind the product's name."""
    products = asked.accelerator.product
    if asked.is_shared:
        return tuple(f"{product}-SHARED" for product in products)
    return products  # with the mixed strategy of MIG a node keeps its product's name


def _resource(asked: Asked) -> str:
    """MIG's mixed strategy has a resource of its own for every profile."""
    return f"nvidia.com/mig-{asked.mig}" if asked.mig else asked.accelerator.resource


def _gke(asked: Asked, nodes: int) -> tuple[str, tuple[Requirement, ...]]:
    """GKE tells partitions and sharing by labels, and TPU slices by the arrangement of the whole."""
    row = asked.accelerator
    if not row.gke or row.resource == AMD:
        raise LaunchFailed(f"{row.name} is not to be had on {Platform.GKE}; choose another accelerator or provider")
    if row.is_tpu:
        topology = TPU_SLICES[row.name][nodes] if nodes > 1 else TPU_TOPOLOGIES[row.name][asked.count]
        return row.resource, (
            Requirement("cloud.google.com/gke-tpu-accelerator", row.gke),
            Requirement("cloud.google.com/gke-tpu-topology", (topology,)),
        )
    where = [Requirement("cloud.google.com/gke-accelerator", row.gke)]
    if asked.mig:
        where.append(Requirement("cloud.google.com/gke-gpu-partition-size", (asked.mig,)))
    if asked.is_shared:
        where.append(Requirement("cloud.google.com/gke-gpu-sharing-strategy", ("time-sharing",)))
    return row.resource, tuple(where)
