"""What the user declares about a model: where it comes from, what runs it, how many replicas, how it is limited."""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from swell.spec.aliases import AliasTable
from swell.spec.base import Conflict, Count, LocalPath, Seconds, SpecModel, Text
from swell.spec.budgets import InfrastructureBudgets
from swell.spec.endpoints import Endpoint
from swell.spec.money import Usd
from swell.spec.objectives import ObjectivesSpec, ScalingSpec, SpotSpec
from swell.spec.replicas import ReplicaRange, leaves_a_choice
from swell.spec.tenants import Priority, TenantName

SOURCE_SCHEMES = ("hf", "s3", "gs", "file", "pypi")

MAX_MODELS = 1000
MAX_ENDPOINTS = 1000
MAX_ACCELERATORS = 16
MAX_NODES = 64  # of one replica
MAX_USD_PER_REPLICA_HOUR = 100_000


class Engine(StrEnum):
    """What serves a model. `auto` is resolved while parsing, so a checked spec never holds it."""

    AUTO = "auto"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    EXTERNAL = "external"


class Routing(StrEnum):
    """How a replica is chosen for a request."""

    LEAST_OUTSTANDING_TOKENS = "least_outstanding_tokens"
    PREFIX_AFFINITY = "prefix_affinity"
    SESSION_AFFINITY = "session_affinity"
    ROUND_ROBIN = "round_robin"


