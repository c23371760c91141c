"""Karpenter's NodePools fit the Pods: what a Pod requires of a node, its pool buys, and its taint the Pod bears."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.adapters.providers.accelerators import ZONE_LABEL, Platform, node_placement
from swell.adapters.providers.node_pools import PodsWanted, karpenter_pools
from swell.errors import LaunchFailed
from swell.ports.provider import Needs

KARPENTERS = (Platform.EKS, Platform.EKS_AUTO)
_needs = st.builds(
    Needs,
    image=st.just("engine:1"),
    accelerator=st.sampled_from(["T4", "L4", "A10G", "L40S", "H100"]),
    accelerators=st.sampled_from([1, 4, 8]),
    market=st.sampled_from([None, "spot", "on_demand"]),
    zone=st.sampled_from(["", "us-east-1a", "use1-az2"]),
)


@given(st.lists(st.builds(PodsWanted, _needs, st.integers(1, 20)), min_size=1, max_size=6), st.sampled_from(KARPENTERS))
def test_every_pod_has_a_pool_that_buys_what_it_requires(wanted: list[PodsWanted], platform: Platform) -> None:
    pools = karpenter_pools(wanted, platform, "gpu")
    names = [pool["metadata"]["name"] for pool in pools]
    assert len(set(names)) == len(names)
    for each in wanted:
        placement = node_placement(each.needs, platform)
        fitting = [pool for pool in pools if _fits(placement.requirements, pool)]
        assert fitting
        for pool in fitting:
            tainted = {taint["key"] for taint in pool["spec"]["template"]["spec"]["taints"]}
            assert tainted <= {toleration.key for toleration in placement.tolerations}
            assert set(pool["spec"]["limits"]) == set(placement.resources)
    asked = sum(each.most * each.needs.accelerators for each in wanted)
    assert sum(int(count) for pool in pools for count in pool["spec"]["limits"].values()) == asked


def _fits(requirements: Any, pool: dict[str, Any]) -> bool:
    """Zones are any: pools do not say."""
    buys = {each["key"]: set(each["values"]) for each in pool["spec"]["template"]["spec"]["requirements"]}
    asked = [need for need in requirements if need.key not in (ZONE_LABEL, "topology.k8s.aws/zone-id")]
    return all(buys.get(need.key, set()) & set(need.values) for need in asked)


def test_pools_of_models_with_the_same_machines_are_one() -> None:
    needs = Needs(image="engine:1", accelerator="L4", accelerators=2, market="spot")
    (pool,) = karpenter_pools([PodsWanted(needs, 3), PodsWanted(needs, 4)], Platform.EKS, "gpu")
    assert pool["metadata"]["name"] == "swell-l4-spot"
    assert pool["spec"]["limits"] == {"nvidia.com/gpu": "14"}
    template = pool["spec"]["template"]["spec"]
    assert template["nodeClassRef"] == {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpu"}
    assert {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]} in template["requirements"]
    assert pool["spec"]["disruption"]["consolidationPolicy"] == "WhenEmpty"


def test_pods_without_an_accelerator_need_none() -> None:
    assert karpenter_pools([PodsWanted(Needs(image="engine:1", cpus=4.0), 3)], Platform.EKS, "default") == []


@pytest.mark.parametrize("platform", [Platform.GKE, Platform.AKS, Platform.GENERIC])
def test_elsewhere_it_is_refused(platform: Platform) -> None:
    with pytest.raises(LaunchFailed, match="node pools can be written for eks and eks-auto, and this place is on"):
        karpenter_pools([], platform, "default")
