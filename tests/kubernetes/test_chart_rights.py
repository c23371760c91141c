"""The chart's roles hold what the provider asks for, and nothing else."""

from chart import Object, objects_of, one
from hypothesis import given
from hypothesis import strategies as st
from provider_rights import VERBS, Right, asked_for

from swell.adapters.providers.kubernetes.api import ClusterApi


def granted(rules: list[Object]) -> set[Right]:
    """Rules one by one."""
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_verbs_of_every_method_are_known() -> None:
    methods = {name for name, value in vars(ClusterApi).items() if callable(value) and not name.startswith("_")}
    assert methods - VERBS.keys() == {"close"}


def test_the_roles_are_what_the_provider_asks_for() -> None:
    objects = objects_of({})
    needed = asked_for()
    nodes = {right for right in needed if right[1] == "nodes"}
    asked_of_issuers = {right for right in needed if right[0] == "cert-manager.io"}
    ahead = {right for right in needed if right[1] in ("jobs", "daemonsets")}
    assert len(ahead) == 2 * 5
    assert granted(one(objects, "Role", "swell")["rules"]) == needed - nodes - asked_of_issuers - ahead
    place = {"name": "c", "kind": "kubernetes", "images": {"llama.cpp": "a"}, "prefetch": {"images": True}}
    asking = objects_of({"spec": {"providers": [place]}})
    assert granted(one(asking, "Role", "swell")["rules"]) == needed - nodes - asked_of_issuers
    assert granted(one(objects, "ClusterRole")["rules"]) == nodes
    assert len(needed) > 10


def test_only_where_certificates_come_from_an_issuer_are_they_asked_for() -> None:
    place: Object = {"name": "p", "kind": "kubernetes", "images": {"llama.cpp": "a"}}
    own, issuing = {"image": "gateway:1"}, {"image": "gateway:1", "issuer": {"name": "ca"}}
    places = [place | {"namespace": "plain"}]
    places += [place | {"name": "o", "namespace": "own", "tls": own}, place | {"name": "i", "tls": issuing}]
    roles = [each for each in objects_of({"spec": {"providers": places}}) if each["kind"] == "Role"]
    found = {
        role["metadata"]["namespace"]: {right for right in granted(role["rules"]) if right[0] == "cert-manager.io"}
        for role in roles
        if role["metadata"]["name"] == "swell"
    }
    wanted = {("cert-manager.io", "certificates", verb) for verb in ("create", "delete", "patch")}
    assert found == {"plain": set(), "own": set(), "serving": wanted}
    assert wanted <= asked_for()


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


def _declared(where: Object, **values: Object) -> list[Object]:
    return objects_of({"spec": {"server": {"custom_resources": where}, "providers": []}, **values})


def test_who_reads_models_as_objects_may_read_them_there_and_tell_of_them() -> None:
    objects = _declared({"namespace": "declared"})
    role = one(objects, "Role", "swell-resources")
    assert role["metadata"]["namespace"] == "declared"
    assert granted(role["rules"]) == {
        ("swell.internal", kind, verb) for kind in ("models", "tenants") for verb in ("list", "watch")
    } | {("swell.internal", f"{kind}/status", "patch") for kind in ("models", "tenants")}
    (server,) = [each for each in objects if each["kind"] == "StatefulSet"]
    assert server["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    definitions = [each for each in objects if each["kind"] == "CustomResourceDefinition"]
    assert {each["spec"]["names"]["kind"] for each in definitions} == {"Model", "Tenant"}
    for each in definitions:
        assert each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_by_credentials_of_another_cluster_nothing_of_it_is_here() -> None:
    for objects in (_declared({"kubeconfig": "/k"}), objects_of({"spec": {"providers": []}})):
        names = {each["metadata"]["name"] for each in objects}
        assert "swell-resources" not in names
        assert "CustomResourceDefinition" not in {each["kind"] for each in objects}


def test_definitions_may_be_applied_by_somebody_else() -> None:
    kinds = {each["kind"] for each in _declared({}, customResources={"install": False})}
    assert "CustomResourceDefinition" not in kinds
    assert "Role" in kinds
