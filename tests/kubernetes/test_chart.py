"""The chart says what it should, in objects that Kubernetes knows, for every set of values."""

import re
import subprocess
import sys
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml
from chart import ROOT, Object, check_custom, objects_of, one, renew
from chart_checks import CUSTOM, check_objects, spec_of
from hypothesis import given, settings
from hypothesis import strategies as st
from kube_children import SETTINGS, child

from swell.adapters.engines import image_engines, local_engines
from swell.adapters.providers.kubernetes import manifests
from swell.adapters.providers.kubernetes.manifests import NOTHING
from swell.adapters.providers.kubernetes.provider import EVERYWHERE, PORT
from swell.server.draining import END_MARGIN_SECONDS
from swell.server.gateway_workload import STOP_MARGIN_SECONDS

VALUES = renew.value_sets()


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
    rendered = [renew.render(VALUES[name]) for name in ("everything", "several")]
    assert {name for each in rendered for name, text in each.items() if text.strip()} == {
        path.name for path in (renew.CHART / "templates").iterdir() if not path.name.startswith("_")
    }
    kinds = {each["kind"] for every in rendered for each in renew.objects(every)}
    assert kinds >= {"HTTPRoute", "Ingress", "ServiceMonitor", "Job", "Deployment", "Certificate"}


def _examples() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        (page.name, block)
        for page in pages
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    ]
    return [(page, block) for page, block in blocks if "models:" in block]


def test_every_value_has_its_default_in_the_values() -> None:
    values = yaml.safe_load((renew.CHART / "values.yaml").read_text())
    schema = yaml.safe_load(renew.values_schema())
    assert values.keys() == schema["properties"].keys() - {"global"}
    for name, value in values.items():
        known = schema["properties"][name].get("properties")
        if known is not None and name not in ("spec", "affinity"):
            assert value.keys() >= known.keys() - {"timeouts"}, name


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
