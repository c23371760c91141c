"""What the user declares, frozen and checked once: `parse_spec` is the only way from text to these types."""

from swell.spec.default import default_spec
from swell.spec.document import Spec
from swell.spec.models import Engine, LoraAdapter, MaxTokens, ModelSpec, Routing, resolve_engine
from swell.spec.objectives import Late, ObjectivesSpec, ScalingSpec
from swell.spec.parse import check_spec, load_spec, parse_spec, spec_json_schema, with_server
from swell.spec.problems import Problem, SpecRefusedError
from swell.spec.providers import AnyPlace, ContainerSpec, KubernetesSpec, Places, ProcessSpec
from swell.spec.replicas import ReplicaRange
from swell.spec.server import (
    BoundsSpec,
    CustomResourcesSpec,
    GatewaysSpec,
    QueueSeconds,
    ServerSpec,
    TimeoutsSpec,
    TlsSpec,
)
from swell.spec.store import StoreSpec
from swell.spec.tenants import LimitsSpec, Priority, TenantSpec

__all__ = [
    "AnyPlace",
    "BoundsSpec",
    "ContainerSpec",
    "CustomResourcesSpec",
    "Engine",
    "GatewaysSpec",
    "KubernetesSpec",
    "Late",
    "LimitsSpec",
    "LoraAdapter",
    "MaxTokens",
    "ModelSpec",
    "ObjectivesSpec",
    "Places",
    "Priority",
    "Problem",
    "ProcessSpec",
    "QueueSeconds",
    "ReplicaRange",
    "Routing",
    "ScalingSpec",
    "ServerSpec",
    "Spec",
    "SpecRefusedError",
    "StoreSpec",
    "TenantSpec",
    "TimeoutsSpec",
    "TlsSpec",
    "check_spec",
    "default_spec",
    "load_spec",
    "parse_spec",
    "resolve_engine",
    "spec_json_schema",
    "with_server",
]
