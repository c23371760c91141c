"""The definitions of the custom resources: as the spec's types make them, and as an API server takes them."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx2
import jsonschema
import kubernetes_validate
import pytest
import yaml
from control_plane import TOKEN, ControlPlane
from custom_schemas import NOT_IN_RE2, TYPES, VALUE_RULES, closed, nodes

from swell.errors import SpecError
from swell.spec import Spec, check_spec
from swell.spec.custom_resources import GROUP, KINDS, RULES, SERVER_SECRETS, definition
from swell.spec.custom_resources import TYPES as SPEC_TYPES
from swell_process import wait_until

ROOT = Path(__file__).resolve().parents[2]
OLDEST, NEWEST = "1.31", "1.37"
ONCE = {"type", "description", "properties", "required", "items", "anyOf", "format", "maxItems"}
KNOWN = ONCE | VALUE_RULES | {"x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"}

# Of every rule an object that it refuses, under the name of the kind. The parser refuses the same.
CONTRADICTIONS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "ReplicaRange": [("models", {"source": "hf://a/b", "replicas": {"min": 3, "max": 2}})],
    "MaxTokens": [("models", {"source": "hf://a/b", "max_tokens": {"default": 3, "max": 2}})],
    "ModelSpec": [
        ("models", {"engine": "vllm"}),
        ("models", {"engine": "vllm", "source": "hf://a/b", "endpoints": ["http://127.0.0.1:1"]}),
        ("models", {"source": "hf://a/b", "endpoints": ["http://127.0.0.1:1"]}),
    ],
    "BudgetSpec": [("tenants", {"budget": [{"usd": 5, "grace": "5%", "grace_usd": 1}]})],
}


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("renew_crds", ROOT / "deploy" / "crds" / "renew.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def schema_of(plural: str) -> dict[str, Any]:
    [version] = definition(plural)["spec"]["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def spec_with(plural: str, item: dict[str, Any]) -> Spec:
    named = {"name": "it", **item}
    chat = {"name": "chat", "endpoints": ["http://127.0.0.1:1"]}
    prices = {"chat": {"usd_per_million_prompt_tokens": 1}}
    models = [chat, named] if plural == "models" else [chat]
    tenants = [named] if plural == "tenants" else []
    return check_spec({"models": models, "tenants": tenants, "prices": prices}, origin="a test")


def test_the_files_are_what_the_types_say() -> None:
    expected = _load().files()
    assert {path.name for path in (ROOT / "deploy" / "crds").glob("*.yaml")} == {path.name for path in expected}
    for path, text in expected.items():
        assert path.read_text() == text, "renew them with: make crds"


@pytest.mark.parametrize("plural", KINDS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field_of_a_definition(plural: str, version: str) -> None:
    item = yaml.safe_load((ROOT / "deploy" / "crds" / f"{GROUP}_{plural}.yaml").read_text())
    assert kubernetes_validate.validate(item, version, strict=True) == version
    item["spec"]["versions"][0]["schemas"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("plural", KINDS)
def test_the_schema_is_structural(plural: str) -> None:
    """https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/."""
    for path, node in nodes(schema_of(plural)):
        assert node["type"] in TYPES, path
        assert node.keys() <= KNOWN, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert ("items" in node) == (node["type"] == "array"), path
        assert "properties" not in node or node["type"] == "object", path
        assert set(node.get("required", [])) <= node.get("properties", {}).keys(), path
        for choice in node.get("anyOf", []):
            assert choice.keys() <= VALUE_RULES, path
        assert not NOT_IN_RE2.search(node.get("pattern", "")), path
        re.compile(node.get("pattern", ""))
        assert isinstance(node.get("exclusiveMinimum", False), bool), path


@pytest.mark.parametrize("plural", KINDS)
def test_a_resource_has_every_field_of_the_file_but_secrets_of_the_server(plural: str) -> None:
    fields = schema_of(plural)["properties"]["spec"]["properties"]
    assert fields.keys() == SPEC_TYPES[plural].model_fields.keys() - set(SERVER_SECRETS)
    for name, field in SPEC_TYPES[plural].model_fields.items():
        if field.description and name != "name" and name in fields:
            assert fields[name]["description"] == field.description


@pytest.mark.parametrize("plural", KINDS)
def test_nothing_is_defaulted_by_the_cluster(plural: str) -> None:
    """What an object leaves out is decided when it is read: some defaults follow from other fields."""
    assert not [path for path, node in nodes(schema_of(plural)) if "default" in node]


def test_status_is_a_subresource_and_scale_is_not() -> None:
    for plural in KINDS:
        [version] = definition(plural)["spec"]["versions"]
        assert version["subresources"] == {"status": {}}


def test_every_rule_has_a_contradiction_that_the_parser_refuses_too() -> None:
    assert {name: len(rules) for name, rules in RULES.items()} == {k: len(v) for k, v in CONTRADICTIONS.items()}
    for plural, item in (each for several in CONTRADICTIONS.values() for each in several):
        jsonschema.validate(item, closed(schema_of(plural)["properties"]["spec"]))
        with pytest.raises(SpecError):
            spec_with(plural, item)


@pytest.mark.parametrize(
    ("plural", "item"),
    [
        ("models", {"source": "hf://org/chat-8b", "replicas": {"min": 0, "max": 4}, "usd_per_replica_hour": 0}),
        ("models", {"endpoints": ["http://127.0.0.1:9101"], "objectives": {"ttft_ms": 800.0}, "n_max": 4}),
        ("models", {"source": "hf://a/b", "engine": "vllm", "lora": [{"name": "sql", "path": "/adapters/sql"}]}),
        ("tenants", {"limits": {"requests_per_minute": 60}, "priority": "batch"}),
        ("tenants", {"budget": [{"usd": 20, "period": "rolling 24h", "alerts": [], "at_limit": ["throttle"]}]}),
    ],
)
def test_what_the_schema_takes_is_served(plural: str, item: dict[str, Any]) -> None:
    jsonschema.validate(item, closed(schema_of(plural)["properties"]["spec"]))
    spec = spec_with(plural, item)
    (served,) = [each for each in (*spec.models, *spec.tenants) if each.name == "it"]
    assert item.keys() - served.aliases.keys() <= served.model_fields_set


@pytest.mark.parametrize(
    ("plural", "item"),
    [
        ("models", {"replicas": {"min": -1}}),
        ("models", {"replicas": 2}),
        ("models", {"engine": "vlm"}),
        ("models", {"api_key_file": "/etc/shadow"}),
        ("models", {"scaling": {"interval_seconds": 0.1}}),
        ("models", {"objectives": {"ttft_ms": 0}}),
        ("tenants", {"budget": [{"period": "month"}]}),
        ("tenants", {"budget": [{"usd": 20, "period": "fortnight"}]}),
        ("tenants", {"limit": {}}),
    ],
)
def test_what_the_schema_refuses(plural: str, item: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(item, closed(schema_of(plural)["properties"]["spec"]))


def test_an_api_server_takes_the_definitions_and_their_rules_hold(control_plane: ControlPlane) -> None:
    """Structural, with rules that compile at a price that it lets pass; and it refuses what they contradict."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = control_plane.config.cluster.server
    with httpx2.Client(base_url=url, verify=False, headers=headers, timeout=30.0) as http:
        for plural in KINDS:
            made = http.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=definition(plural))
            assert made.status_code in (201, 409), made.text
        for plural, kind in KINDS.items():
            path = f"/apis/{GROUP}/v1alpha1/namespaces/default/{plural}"
            wait_until(lambda path=path: http.get(path).status_code == 200, seconds=30.0)
            refused = [item for several in CONTRADICTIONS.values() for of, item in several if of == plural]
            taken: list[dict[str, Any]] = [{"endpoints": ["http://127.0.0.1:1"]} if plural == "models" else {}]
            for expected, items in ((422, refused), (201, taken)):
                for item in items:
                    whole = {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": {"name": "it"}, "spec": item}
                    answer = http.post(path, json=whole, params={"dryRun": "All", "fieldValidation": "Strict"})
                    assert answer.status_code == expected, answer.text
