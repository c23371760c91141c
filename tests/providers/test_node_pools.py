"""Karpenter's NodePools fit the Pods: what a Pod requires of a node, its pool buys, and its taint the Pod bears."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.adapters.providers.accelerators import ZONE_LABEL, Platform, node_placement
from swell.adapters.providers.node_pools import PodsWanted, karpenter_pools
from swell.errors import LaunchFailed
from swell.ports.provider import Needs

ON_AWS, ON_AZURE = ["T4", "L4", "A10G", "L40S", "H100"], ["T4", "A100-80GB", "H100", "H200"]
KARPENTERS = {Platform.EKS: ON_AWS, Platform.EKS_AUTO: ON_AWS, Platform.AKS: ON_AZURE}


@st.composite
def asked(draw: st.DrawFn) -> tuple[Platform, list[PodsWanted]]:
    """Pods on one platform, of accelerators that it has."""
    platform = draw(st.sampled_from(sorted(KARPENTERS)))
    needs = st.builds(
        Needs,
        image=st.just("engine:1"),
        accelerator=st.sampled_from(KARPENTERS[platform]),
        accelerators=st.sampled_from([1, 4, 8]),
        market=st.sampled_from([None, "spot", "on_demand"]),
        zone=st.sampled_from(["", "us-east-1a", "use1-az2", "eastus-1"]),
    )
    return platform, draw(st.lists(st.builds(PodsWanted, needs, st.integers(1, 20)), min_size=1, max_size=6))


@given(asked())
def test_every_pod_has_a_pool_that_buys_what_it_requires(case: tuple[Platform, list[PodsWanted]]) -> None:
    platform, wanted = case
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
    limits = sum(int(count) for pool in pools for count in pool["spec"]["limits"].values())
    assert limits == sum(each.most * each.needs.accelerators for each in wanted)


def _fits(requirements: Any, pool: dict[str, Any]) -> bool:
    """Zones are any: pools do not say."""
    buys = {each["key"]: set(each["values"]) for each in pool["spec"]["template"]["spec"]["requirements"]}
    asked = [need for need in requirements if need.key not in (ZONE_LABEL, "topology.k8s.aws/zone-id")]
    assert all(each["operator"] == "In" for each in pool["spec"]["template"]["spec"]["requirements"])
    return all(
        buys.get(need.key, set()) - set(need.values)
        if need.is_negated
        else buys.get(need.key, set()) & set(need.values)
        for need in asked
    )


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


def test_on_aks_a_pool_says_its_market_as_pods_there_ask_for_it() -> None:
    both = [
        PodsWanted(Needs(image="e", accelerator="T4", accelerators=1, market=market), 2)
        for market in ("on_demand", "spot")
    ]
    pools = karpenter_pools(both, Platform.AKS, "default")
    assert [pool["metadata"]["name"] for pool in pools] == ["swell-t4-on-demand", "swell-t4-spot"]
    told = [
        {each["key"]: each["values"] for each in pool["spec"]["template"]["spec"]["requirements"]} for pool in pools
    ]
    assert [each["kubernetes.azure.com/scalesetpriority"] for each in told] == [["regular"], ["spot"]]
    assert [each["karpenter.sh/capacity-type"] for each in told] == [["on-demand"], ["spot"]]
    assert "Standard_NC4as_T4_v3" in told[0]["node.kubernetes.io/instance-type"]
    template = pools[0]["spec"]["template"]["spec"]
    assert template["nodeClassRef"] == {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"}


@pytest.mark.parametrize(
    ("platform", "advice"), [(Platform.GKE, "node auto-provisioning makes pools"), (Platform.GENERIC, "your own tools")]
)
def test_elsewhere_it_is_refused(platform: Platform, advice: str) -> None:
    where = f"node pools can be written for eks, eks-auto, aks, and this place is on {platform}; .*{advice}"
    with pytest.raises(LaunchFailed, match=where):
        karpenter_pools([], platform, "default")
