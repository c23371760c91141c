"""The chart, rendered for tests by Helm's own library, and what its objects may be."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
CRDS = Path(__file__).parent / "crds"

Object = dict[str, Any]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("renew", ROOT / "deploy" / "helm" / "renew.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["renew"] = module
    spec.loader.exec_module(module)
    return module


renew = _load()


def objects_of(values: Object, release: str = renew.RELEASE, namespace: str = renew.NAMESPACE) -> list[Object]:
    """All objects for some values."""
    return list(renew.objects(renew.render(values, release=release, namespace=namespace)))


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or of a kind and name."""
    (found,) = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    return found


def workload(objects: list[Object], component: str) -> Object:
    """The only object that makes Pods of that component: server, gateway or let-go."""
    (found,) = [each for each in workloads(objects) if component_of(each) == component]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    """All objects that make Pods."""
    return [each for each in objects if each["kind"] in ("StatefulSet", "Deployment", "Job")]


def component_of(owner: Object) -> str:
    """Of the Pods that it makes."""
    return str(pod_labels(owner)["app.kubernetes.io/component"])


def pod_labels(owner: Object) -> dict[str, str]:
    """Of the Pods that it makes."""
    labels: dict[str, str] = owner["spec"]["template"]["metadata"]["labels"]
    return labels


def custom_definitions() -> Iterator[Object]:
    """Definitions of what others bring into a cluster."""
    for path in sorted(CRDS.glob("*.yaml")):
        yield yaml.safe_load(path.read_text())


def custom_schemas() -> dict[tuple[str, str], Object]:
    """Their schemas, by apiVersion and kind, closed to unknown fields as an API server's strict mode is."""
    found = {}
    for definition in custom_definitions():
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def check_custom(item: Object, schemas: dict[tuple[str, str], Object]) -> None:
    """Raise jsonschema.ValidationError where the object is not as its definition has it."""
    jsonschema.validate(item, schemas[item["apiVersion"], item["kind"]])


def _closed(schema: Any, *, is_top: bool = True) -> Any:
    if isinstance(schema, list):
        return [_closed(each, is_top=False) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value, is_top=False) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict) and schema.get("type") == "object":
        found["properties"] = {name: _closed(value, is_top=False) for name, value in schema["properties"].items()}
        found.setdefault("additionalProperties", False)
    if is_top:
        found["properties"]["metadata"] = {"type": "object"}
    return found
