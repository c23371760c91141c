"""What the provider may ask a cluster for, read from its code: by it the chart's roles are judged."""

import ast
from pathlib import Path

from swell.adapters.providers.kubernetes import client
from swell.adapters.providers.kubernetes.api import Kind

PROVIDER = Path(client.__file__).parent
BETWEEN = {
    "api.py",
    "client.py",
    "confirmed.py",
    "pacing.py",
    "watch.py",
}  # pass on what they are asked for, whatever it is
# What an API server wants to be allowed for each method of ClusterApi; an apply may make what is not there.
VERBS = {
    "pages": {"list"},
    "watch": {"watch"},
    "apply": {"create", "patch"},
    "annotate": {"patch"},
    "delete": {"delete"},
    "read_log": {"get"},
}
Right = tuple[str, str, str]
"""Group, resource and verb."""


def _resource(kind: Kind) -> tuple[str, str]:
    info = client._RESOURCES[kind]._api_info
    return info.resource.group, info.plural


def asked_for() -> set[Right]:
    """By the provider's code: every call of a method of ClusterApi, and every watched kind."""
    found: set[Right] = set()
    for path in sorted(PROVIDER.glob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            kinds = [_kind(each) for each in call.args if _kind(each) is not None]
            methods = {"pages", "watch"} if name == "Watching" else {name} & VERBS.keys()
            if not methods or path.name in BETWEEN:
                continue
            if name == "read_log":
                found.add(("", "pods/log", "get"))
                continue
            target = Kind.PODS if name == "annotate" else kinds[0] if kinds else None
            assert target is not None, f"{path.name}:{call.lineno} names no Kind"
            found |= {(*_resource(target), verb) for method in methods for verb in VERBS[method]}
    return found


def _kind(node: ast.expr) -> Kind | None:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Kind":
        return Kind[node.attr]
    return None
