"""The chart says what it should, in objects that Kubernetes knows, for every set of values."""

import re
import subprocess
import sys
from functools import cache
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from chart import ROOT, Object, check_custom, custom_schemas, objects_of, one, renew
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_children import SETTINGS, child
from kubernetes_validate import utils

from swell.adapters.engines import image_engines, local_engines
from swell.adapters.providers.kubernetes import manifests
from swell.adapters.providers.kubernetes.manifests import NOTHING
from swell.adapters.providers.kubernetes.provider import EVERYWHERE, PORT
from swell.server.draining import END_MARGIN_SECONDS
from swell.server.gateway_workload import STOP_MARGIN_SECONDS
from swell.spec import Spec, parse_spec

OLDEST, NEWEST = "1.31", "1.37"
LABEL = r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?"
VALUES = renew.value_sets()
CUSTOM = custom_schemas()
CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "StorageClass", "NodePool"}


@pytest.fixture(autouse=True, scope="module")
def schemas_are_read_once() -> Any:
    """The validator reads three megabytes for every object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", cache(utils.schema_contents))
        yield


def spec_of(objects: list[Object]) -> Spec:
    """As the server reads it."""
    return parse_spec(one(objects, "ConfigMap")["data"]["swell.yaml"], origin="swell.yaml")


def check_objects(objects: list[Object]) -> None:
    """Everything that holds for every rendering."""
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(names) == len(set(names))
    for item in objects:
        if (item["apiVersion"], item["kind"]) in CUSTOM:
            check_custom(item, CUSTOM)
        else:
            for version in (OLDEST, NEWEST):
                assert kubernetes_validate.validate(item, version, strict=True) == version
        for value in item["metadata"].get("labels", {}).values():
            assert re.fullmatch(LABEL, value)
    pods = [item["spec"]["template"] for item in objects if item["kind"] in ("StatefulSet", "Job")]
    for pod in pods:
        _check_pod(pod, [each["metadata"]["name"] for each in _claims(objects)])
    server = one(objects, "StatefulSet")
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert server["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ports = {port["name"] for port in server["spec"]["template"]["spec"]["containers"][0]["ports"]}
    service = one(objects, "Service")
    assert service["spec"]["selector"].items() <= labels.items()
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def _claims(objects: list[Object]) -> list[Object]:
    return list(one(objects, "StatefulSet")["spec"].get("volumeClaimTemplates", []))


def _check_pod(template: Object, claims: list[str]) -> None:
    """It may do as little as replicas' Pods, and mounts what there is."""
    pod = template["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    volumes = {volume["name"] for volume in pod.get("volumes", [])} | set(claims)
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


@pytest.mark.parametrize("name", VALUES)
def test_every_object_is_one_that_kubernetes_knows(name: str) -> None:
    objects = objects_of(VALUES[name])
    check_objects(objects)
    assert spec_of(objects).models


@pytest.mark.parametrize("name", VALUES)
def test_what_is_rendered_is_what_was_looked_at(name: str) -> None:
    """`make chart` renews the golden files; their diff is for people to read."""
    assert renew.golden(VALUES[name]) == (renew.GOLDEN / f"{name}.golden").read_text()


@pytest.mark.parametrize("name", VALUES)
def test_lint_finds_nothing(name: str) -> None:
    report = helm_python.lint(renew.CHART, VALUES[name], strict=True, namespace="serving", kube_version="v1.31.0")
    assert [each for each in report["messages"] if each["error"] != "icon is recommended"] == []
    assert report["errors"] == []


def test_the_schema_of_values_follows_from_that_of_the_spec() -> None:
    assert renew.SCHEMA.read_text() == renew.values_schema(), "renew it with: make chart"


def test_everything_that_the_chart_can_make_is_in_a_golden_file() -> None:
    rendered = renew.render(VALUES["everything"])
    assert {name for name, text in rendered.items() if text.strip()} == {
        path.name for path in (renew.CHART / "templates").iterdir() if not path.name.startswith("_")
    }
    assert {each["kind"] for each in renew.objects(rendered)} >= {"HTTPRoute", "Ingress", "ServiceMonitor", "Job"}


def _examples() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        (page.name, block)
        for page in pages
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ]
    return [(page, block) for page, block in blocks if "models:" in block]