ModelName = Annotated[
    Text,
    StringConstraints(
        max_length=200, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*){0,3}(:[A-Za-z0-9._-]+)?$"
    ),
]
Sha256 = Annotated[str, StringConstraints(strict=True, to_lower=True, pattern=r"^[0-9a-fA-F]{64}$")]
HealthPath = Annotated[Text, StringConstraints(pattern=r"^/[^\s?#]*$")]
EnvironmentName = Annotated[Text, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


def resolve_engine(source: object, endpoints: object) -> Engine:
    """The engine that `auto` stands for: endpoints mean external, a GGUF file llama.cpp, anything else vLLM."""
    if endpoints:
        return Engine.EXTERNAL
    if isinstance(source, str) and source.lower().endswith(".gguf"):
        return Engine.LLAMA_CPP
    return Engine.VLLM


def _known_source(value: str, info: ValidationInfo) -> str:
    scheme, separator, rest = value.partition("://")
    if separator and scheme not in SOURCE_SCHEMES:
        known = ", ".join(f"{name}://" for name in SOURCE_SCHEMES)
        raise PydanticCustomError("source_scheme", f"has an unknown scheme; known are {known} and a plain path")
    if separator and not rest.strip("/"):
        raise PydanticCustomError("source_empty", f"names nothing after {scheme}://")
    base = (info.context or {}).get("base")
    if base is None or separator:
        return value
    return str(Path(base, Path(value).expanduser()))


def _named_adapters(value: object) -> object:
    if isinstance(value, Mapping):
        return [{"name": name, "path": path} for name, path in value.items()]
    return value


def _affordable(value: Decimal) -> Decimal:
    if value > MAX_USD_PER_REPLICA_HOUR:
        problem = f"is more than {MAX_USD_PER_REPLICA_HOUR} dollars an hour; is it of a month or a year?"
        raise PydanticCustomError("usd_per_replica_hour", "{problem}", {"problem": problem})
    return value


class LoraAdapter(SpecModel):
    """A LoRA adapter, served under a model name of its own."""

    name: ModelName
    path: LocalPath = Field(description="Folder of the adapter.")


class _ByName:
    """Says in the schema of the adapters' list that they may be a mapping of names to folders."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, handler(schema)]}


LoraAdapters = Annotated[
    tuple[LoraAdapter, ...],
    BeforeValidator(_named_adapters),
    _ByName(),
]
Source = Annotated[Text, AfterValidator(_known_source)]


class MaxTokens(SpecModel):
    """Completion tokens of one choice: what a request without `max_tokens` gets, and the most one may ask for."""

    default: Annotated[Count, Field(ge=1, le=10_000_000)] = 512
    max: Annotated[Count, Field(ge=1, le=10_000_000)] = 8192

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        largest = given.get("max")
        if "default" not in given and type(largest) is int and 0 < largest < 512:
            given["default"] = largest
        return given

    def conflicts(self) -> list[Conflict]:
        if self.default <= self.max:
            return []
        return [("default", f"{self.default} is more than max ({self.max}); lower it or raise max")]


class ModelSpec(SpecModel):
    """One model as clients name it."""

    aliases: ClassVar[AliasTable] = {
        "model_name": ("name",),
        "min_replicas": ("replicas", "min"),
        "max_replicas": ("replicas", "max"),
        "minReplicas": ("replicas", "min"),
        "maxReplicas": ("replicas", "max"),
        "max_model_len": ("context_tokens",),
        "slo": ("objectives",),
    }

    name: ModelName = Field(description="The name clients send, such as `chat` or `org/name:tag`.")
    source: Source | None = Field(default=None, description="hf://, s3://, gs://, file://, pypi:// or a path.")
    sha256: Sha256 | None = Field(default=None, description="Expected SHA-256 of the source's file.")
    engine: Engine = Engine.AUTO
    endpoints: Annotated[tuple[Endpoint, ...], Field(max_length=MAX_ENDPOINTS)] = ()
    health_path: HealthPath | None = Field(
        default=None, description="Answers 200 when ready; default: the engine's own."
    )
    api_key_env: EnvironmentName | None = Field(
        default=None, description="Environment variable with the endpoints' key."
    )
    api_key_file: LocalPath | None = Field(default=None, description="File with the endpoints' key.")
    upstream_model: Text = Field(default="", description="The name the engine knows the model by; default: `name`.")
    provider: TenantName | None = Field(
        default=None, description="Which of `providers` runs its replicas; default: the first."
    )
    replicas: ReplicaRange = ReplicaRange()
    objectives: ObjectivesSpec = ObjectivesSpec()
    scaling: ScalingSpec = ScalingSpec()
    accelerators: Annotated[tuple[Text, ...], Field(max_length=MAX_ACCELERATORS)] = Field(
        default=(), description="What a replica may run on, such as `L4` or `4xH100`: what is cheapest is mixed."
    )
    nodes: Annotated[Count, Field(ge=1, le=MAX_NODES)] = Field(
        default=1, description="Machines that one replica spans, each with its accelerators: vLLM on Kubernetes."
    )
    spot: SpotSpec | None = Field(default=None, description="Whether spot machines may be part of the mix.")
    priority: Priority | None = Field(
        default=None, description="The best class its requests get; batch: all wait for what is idle, spot by rule."
    )
    usd_per_replica_hour: Annotated[Usd, AfterValidator(_affordable)] | None = Field(
        default=None,
        description="What a replica costs an hour on this machine, for `swell costs`; `swell prices own` works it out.",
    )
    minimum_billed_seconds: Annotated[float, Strict(), Field(ge=0, le=3600)] = Field(
        default=0.0, description="A replica is billed for so long at least, on most clouds 60; budgets count it."
    )
    infrastructure_budget: InfrastructureBudgets = Field(
        default=(), description="What its replicas may cost; one budget, or several. Needs usd_per_replica_hour."
    )
    cheaper_variant: ModelName | None = Field(
        default=None, description="A cheaper model that answers where a budget's at_limit says so."
    )
    routing: Routing = Routing.LEAST_OUTSTANDING_TOKENS
    prefix_bytes: Annotated[Count, Field(ge=1, le=65_536)] = 256
    context_tokens: Annotated[Count, Field(ge=64, le=100_000_000)] | None = Field(
        default=None, description="Context of one request; llama.cpp: 2048, others: the engine's own."
    )
    parallel: Annotated[Count, Field(ge=1, le=4096)] | None = Field(
        default=None, description="Requests a replica decodes at once; llama.cpp: 4, others: the engine's own."
    )
    max_in_flight: Annotated[Count, Field(ge=1, le=100_000)] = Field(
        default=256,
        description="Requests sent to one replica at once, over all workers; the rest wait in Swell's queue.",
    )
    max_tokens: MaxTokens = MaxTokens()
    n_max: Annotated[Count, Field(ge=1, le=128)] = Field(
        default=8, description="The largest `n` a request may ask for."
    )
    start_timeout_seconds: Seconds = Field(default=600.0, description="From launch to ready.")
    drain_seconds: Annotated[Seconds, Field(le=3600)] = Field(
        default=30.0, description="Running requests get this to finish."
    )
    lora: LoraAdapters = ()
    engine_args: Annotated[tuple[Text, ...], Field(max_length=256)] = Field(
        default=(), description="Added to the launch line."
    )

    _default_max_in_flight: ClassVar[Mapping[Engine, int]] = {
        Engine.VLLM: 256,  # vLLM's own default of sequences per batch
        Engine.EXTERNAL: 20_000,  # somebody else's endpoints know their own limit
    }
    _usual_start_seconds: ClassVar[Mapping[Engine, float]] = {Engine.LLAMA_CPP: 5.0}

    @property
    def is_launched(self) -> bool:
        """Whether Swell starts its replicas itself."""
        return self.engine is not Engine.EXTERNAL

    @property
    def is_advised(self) -> bool:
        """Whether somebody else runs its replicas, behind one address, as many as Swell decides."""
        return not self.is_launched and self.scales

    @property
    def is_ordered(self) -> bool:
        """Whether its replicas run because Swell wants them: it starts them, or has somebody else do it."""
        return self.is_launched or self.is_advised

    @property
    def scales(self) -> bool:
        """Whether Swell decides how many replicas there are."""
        return self.replicas.min < self.replicas.max

    @property
    def is_batch(self) -> bool:
        """Whether all its requests are of priority batch."""
        return self.priority is Priority.BATCH

    @property
    def bought_on_spot(self) -> SpotSpec | None:
        """How spot may be part of the mix; what is batch alone is had there unless the file says otherwise."""
        is_by_rule = self.is_batch and self.is_launched and self.nodes == 1
        return SpotSpec() if self.spot is None and is_by_rule else self.spot

    @property
    def priceless(self) -> str:
        """Why a budget cannot count what its replicas cost."""
        return "is missing: give what a replica costs an hour" if self.usd_per_replica_hour is None else "is nothing"

    @property
    def why_not_reviewed(self) -> str:
        """Why nobody can say what other machines would cost; empty where that can be said."""
        if self.engine is Engine.EXTERNAL:
            return "somebody else runs it: there are no machines of Swell's to be changed"
        if self.nodes > 1:
            return "its replicas span several machines, which no profile that ships is of"
        if not self.accelerators:
            return (
                "it names no accelerators, so nobody knows what its replicas cost; say what they run on, such as "
                "accelerators: [A100-80GB]"
            )
        return "" if self.replicas.max else "its replicas.max is 0, so it serves nothing"

    @property
    def start_seconds(self) -> float:
        """How long a start takes, as expected."""
        return self.scaling.start_seconds or self._usual_start_seconds.get(self.engine, 120.0)

    @classmethod
    def complete(cls, given: dict[Any, Any]) -> dict[Any, Any]:
        endpoints = given.get("endpoints")
        if given.get("engine", Engine.AUTO) == Engine.AUTO:
            given["engine"] = resolve_engine(given.get("source"), endpoints)
        engine = given["engine"]
        if engine == Engine.LLAMA_CPP:
            given = {"context_tokens": 2048, "parallel": 4, **given}
            if type(given["parallel"]) is int and given["parallel"] > 0:
                given.setdefault("max_in_flight", given["parallel"])
        elif isinstance(engine, str) and engine in cls._default_max_in_flight:
            is_advised = engine == Engine.EXTERNAL and leaves_a_choice(given.get("replicas"))
            usual = Engine.VLLM if is_advised else Engine(engine)
            given.setdefault("max_in_flight", cls._default_max_in_flight[usual])
        if engine == Engine.EXTERNAL and isinstance(endpoints, list | tuple):
            given.setdefault("replicas", {"min": len(endpoints), "max": len(endpoints)})
        if "name" in given:
            given.setdefault("upstream_model", given["name"])
        return given

    def conflicts(self) -> list[Conflict]:
        return self._external_conflicts() if self.engine is Engine.EXTERNAL else self._launched_conflicts()

    def _external_conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        count = len(self.endpoints)
        if not count:
            return [("endpoints", "is missing; engine external needs the URLs of what it routes to")]
        if len(set(self.endpoints)) < count:
            found.append(("endpoints", "names the same URL twice; list each once"))
        if self.is_advised and count > 1:
            problem = f"leaves a choice, and {count} endpoints do not: give one, of a Service in front of all replicas"
            found.append(("replicas", f"{problem}, or leave replicas out, since each endpoint is one"))
        elif not self.is_advised and (self.replicas.min, self.replicas.max) != (count, count):
            found.append(("replicas", f"contradicts {count} endpoints; leave it out, each endpoint is one replica"))
        for field in (
            "source",
            "sha256",
            "context_tokens",
            "engine_args",
            "lora",
            "spot",
            "provider",
        ):
            if getattr(self, field):
                found.append((field, "has no effect on endpoints that somebody else runs; leave it out"))
        if self.nodes > 1:
            found.append(("nodes", "has no effect on endpoints that somebody else runs; leave it out"))
        found += self._advised_conflicts() if self.is_advised else self._unadvised_conflicts()
        if self.api_key_env and self.api_key_file:
            found.append(("api_key_file", "contradicts api_key_env; keep one of them"))
        return found

    def _advised_conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        if len(self.accelerators) > 1:
            problem = "names several, and replicas that somebody else runs behind one address are alike; name one"
            found.append(("accelerators", problem))
        if self.infrastructure_budget and not self.usd_per_replica_hour:
            found.append(("usd_per_replica_hour", f"{self.priceless}; infrastructure_budget counts it"))
        return found

    def _unadvised_conflicts(self) -> list[Conflict]:
        found: list[Conflict] = [
            (field, "has no effect on endpoints that somebody else runs; leave it out")
            for field in ("parallel", "accelerators", "minimum_billed_seconds")
            if getattr(self, field)
        ]
        if self.usd_per_replica_hour is not None:
            problem = "is for replicas that Swell starts; it does not know when endpoints of others run; leave it out"
            found.append(("usd_per_replica_hour", problem))
        if self.infrastructure_budget:
            found.append(("infrastructure_budget", "is for replicas that Swell starts; leave it out"))
        if self.scaling != ScalingSpec():
            found.append(("scaling", "has no effect on endpoints that somebody else runs; leave it out"))
        return found

    def _launched_conflicts(self) -> list[Conflict]:
        found: list[Conflict] = []
        if self.endpoints:
            found.append(
                ("endpoints", f"contradicts engine {self.engine}, which Swell starts itself; use engine external")
            )
        for field in ("api_key_env", "api_key_file"):
            if getattr(self, field):
                found.append((field, "is for engine external; Swell makes the keys of engines it starts"))
        if self.nodes > 1:
            found += self._span_conflicts()
        if self.infrastructure_budget and not self.usd_per_replica_hour:
            found.append(("usd_per_replica_hour", f"{self.priceless}; infrastructure_budget counts it"))
        if self.source is None:
            found.append(("source", f"is missing; engine {self.engine} needs a model, such as hf://org/name"))
        elif self.engine is Engine.VLLM and self.source.lower().endswith(".gguf"):
            found.append(
                ("source", "is a GGUF file, which vLLM does not serve; use engine llama.cpp or a safetensors model")
            )
        elif self.engine is Engine.LLAMA_CPP and re.match(
            r"(hf|pypi|s3|gs)://.*(?<!\.gguf)$", self.source, re.I | re.S
        ):
            found.append(("source", "must end in .gguf: llama.cpp serves one GGUF file"))
        if self.lora and self.engine is not Engine.VLLM:
            found.append(("lora", f"is not supported by engine {self.engine}; use engine vllm"))
        return found

    def _span_conflicts(self) -> list[Conflict]:
        """What a replica over several nodes needs besides a cluster."""
        if self.engine is not Engine.VLLM:
            return [("nodes", f"is {self.nodes}, and engine {self.engine} runs on one node; use engine vllm")]
        if not self.accelerators:
            return [("accelerators", f"is missing; nodes is {self.nodes}: say what each of them has, such as [8xH100]")]
        found: list[Conflict] = []
        if len(self.accelerators) > 1:
            problem = (
                "names several, and a mix is chosen by latency profiles, of which none is of several nodes; keep one"
            )
            found.append(("accelerators", problem))
        if self.spot is not None:
            problem = "is a mix with what is on demand, which replicas over several nodes cannot be; leave it out, and "
            found.append(("spot", f"{problem}say market: spot where the provider is"))
        return found
