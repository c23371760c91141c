"""What accelerators there are, and how each platform calls them: one row per accelerator, the same name everywhere.

Names are those of `swell prices`, such as `L4` or `4xH100`. `H100-MIG-1g.10gb` is a partition of one (NVIDIA's
Multi-Instance GPU), `L4-SHARED` a time-sliced one, where a cluster offers these.

Memory is what an engine finds: of GPUs what the driver reports, of TPUs what a chip has. Labels are the vendors' own:
GKE's `cloud.google.com/gke-accelerator` and `gke-tpu-accelerator`, Karpenter's `instance-gpu-name` with
`instance-gpu-memory` in MiB where a name is of two sizes, instance types of AKS, whose own label says only `nvidia`,
and what NVIDIA's GPU feature discovery and AMD's node labeller write everywhere else.
"""

import re
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType

from swell.errors import UserError

MAX_COUNT = 64


class Fp8(IntEnum):
    """Whether weights given in 16 bits can be kept in 8-bit floats, and the KV cache too."""

    NONE = 0
    WEIGHTS = 1  # kept in 8 bits and multiplied in 16: from NVIDIA's Ampere on
    ALL = 2


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One kind. Empty labels: the platform does not have it, or does not tell it from others."""

    name: str
    resource: str  # what a container asks Kubernetes for
    memory_gib: float
    fp8: Fp8  # what vLLM makes of 8-bit floats on it
    per_machine: tuple[int, ...] = (1, 2, 4, 8)  # how many a machine may have
    gke: tuple[str, ...] = ()
    eks: str = ""
    eks_memory_mib: int = 0
    aks: tuple[str, ...] = ()  # instance types
    product: tuple[str, ...] = ()  # as feature discovery writes it

    @property
    def is_tpu(self) -> bool:
        """Whether it is one of Google's."""
        return self.resource == TPU


NVIDIA, AMD, TPU = "nvidia.com/gpu", "amd.com/gpu", "google.com/tpu"
_NC_A100 = ("Standard_NC24ads_A100_v4", "Standard_NC48ads_A100_v4", "Standard_NC96ads_A100_v4")
_A100_PCIE = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-80GB-PCIe")

_ROWS = (
    Accelerator(
        "T4", NVIDIA, 14.7, Fp8.NONE, (1, 2, 4), ("nvidia-tesla-t4",), "t4",
        aks=("Standard_NC4as_T4_v3", "Standard_NC8as_T4_v3", "Standard_NC16as_T4_v3", "Standard_NC64as_T4_v3"),
        product=("Tesla-T4",),
    ),
    Accelerator("A10G", NVIDIA, 22.3, Fp8.WEIGHTS, (1, 4, 8), eks="a10g", product=("NVIDIA-A10G",)),
    Accelerator("L4", NVIDIA, 22.5, Fp8.ALL, (1, 2, 4, 8), ("nvidia-l4",), "l4", product=("NVIDIA-L4",)),
    Accelerator("L40S", NVIDIA, 45.0, Fp8.ALL, (1, 4, 8), eks="l40s", product=("NVIDIA-L40S",)),
    Accelerator(
        "A100-40GB", NVIDIA, 39.5, Fp8.WEIGHTS, (1, 2, 4, 8), ("nvidia-tesla-a100",), "a100", 40_960,
        ("Standard_ND96asr_v4",), ("NVIDIA-A100-SXM4-40GB", "NVIDIA-A100-PCIE-40GB"),
    ),
    Accelerator(
        "A100-80GB", NVIDIA, 80.0, Fp8.WEIGHTS, (1, 2, 4, 8), ("nvidia-a100-80gb",), "a100", 81_920,
        (*_NC_A100, "Standard_ND96amsr_A100_v4"), _A100_PCIE,
    ),
    Accelerator(
        "H100", NVIDIA, 79.6, Fp8.ALL, (1, 2, 4, 8), ("nvidia-h100-80gb", "nvidia-h100-mega-80gb"), "h100",
        aks=("Standard_ND96isr_H100_v5",), product=("NVIDIA-H100-80GB-HBM3", "NVIDIA-H100-PCIe"),
    ),
    Accelerator(
        "H100-NVL", NVIDIA, 93.6, Fp8.ALL, (1, 2),
        aks=("Standard_NC40ads_H100_v5", "Standard_NC80adis_H100_v5"), product=("NVIDIA-H100-NVL",),
    ),
    Accelerator(
        "H200", NVIDIA, 140.4, Fp8.ALL, (1, 2, 4, 8), ("nvidia-h200-141gb",), "h200",
        aks=("Standard_ND96isr_H200_v5",), product=("NVIDIA-H200",),
    ),
    Accelerator("B200", NVIDIA, 179.0, Fp8.ALL, (1, 2, 4, 8), ("nvidia-b200",), "b200", product=("NVIDIA-B200",)),
    Accelerator(
        "MI300X", AMD, 191.5, Fp8.ALL, (8,), aks=("Standard_ND96isr_MI300X_v5",), product=("AMD_Instinct_MI300X_OAM",)
    ),
    Accelerator("v5e", TPU, 16.0, Fp8.NONE, (1, 4, 8), ("tpu-v5-lite-podslice",)),
    Accelerator("v5p", TPU, 95.0, Fp8.NONE, (4,), ("tpu-v5p-slice",)),
    Accelerator("v6e", TPU, 32.0, Fp8.NONE, (1, 4, 8), ("tpu-v6e-slice",)),
)  # fmt: skip
ACCELERATORS = MappingProxyType({row.name: row for row in _ROWS})
# The arrangement of a slice that one machine holds. GKE schedules a TPU by it.
TPU_TOPOLOGIES = MappingProxyType(
    {
        "v5e": MappingProxyType({1: "1x1", 4: "2x2", 8: "2x4"}),
        "v5p": MappingProxyType({4: "2x2x1"}),
        "v6e": MappingProxyType({1: "1x1", 4: "2x2", 8: "2x4"}),
    }
)
# Those that several machines of four chips hold together: how many machines, by arrangement. GKE makes a node pool of
# such a slice, and a replica is alone in it.
TPU_SLICES = MappingProxyType(
    {
        "v5e": MappingProxyType({4: "4x4", 8: "4x8", 16: "8x8", 32: "8x16", 64: "16x16"}),
        "v5p": MappingProxyType({2: "2x2x2", 4: "2x2x4", 8: "2x4x4", 16: "4x4x4", 32: "4x4x8", 64: "4x8x8"}),
        "v6e": MappingProxyType({4: "4x4", 8: "4x8", 16: "8x8", 32: "8x16", 64: "16x16"}),
    }
)
CHIPS_OF_A_SLICED_MACHINE = 4