def test_what_the_documentation_shows_can_be_served_by_the_chart() -> None:
    examples = _examples()
    assert len(examples) > 5
    for page, example in examples:
        spec = yaml.safe_load(example)
        if "server" in spec:
            spec["server"] = {"host": EVERYWHERE, **spec["server"]}
        found = yaml.safe_load(one(objects_of({"spec": spec}), "ConfigMap")["data"]["swell.yaml"])
        assert found["models"] == spec["models"], page


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"spec": {"models": [{"name": "m", "sauce": "hf://a/b"}]}}, "'sauce' not allowed"),
        ({"spec": {"server": {"host": "127.0.0.1"}}}, "nobody outside the Pod"),
        ({"spec": {"server": {"host": "localhost"}}}, "write 0.0.0.0"),
        ({"secrets": {"tls": "mine"}}, "spec.server.tls does not use it"),
        ({"service": {"type": "LoadBalancer"}}, "would carry keys unencrypted"),
        ({"service": {"type": "NodePort"}}, "would carry keys unencrypted"),
        ({"modelCache": {"create": True}}, "model_cache: {claim: swell-models}"),
        ({"serviceMonitor": {"enabled": True}}, "swell keys create metrics"),
        ({"httpRoute": {"enabled": True}}, "name the Gateway"),
        ({"imagine": {}}, "'imagine' not allowed"),
        ({"disruptionBudget": {"maxUnavailable": 5}}, "maxUnavailable"),
    ],
)
def test_what_would_fail_in_the_cluster_is_refused_with_what_to_do(values: Object, words: str) -> None:
    with pytest.raises(helm_python.HelmError) as error:
        renew.render(values)
    assert words in str(error.value)


def test_a_misspelt_field_would_have_been_found() -> None:
    item = one(objects_of(VALUES["everything"]), "HTTPRoute")
    item["spec"]["rules"][0]["timeout"] = {}
    with pytest.raises(jsonschema.ValidationError):
        check_custom(item, CUSTOM)


def test_replicas_listen_to_the_server_alone() -> None:
    objects = objects_of(VALUES["everything"])
    pods = manifests.deployment(child(), SETTINGS, NOTHING)["spec"]["template"]
    server = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    policies = [each for each in objects if each["metadata"]["name"] == "swell-replicas"]
    assert {each["metadata"]["namespace"] for each in policies} == {"serving", "engines"}
    for policy in policies:
        spec = policy["spec"]
        assert spec["podSelector"]["matchLabels"].items() <= pods["metadata"]["labels"].items()
        assert not spec["podSelector"]["matchLabels"].items() <= server.items()
        (rule,) = spec["ingress"]
        (peer,) = rule["from"]
        assert peer["podSelector"]["matchLabels"].items() <= server.items()
        assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "serving"}}
        assert rule["ports"] == [{"protocol": "TCP", "port": PORT}]
    assert [port["containerPort"] for port in pods["spec"]["containers"][0]["ports"]] == [PORT]


