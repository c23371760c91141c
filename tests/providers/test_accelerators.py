"""Accelerators as each platform calls them."""

from math import prod

import pytest

from swell.adapters.providers.accelerators import NodePlacement, Platform, node_placement
from swell.errors import LaunchFailed, UserError
from swell.ports.provider import Needs
from swell.state.accelerators import ACCELERATORS, TPU_SLICES, TPU_TOPOLOGIES, asked_for
from swell.state.catalogue import prices


def _labels(placement: NodePlacement) -> dict[str, tuple[str, ...]]:
    return {each.key: each.values for each in placement.requirements}


def test_every_accelerator_with_a_price_has_a_row() -> None:
    assert {price.accelerator for price in prices()} <= ACCELERATORS.keys()


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_is_to_be_had_somewhere_and_asks_for_its_own_resource(name: str) -> None:
    row = ACCELERATORS[name]
    count = row.per_machine[0]
    found = 0
    for platform in Platform:
        try:
            placement = node_placement(Needs(accelerator=name, accelerators=count), platform)
        except LaunchFailed:
            continue
        found += 1
        assert placement.resources == {row.resource: str(count)}
        assert placement.requirements
        taint = {"key": row.resource, "operator": "Exists", "effect": "NoSchedule"}
        assert placement.tolerations[0].manifest() == taint
    assert found


def test_no_two_accelerators_are_found_on_the_same_nodes() -> None:
    for platform in Platform:
        seen: dict[tuple[str, ...], str] = {}
        for name, row in ACCELERATORS.items():
            try:
                placement = node_placement(Needs(accelerator=name, accelerators=row.per_machine[0]), platform)
            except LaunchFailed:
                continue
            for values in _combinations(placement):
                assert seen.setdefault(values, name) == name


def _combinations(placement: NodePlacement) -> list[tuple[str, ...]]:
    first, *others = placement.requirements
    return [(first.key, value, *(str(other) for other in others)) for value in first.values]


def test_gke_spot_l4() -> None:
    placement = node_placement(Needs(accelerator="L4", accelerators=1, market="spot", zone="us-east1-b"), Platform.GKE)
    assert _labels(placement) == {
        "cloud.google.com/gke-accelerator": ("nvidia-l4",),
        "cloud.google.com/gke-spot": ("true",),
        "topology.kubernetes.io/zone": ("us-east1-b",),
    }
    assert [each.manifest() for each in placement.tolerations][1] == {
        "key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"
    }  # fmt: skip


@pytest.mark.parametrize("platform", [Platform.GKE, Platform.AKS])
def test_what_must_not_be_lost_keeps_off_spot_nodes_that_have_no_taint(platform: Platform) -> None:
    spot = node_placement(Needs(market="spot"), platform).requirements
    own = node_placement(Needs(market="on_demand"), platform).requirements
    assert [(each.key, each.values) for each in own] == [(each.key, each.values) for each in spot]
    assert own[0].manifest()["operator"] == "NotIn"
    assert node_placement(Needs(market="spot"), Platform.GENERIC) == NodePlacement()


def test_gke_tpu_slices_are_asked_for_by_their_arrangement() -> None:
    placement = node_placement(Needs(accelerator="v6e", accelerators=4), Platform.GKE)
    assert placement.resources == {"google.com/tpu": "4"}
    assert _labels(placement) == {
        "cloud.google.com/gke-tpu-accelerator": ("tpu-v6e-slice",),
        "cloud.google.com/gke-tpu-topology": ("2x2",),
    }
    for name, sizes in TPU_TOPOLOGIES.items():
        assert tuple(sizes) == ACCELERATORS[name].per_machine
        for count, arrangement in sizes.items():
            product = 1
            for side in arrangement.split("x"):
                product *= int(side)
            assert product == count


def test_karpenter_tells_the_sizes_of_a_card_apart() -> None:
    small = node_placement(Needs(accelerator="A100-40GB", accelerators=8, market="on_demand"), Platform.EKS)
    large = node_placement(Needs(accelerator="A100-80GB", accelerators=8), Platform.EKS_AUTO)
    assert _labels(small)["karpenter.k8s.aws/instance-gpu-memory"] == ("40960",)
    assert _labels(small)["karpenter.sh/capacity-type"] == ("on-demand",)
    assert _labels(large)["eks.amazonaws.com/instance-gpu-memory"] == ("81920",)


