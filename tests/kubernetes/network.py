"""What NetworkPolicies of a rendering let through, by the rules that Kubernetes documents."""

from dataclasses import dataclass, field

from chart import Object

NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Peer:
    """A Pod, or with no namespace something outside the cluster."""

    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def passes(objects: list[Object], source: Peer, target: Peer, port: int) -> bool:
    """Whether TCP from one to the other is let out and in."""
    policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
    return _lets(policies, "Egress", source, target, port) and _lets(policies, "Ingress", target, source, port)


def _lets(policies: list[Object], way: str, pod: Peer, other: Peer, port: int) -> bool:
    own = [each for each in policies if _is_of(each, pod) and way in each["spec"]["policyTypes"]]
    side = "to" if way == "Egress" else "from"
    rules = [(policy, rule) for policy in own for rule in policy["spec"].get(way.lower(), [])]
    return not own or any(_matches(policy, rule, side, other, port) for policy, rule in rules)


def _is_of(policy: Object, pod: Peer) -> bool:
    selector: dict[str, str] = policy["spec"]["podSelector"]["matchLabels"]
    return policy["metadata"]["namespace"] == pod.namespace and selector.items() <= pod.labels.items()


def _matches(policy: Object, rule: Object, side: str, other: Peer, port: int) -> bool:
    ports = [each["port"] for each in rule.get("ports", []) if each.get("protocol", "TCP") == "TCP"]
    if "ports" in rule and port not in ports:
        return False
    return side not in rule or any(_is_peer(policy, peer, other) for peer in rule[side])


def _is_peer(policy: Object, peer: Object, other: Peer) -> bool:
    if "ipBlock" in peer:
        return not other.namespace
    if not other.namespace:
        return False
    own = {NAMESPACE: policy["metadata"]["namespace"]}
    namespaces = peer["namespaceSelector"]["matchLabels"] if "namespaceSelector" in peer else own
    labels = peer.get("podSelector", {}).get("matchLabels", {})
    return bool(namespaces.items() <= {NAMESPACE: other.namespace}.items() and labels.items() <= other.labels.items())
