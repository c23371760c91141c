"""The chart's roles hold what the provider asks for, and nothing else."""

import ast
from pathlib import Path

from chart import Object, objects_of, one
from hypothesis import given
from hypothesis import strategies as st

from swell.adapters.providers.kubernetes import client
from swell.adapters.providers.kubernetes.api import ClusterApi, Kind

PROVIDER = Path(client.__file__).parent
BETWEEN = {"api.py", "client.py", "pacing.py", "watch.py"}  # pass on what they are asked for, whatever it is
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


def granted(rules: list[Object]) -> set[Right]:
    """Rules one by one."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


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


def test_the_verbs_of_every_method_are_known() -> None:
    methods = {name for name, value in vars(ClusterApi).items() if callable(value) and not name.startswith("_")}
    assert methods - VERBS.keys() == {"close"}


def test_the_roles_are_what_the_provider_asks_for() -> None:
    objects = objects_of({})
    needed = asked_for()
    nodes = {right for right in needed if right[1] == "nodes"}
    assert granted(one(objects, "Role", "swell")["rules"]) == needed - nodes
    assert granted(one(objects, "ClusterRole")["rules"]) == nodes
    assert len(needed) > 10


def test_what_takes_the_server_away_may_do_only_that() -> None:
    rules = one(objects_of({}), "Role", "swell-let-go")["rules"]
    assert granted(rules) == {("apps", "statefulsets/scale", "patch"), ("", "pods", "get")}
    assert [rule["resourceNames"] for rule in rules] == [["swell"], ["swell-0"]]


@given(st.lists(st.sampled_from(["", "models", "engines", "serving"]), min_size=1, max_size=4), st.booleans())
def test_there_are_rights_where_replicas_are_made_and_nowhere_else(namespaces: list[str], is_elsewhere: bool) -> None:
    places: list[Object] = [
        {"name": f"p{number}", "kind": "kubernetes", "images": {"llama.cpp": "a"}}
        | ({"namespace": namespace} if namespace else {})
        for number, namespace in enumerate(namespaces)
    ]
    if is_elsewhere:
        places.append({**places[0], "name": "else", "namespace": "not-here", "kubeconfig": "/k"})
    objects = objects_of({"spec": {"providers": places}, "uninstall": {"letGo": False}})
    wanted = {namespace or "serving" for namespace in namespaces}
    for kind in ("Role", "RoleBinding"):
        assert {each["metadata"]["namespace"] for each in objects if each["kind"] == kind} == wanted
    for binding in (each for each in objects if each["kind"].endswith("RoleBinding") or each["kind"] == "RoleBinding"):
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "swell", "namespace": "serving"}]
