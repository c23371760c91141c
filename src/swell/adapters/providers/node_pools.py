"""Karpenter's NodePools for what Swell's Pods will ask for: one for each accelerator and market.

A NodePool says what Karpenter may buy. Its requirements are those by which the Pods choose their nodes, so that a Pod
and its pool cannot miss each other; zones are left to the Pods. Fields are those of `karpenter.sh/v1`, which AKS's node
auto-provisioning has too.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from swell.adapters.providers.accelerators import (
    ON_DEMAND,
    SPOT,
    ZONE_ID_LABEL,
    ZONE_LABEL,
    Platform,
    Requirement,
    node_placement,
)
from swell.errors import LaunchFailed
from swell.ports.provider import Needs
from swell.state.accelerators import asked_for

EMPTY_SECONDS = 120  # a machine without Pods is given back after so long
CAPACITY_TYPE = "karpenter.sh/capacity-type"
_CLASSES = {
    Platform.EKS: ("karpenter.k8s.aws", "EC2NodeClass"),
    Platform.EKS_AUTO: ("eks.amazonaws.com", "NodeClass"),
    Platform.AKS: ("karpenter.azure.com", "AKSNodeClass"),
}
AKS_PRIORITY = "kubernetes.azure.com/scalesetpriority"  # AKS's own word for the market, by which Pods choose there
_NOT_KEPT = (ZONE_LABEL, ZONE_ID_LABEL, CAPACITY_TYPE, AKS_PRIORITY)
_WITHOUT = {Platform.GKE: "node auto-provisioning makes pools there from the Pods' own labels"}
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class PodsWanted:
    """At most so many Pods with these needs."""

    needs: Needs
    most: int


def karpenter_pools(wanted: Iterable[PodsWanted], platform: Platform, node_class: str) -> list[dict[str, Any]]:
    """The manifests, in order of their names. Pods without an accelerator need none of these.

    Raises LaunchFailed for a platform without Karpenter, or an accelerator that it does not have.
    """
    if platform not in _CLASSES:
        advice = _WITHOUT.get(platform, "make them with your own tools, with the labels that Pods ask for")
        raise LaunchFailed(
            f"node pools can be written for {', '.join(_CLASSES)}, and this place is on {platform}; {advice}"
        )
    found: dict[str, dict[str, Any]] = {}
    for each in wanted:
        if each.needs.accelerator and each.most:
            _add(found, each, platform, node_class)
    return [found[name] for name in sorted(found)]


def _add(found: dict[str, dict[str, Any]], wanted: PodsWanted, platform: Platform, node_class: str) -> None:
    """A pool for these Pods; where there is one already, room for them as well."""
    placement = node_placement(wanted.needs, platform)
    ((resource, each),) = placement.resources.items()
    market = wanted.needs.market or ON_DEMAND
    name = _name(wanted.needs.accelerator, market)
    if name not in found:
        kept = [need for need in placement.requirements if need.key not in _NOT_KEPT]
        if platform is Platform.AKS:
            kept.append(Requirement(AKS_PRIORITY, (SPOT if market == SPOT else "regular",)))
        found[name] = _manifest(name, kept, market, resource, _CLASSES[platform], node_class)
    limits = found[name]["spec"]["limits"]
    limits[resource] = str(int(limits.get(resource, "0")) + int(each) * wanted.most)


def _manifest(
    name: str, needs: Sequence[Requirement], market: str, resource: str, kind: tuple[str, str], node_class: str
) -> dict[str, Any]:
    group, class_kind = kind
    requirements = [need.manifest() for need in needs]
    requirements += [
        {"key": CAPACITY_TYPE, "operator": "In", "values": [market.replace("_", "-")]},
        {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
        {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
    ]
    return {
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "swell"}},
        "spec": {
            "template": {
                "spec": {
                    "nodeClassRef": {"group": group, "kind": class_kind, "name": node_class},
                    "requirements": requirements,
                    "taints": [{"key": resource, "effect": "NoSchedule"}],
                    # A replica that loads a large model is dearly moved: Swell says when one goes.
                    "expireAfter": "Never",
                }
            },
            "disruption": {"consolidationPolicy": "WhenEmpty", "consolidateAfter": f"{EMPTY_SECONDS}s"},
            "limits": {},
            "weight": 50 if market == SPOT else 10,  # where both would do
        },
    }


def _name(accelerator: str, market: str) -> str:
    kind = asked_for(accelerator).accelerator.name
    return f"swell-{_NOT_IN_NAMES.sub('-', f'{kind}-{market}'.lower()).strip('-')}"