_COUNTED = re.compile(r"(?:(\d{1,3})x)?(.+)")
_PARTITION = re.compile(r"(.+?)-(?:MIG-(\dg\.\d{1,3}gb)|(SHARED))")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a name such as `4xH100` or `H100-MIG-1g.10gb` asks for."""

    accelerator: Accelerator
    count: int
    mig: str = ""  # a profile, such as `1g.10gb`
    is_shared: bool = False  # time-sliced

    @property
    def kind(self) -> str:
        """One of them, as it is asked for: `4xh100` asks for `H100`."""
        partition = f"-MIG-{self.mig}" if self.mig else "-SHARED" if self.is_shared else ""
        return f"{self.accelerator.name}{partition}"

    @property
    def memory_gib(self) -> float:
        """What one of them holds. A profile's own name says it; sharers of a time-sliced one see all of it."""
        return float(self.mig.partition(".")[2].removesuffix("gb")) if self.mig else self.accelerator.memory_gib


def slice_problem(asked: Asked, nodes: int) -> str:
    """Why there is no slice of so many machines; empty where there is one, and of anything but a TPU."""
    row = asked.accelerator
    if nodes == 1 or not row.is_tpu:
        return ""
    if asked.count != CHIPS_OF_A_SLICED_MACHINE:
        count = CHIPS_OF_A_SLICED_MACHINE
        return f"machines of a slice have {count} chips each; write {count}x{row.name}"
    if nodes not in TPU_SLICES[row.name]:
        sizes = ", ".join(str(size) for size in TPU_SLICES[row.name])
        return f"slices of {row.name} have {sizes} machines; give one of these for nodes"
    return ""


def asked_for(name: str) -> Asked:
    """Read a name. Raises UserError for one that is not known, or a count that no machine has."""
    counted = _COUNTED.fullmatch(name.strip())
    count, rest = (int(counted[1] or 1), counted[2]) if counted else (1, name)
    partition = _PARTITION.fullmatch(rest)
    base = partition[1] if partition else rest
    row = next((row for row in _ROWS if row.name.lower() == base.lower()), None)
    if row is None:
        raise UserError(f"there is no accelerator {base!r}; known are: {', '.join(ACCELERATORS)}")
    if partition and row.resource != NVIDIA:
        raise UserError(f"{name!r}: only NVIDIA's accelerators are partitioned or shared; write {base!r}")
    if partition and count > 1:
        raise UserError(f"{name!r}: a replica takes one partition; write {rest!r}")
    if not 1 <= count <= MAX_COUNT or (row.is_tpu and count not in row.per_machine):
        sizes = ", ".join(str(size) for size in row.per_machine)
        example = f"{row.per_machine[-1]}x{row.name}"
        raise UserError(f"{name!r}: a machine has {sizes} of {row.name}; write for instance {example}")
    return Asked(row, count, (partition[2] or "") if partition else "", bool(partition and partition[3]))