def test_a_zone_is_told_by_its_id_where_prices_are() -> None:
    by_id = node_placement(Needs(zone="use1-az2"), Platform.EKS)
    assert _labels(by_id) == {"topology.k8s.aws/zone-id": ("use1-az2",)}
    assert _labels(node_placement(Needs(zone="us-east-1a"), Platform.EKS)) == {
        "topology.kubernetes.io/zone": ("us-east-1a",)
    }
    assert _labels(node_placement(Needs(zone="use1-az2"), Platform.GKE)) == {
        "topology.kubernetes.io/zone": ("use1-az2",)
    }


def test_aks_goes_by_instance_types() -> None:
    placement = node_placement(Needs(accelerator="H100", accelerators=8, market="spot"), Platform.AKS)
    assert _labels(placement) == {
        "node.kubernetes.io/instance-type": ("Standard_ND96isr_H100_v5",),
        "kubernetes.azure.com/scalesetpriority": ("spot",),
    }


def test_partitions_and_sharing() -> None:
    generic = node_placement(Needs(accelerator="H100-MIG-1g.10gb"), Platform.GENERIC)
    assert generic.resources == {"nvidia.com/mig-1g.10gb": "1"}
    gke = node_placement(Needs(accelerator="H100-MIG-1g.10gb"), Platform.GKE)
    assert gke.resources == {"nvidia.com/gpu": "1"}
    assert _labels(gke)["cloud.google.com/gke-gpu-partition-size"] == ("1g.10gb",)
    shared = node_placement(Needs(accelerator="L4-SHARED"), Platform.GENERIC)
    assert _labels(shared) == {"nvidia.com/gpu.product": ("NVIDIA-L4-SHARED",)}
    assert asked_for("H100-MIG-3g.40gb").memory_gib == 40.0
    assert [asked_for(name).kind for name in ("h100-MIG-1g.10gb", "L4-SHARED", "4xh100")] == [
        "H100-MIG-1g.10gb", "L4-SHARED", "H100",
    ]  # fmt: skip


def test_a_cpu_replica_goes_anywhere() -> None:
    placement = node_placement(Needs(cpus=2.0), Platform.GKE)
    assert placement == NodePlacement()
    assert placement.affinity() == {}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("L5", "no accelerator 'L5'"),
        ("3xv6e", "1, 4, 8 of v6e"),
        ("0xL4", "1, 2, 4, 8 of L4"),
        ("v5e-SHARED", "only NVIDIA"),
        ("2xH100-MIG-1g.10gb", "one partition"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        asked_for(name)


def test_names_are_read_in_any_case() -> None:
    assert (asked_for("4xh100").accelerator.name, asked_for("4xh100").count) == ("H100", 4)


def test_a_need_that_no_platform_meets_fails_the_start() -> None:
    with pytest.raises(LaunchFailed, match="MI300X is not to be had on gke"):
        node_placement(Needs(accelerator="MI300X", accelerators=8), Platform.GKE)
    with pytest.raises(LaunchFailed, match="no accelerator"):
        node_placement(Needs(accelerator="abacus"), Platform.GKE)


def test_a_slice_of_several_machines_is_a_node_pool_and_a_child_has_it_alone() -> None:
    placement = node_placement(Needs(accelerator="v6e", accelerators=4, nodes=4), Platform.GKE)
    assert placement.resources == {"google.com/tpu": "4"}
    assert {each.key: each.values for each in placement.requirements} == {
        "cloud.google.com/gke-tpu-accelerator": ("tpu-v6e-slice",),
        "cloud.google.com/gke-tpu-topology": ("4x4",),
    }
    assert placement.exclusive == "cloud.google.com/gke-nodepool"
    assert node_placement(Needs(accelerator="v6e", accelerators=4), Platform.GKE).exclusive == ""
    assert node_placement(Needs(accelerator="H100", accelerators=8, nodes=2), Platform.GKE).exclusive == ""


def test_every_slice_has_as_many_chips_as_its_machines() -> None:
    for name, slices in TPU_SLICES.items():
        for nodes, topology in slices.items():
            assert prod(map(int, topology.split("x"))) == 4 * nodes, (name, topology)
        assert 4 in ACCELERATORS[name].per_machine


@pytest.mark.parametrize(("count", "nodes"), [(8, 4), (4, 3)])
def test_a_slice_that_there_is_not_fails_the_start(count: int, nodes: int) -> None:
    with pytest.raises(LaunchFailed, match="machines"):
        node_placement(Needs(accelerator="v5e", accelerators=count, nodes=nodes), Platform.GKE)
