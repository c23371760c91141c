"""Models and tenants as custom resources of Kubernetes: what their objects may hold, made of the spec's own types.

A resource's `spec` is what stands under `models` or `tenants` in the file, with two differences: its name is that of
the resource unless it gives another, and it names no secret of the server's machine (RFC 8 says why).
"""

from typing import Any, Final

from swell.spec.base import SpecModel
from swell.spec.models import ModelSpec
from swell.spec.structural import Rules, Schema, structural_schema
from swell.spec.tenants import TenantSpec

GROUP: Final = "swell.internal"
VERSION: Final = "v1alpha1"
MODELS, TENANTS = "models", "tenants"  # as in URLs, and in the file
KINDS: Final = {MODELS: "Model", TENANTS: "Tenant"}
TYPES: Final[dict[str, type[SpecModel]]] = {MODELS: ModelSpec, TENANTS: TenantSpec}
SERVER_SECRETS: Final = ("api_key_env", "api_key_file")
"""Fields of a model that name a secret of the server's, which it would send to wherever the same model says."""

ACCEPTED, READY = "Accepted", "Ready"
MAX_MESSAGE_LENGTH: Final = 8192  # characters of a condition's message
MAX_CONDITIONS: Final = 8
MAX_REASON_LENGTH: Final = 1024  # characters of a decision's reason

RULES: Final[Rules] = {
    "ReplicaRange": [
        ("!has(self.min) || !has(self.max) || self.min <= self.max", "min is more than max; lower min or raise max"),
    ],
    "MaxTokens": [
        (
            "!has(self.default) || !has(self.max) || self.default <= self.max",
            "default is more than max; lower it or raise max",
        ),
    ],
    "ModelSpec": [
        (
            "has(self.source) || (has(self.endpoints) && size(self.endpoints) > 0)",
            "names nothing to serve; give source, or the endpoints of what is served already",
        ),
        (
            "!has(self.endpoints) || size(self.endpoints) == 0 || !has(self.engine)"
            " || self.engine in ['auto', 'external']",
            "endpoints contradicts engine, which Swell starts itself; use engine external",
        ),
        (
            "!has(self.source) || !has(self.endpoints) || size(self.endpoints) == 0",
            "source has no effect on endpoints that somebody else runs; keep one of them",
        ),
    ],
    "BudgetSpec": [
        ("!has(self.grace) || !has(self.grace_usd)", "grace contradicts grace_usd; keep one of them"),
    ],
}

_CONDITION: Final[Schema] = {
    "type": "object",
    "required": ["type", "status", "lastTransitionTime", "reason", "message"],
    "properties": {
        "type": {"type": "string", "maxLength": 316},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "message": {"type": "string", "maxLength": MAX_MESSAGE_LENGTH},
    },
}
_STATUS: Final[Schema] = {
    "observedGeneration": {
        "type": "integer",
        "format": "int64",
        "description": "Of which generation all this is said.",
    },
    "phase": {"type": "string", "description": "In one word, for people: the conditions say it for programs."},
    "conditions": {
        "type": "array",
        "description": "Accepted: the server takes it, or why not. Ready: it is served as it says (models alone).",
        "maxItems": MAX_CONDITIONS,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": _CONDITION,
    },
}
_MODEL_STATUS: Final[Schema] = {
    **_STATUS,
    "replicas": {
        "type": "object",
        "description": "How many there are.",
        "properties": {
            "ready": {"type": "integer", "format": "int64", "description": "That get requests."},
            "wanted": {"type": "integer", "format": "int64", "description": "That there shall be."},
        },
    },
    "lastDecision": {
        "type": "object",
        "description": "The last decision that changed how many there shall be.",
        "properties": {
            "replicas": {"type": "integer", "format": "int64"},
            "reason": {"type": "string", "maxLength": MAX_REASON_LENGTH},
            "at": {"type": "string", "format": "date-time"},
        },
    },
}
_PHASE: Final = {"name": "Phase", "type": "string", "jsonPath": ".status.phase"}
_WHY_NOT: Final = {
    "name": "Problem",
    "type": "string",
    "jsonPath": '.status.conditions[?(@.type=="Accepted")].message',
    "priority": 1,
}
_AGE: Final = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_COLUMNS: Final = {
    MODELS: [
        {"name": "Ready", "type": "integer", "jsonPath": ".status.replicas.ready"},
        {"name": "Wanted", "type": "integer", "jsonPath": ".status.replicas.wanted"},
        _PHASE,
        {"name": "Last reason", "type": "string", "jsonPath": ".status.lastDecision.reason"},
        _AGE,
        _WHY_NOT,
    ],
    TENANTS: [_PHASE, _AGE, _WHY_NOT],
}
_STATUSES: Final = {MODELS: _MODEL_STATUS, TENANTS: _STATUS}


def definition(plural: str) -> dict[str, Any]:
    """The CustomResourceDefinition of `models` or `tenants`."""
    kind = KINDS[plural]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": _COLUMNS[plural],
        "schema": {"openAPIV3Schema": _whole(plural)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "plural": plural,
                "singular": kind.lower(),
                "kind": kind,
                "listKind": f"{kind}List",
                "categories": ["swell"],
            },
            "versions": [version],
        },
    }


def resource_schema(plural: str) -> Schema:
    """The structural schema of a resource's `spec`."""
    found = structural_schema(TYPES[plural], RULES)
    fields = found["properties"]
    for secret in SERVER_SECRETS:
        fields.pop(secret, None)
    said = fields["name"].get("description", "Its name.").rstrip(".")
    fields["name"]["description"] = f"{said}; default: that of the resource."
    found["required"].remove("name")
    if not found["required"]:
        del found["required"]
    return found


def _whole(plural: str) -> Schema:
    return {
        "type": "object",
        "description": TYPES[plural].__doc__,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": resource_schema(plural),
            "status": {"type": "object", "properties": _STATUSES[plural]},
        },
    }