def test_the_server_reaches_what_its_spec_names() -> None:
    objects = objects_of(VALUES["everything"])
    policy = one(objects, "NetworkPolicy", "swell")["spec"]
    outside = next(rule for rule in policy["egress"] if "to" not in rule and rule["ports"][0]["port"] != 53)
    # HTTPS; the API; endpoints at 8000, 443 and 80; a webhook; mail; the database
    assert {port["port"] for port in outside["ports"]} == {443, 16443, 8000, 80, 8444, 465, 5432}
    to_replicas = [rule for rule in policy["egress"] if rule.get("ports") == [{"protocol": "TCP", "port": PORT}]]
    named = [rule["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for rule in to_replicas]
    assert named == ["serving", "engines"]


def test_the_server_has_its_own_credentials_only_where_it_needs_them() -> None:
    outside = {"models": [{"name": "m", "endpoints": ["http://10.0.0.5:8000"]}], "providers": [{"name": "here"}]}
    objects = objects_of({"spec": outside})
    assert not {"Role", "ClusterRole", "RoleBinding", "Job"} & {each["kind"] for each in objects}
    assert one(objects, "StatefulSet")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert one(objects_of({}), "StatefulSet")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert "ClusterRole" not in {each["kind"] for each in objects_of({"rbac": {"nodes": False}})}


def test_a_changed_spec_makes_a_new_pod() -> None:
    def template(values: Object) -> Object:
        return one(objects_of(values), "StatefulSet")["spec"]["template"]

    other = {"spec": {"server": {"workers": 2}}}
    assert template({}) == template({})
    assert template({})["metadata"]["annotations"] != template(other)["metadata"]["annotations"]


def test_secrets_are_copied_so_that_swell_takes_them(tmp_path: Any) -> None:
    """With the very program of the init container."""
    pod = one(objects_of(VALUES["everything"]), "StatefulSet")["spec"]["template"]["spec"]
    (copies,) = pod["initContainers"]
    python, flag, program, *pairs = copies["command"]
    assert (python, flag) == ("python3", "-c")
    folder = tmp_path / "secrets"
    for pair in pairs:
        source = folder / pair.partition("=")[0].lstrip("/")
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(pair.encode())
        source.chmod(0o440)
    (tmp_path / "private").mkdir()
    words = [
        f"{folder / source.lstrip('/')}={tmp_path / target.lstrip('/')}"
        for source, _, target in (pair.partition("=") for pair in pairs)
    ]
    for _ in range(2):  # a Pod's sandbox may be made anew
        subprocess.run([sys.executable, "-c", program, *words], check=True)
    for pair in pairs:
        target = tmp_path / pair.partition("=")[2].lstrip("/")
        assert target.read_bytes() == pair.encode()
        assert target.stat().st_mode & 0o777 == 0o600
    environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert environment["SWELL_PEPPER_FILE"] == "/private/pepper"
    assert environment["SWELL_STORE_URL_FILE"] == "/secrets/store-url/url"
    assert {pair.partition("=")[2] for pair in pairs} == {
        environment["SWELL_PEPPER_FILE"], environment["SWELL_STORE_KEY_FILE"], "/private/tls.key"
    }  # fmt: skip


drains = st.one_of(st.none(), st.floats(1, 3600).map(lambda seconds: round(seconds, 1)), st.integers(1, 3600))


@settings(max_examples=40)
@given(drains, st.lists(st.tuples(st.sampled_from(["llama.cpp", "vllm"]), drains), min_size=1, max_size=4))
def test_a_pod_has_the_time_that_a_server_takes_to_end(worker: Any, models: list[tuple[str, Any]]) -> None:
    images, endings = {"llama.cpp": "a", "vllm": "b"}, {"llama.cpp": ".gguf", "vllm": ""}
    described = [
        {"name": f"m{number}", "engine": engine, "source": f"hf://a/b{number}{endings[engine]}"}
        | ({} if drain is None else {"drain_seconds": drain})
        for number, (engine, drain) in enumerate(models)
    ]
    spec: Object = {"models": described, "providers": [{"name": "cluster", "kind": "kubernetes", "images": images}]}
    if worker is not None:
        spec["server"] = {"timeouts": {"drain_seconds": worker}}
    objects = objects_of({"spec": spec})
    given = one(objects, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    read = spec_of(objects)
    engines = image_engines(accelerated=False) | local_engines({})
    workers = read.server.timeouts.drain_seconds + STOP_MARGIN_SECONDS + END_MARGIN_SECONDS
    replicas = max(model.drain_seconds + engines[model.engine.value].stop_grace_seconds for model in read.models)
    assert given >= workers + replicas + 2 * END_MARGIN_SECONDS  # after the replicas, and for the admin socket
    assert one(objects, "Job")["spec"]["activeDeadlineSeconds"] > given


names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True) | st.sampled_from(["on", "y", "null", "true"])
releases = st.from_regex(r"[a-z]([a-z0-9-]{0,51}[a-z0-9])?", fullmatch=True) | st.sampled_from(["no", "a.b", "swell"])
namespaces = names | st.sampled_from(["123", "1e3", "0x1f", "a" * 63])
texts = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}/[a-z]{1,8}", fullmatch=True), st.text(st.characters(codec="ascii"), max_size=9)
)
whole = st.dictionaries(names, st.sampled_from(["on", "1", "1e3", "null", "x", ""]), max_size=2)
secret = st.fixed_dictionaries({"name": st.just("") | names})


@st.composite
def value_sets(draw: st.DrawFn) -> Object:
    """Values that are right."""
    has_tls = draw(st.booleans())
    claim = draw(names)
    server: Object = {"port": draw(st.integers(1, 65535)), "workers": draw(st.integers(1, 256))}
    if has_tls:
        server["tls"] = {"certificate": "/secrets/tls/tls.crt", "private_key": "/private/tls.key"}
    place = {"name": "p", "kind": "kubernetes", "images": {"llama.cpp": "a:1"}, "model_cache": {"claim": claim}}
    places = [{**place, "name": f"p{number}"} for number in range(draw(st.integers(1, 3)))]
    for each in places:
        if draw(st.booleans()):
            each["namespace"] = draw(namespaces)
    spec = {"server": server, "providers": places, "models": [{"name": "m", "source": "hf://a/b.gguf"}]}
    return {
        "spec": spec,
        "fullnameOverride": draw(st.just("") | names),
        "nameOverride": draw(st.just("") | names),
        "image": {"pullSecrets": draw(st.lists(names, max_size=2)), "tag": draw(st.sampled_from(["", "1", "1e3"]))},
        "state": draw(st.sampled_from([{}, {"ephemeral": True}, {"existingClaim": "1"}, {"storageClass": "1"}])),
        "secrets": {
            "tls": draw(names) if has_tls else "",
            **{key: draw(secret) for key in ("storeUrl", "pepper", "storeKey")},
        },
        "service": {
            "type": draw(st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer"])),
            "port": draw(st.integers(1, 65535)),
            "tlsAtLoadBalancer": True,
            "annotations": draw(texts),
            "externalTrafficPolicy": draw(st.sampled_from(["", "Local"])),
        },
        "ingress": {"enabled": draw(st.booleans()), "hosts": draw(st.lists(names, max_size=2))},
        "httpRoute": {"enabled": draw(st.booleans()), "parentRefs": [{"name": draw(names)}]},
        "serviceAccount": {"create": draw(st.booleans()), "name": draw(st.just("") | names)},
        "rbac": {"create": draw(st.booleans()), "nodes": draw(st.booleans())},
        "networkPolicy": {"enabled": draw(st.booleans())},
        "disruptionBudget": {"enabled": draw(st.booleans()), "maxUnavailable": draw(st.integers(0, 1))},
        "podLabels": draw(whole),
        "podAnnotations": draw(texts),
        "nodeSelector": draw(whole),
        "modelCache": {"create": draw(st.booleans()), "claim": claim},
        "serviceMonitor": {"enabled": draw(st.booleans()), "key": {"name": draw(names)}},
        "terminationGracePeriodSeconds": draw(st.none() | st.integers(1, 10**6)),
    }  # fmt: skip


@settings(max_examples=30)
@given(value_sets(), releases, namespaces)
def test_values_that_are_right_make_objects_that_are(values: Object, release: str, namespace: str) -> None:
    objects = objects_of(values, release, namespace)
    check_objects(objects)
    spec = yaml.safe_load(one(objects, "ConfigMap")["data"]["swell.yaml"])
    assert spec == {**values["spec"], "server": {**spec["server"], **values["spec"]["server"]}}
    assert spec_of(objects).server.host == EVERYWHERE
    for item in objects:
        assert item["kind"] in CLUSTER_WIDE or item["metadata"]["namespace"]
        assert len(item["metadata"]["name"]) <= 63 or item["kind"].startswith("ClusterRole")


words = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=30
) | st.sampled_from(
    [
        "yes",
        "1e3",
        "0x1f",
        "null",
        "~",
        "12:30:00",
        "- a",
        "a: b",
        "#",
        "{{ .Values }}",
        " ",
        "*a",
        "&b",
        "!c",
        "%d",
        "'",
    ]
)


@settings(max_examples=50)
@given(st.lists(words, max_size=4), st.integers(1, 2**40) | st.floats(0.001, 1e9))
def test_what_a_spec_says_comes_out_as_it_is(arguments: list[str], usd: float) -> None:
    """Wherever a spec has words and numbers of the user's own."""
    model = {"name": "m", "source": "hf://a/b.gguf", "engine_args": arguments, "usd_per_replica_hour": usd}
    text = one(objects_of({"spec": {"models": [model]}}), "ConfigMap")["data"]["swell.yaml"]
    assert yaml.safe_load(text)["models"] == [model]
