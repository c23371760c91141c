"""What a model's requests are promised, how its replicas follow the traffic, and how machines for them are bought."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, Strict

from swell.spec.aliases import AliasTable
from swell.spec.base import Count, Seconds, SpecModel

MAX_MILLISECONDS = 7 * 24 * 3600 * 1000.0

Milliseconds = Annotated[float, Strict(), Field(gt=0, le=MAX_MILLISECONDS)]


class Late(StrEnum):
    """What becomes of a waiting request that cannot have its first token in time any more."""

    DEMOTE = "demote"
    REFUSE = "refuse"


class ObjectivesSpec(SpecModel):
    """When a request is well served: its first token and the mean gap between its tokens come in time."""

    aliases: ClassVar[AliasTable] = {
        "time_to_first_token_ms": ("ttft_ms",),
        "tpot_ms": ("itl_ms",),
        "inter_token_latency_ms": ("itl_ms",),
    }

    ttft_ms: Milliseconds = Field(default=5000.0, description="From arrival to the first token, waiting included.")
    ttft_ms_per_1k_prompt_tokens: Annotated[float, Strict(), Field(ge=0, le=MAX_MILLISECONDS)] = Field(
        default=0.0, description="Added to ttft_ms for long prompts."
    )
    itl_ms: Milliseconds = Field(default=100.0, description="Mean time between two tokens of one answer.")
    attainment: Annotated[float, Strict(), Field(ge=0.5, le=0.9999)] = Field(
        default=0.99, description="Share of requests that shall meet both."
    )
    late: Late = Field(
        default=Late.DEMOTE,
        description="A waiting request that cannot meet ttft_ms any more: demote serves it after those of its class "
        "that can, refuse answers 429 with retry-after. Batch is promised no time and is neither.",
    )


class ScalingSpec(SpecModel):
    """How replicas are started and stopped between `replicas.min` and `replicas.max`."""

    aliases: ClassVar[AliasTable] = {
        "pollingInterval": ("interval_seconds",),
        "cooldownPeriod": ("idle_seconds",),
        "scaledown_window": ("idle_seconds",),
    }

    interval_seconds: Annotated[Seconds, Field(ge=0.2, le=3600)] = Field(
        default=5.0, description="How often the number of replicas is decided."
    )
    idle_seconds: Seconds = Field(default=300.0, description="Without requests for so long, the last replica goes.")
    start_seconds: Seconds | None = Field(
        default=None, description="From order to ready, as expected; llama.cpp: 5, others: 120."
    )
    hold_seconds: Seconds = Field(
        default=300.0, description="A request that finds no replica waits so long for one, where replicas.min is 0."
    )
    drain_seconds: Annotated[Seconds, Field(le=24 * 3600)] = Field(
        default=600.0, description="Running requests get this to finish on a replica that is let go."
    )


class SpotSpec(SpecModel):
    """Machines that are cheap because they may be taken away."""

    aliases: ClassVar[AliasTable] = {
        "on_demand_base": ("ondemand_base",),
        "base_ondemand_fallback_replicas": ("ondemand_base",),
    }

    max_fraction: Annotated[float, Strict(), Field(ge=0, le=1)] = Field(
        default=1.0, description="The most of the capacity that may be spot."
    )
    ondemand_base: Annotated[Count, Field(ge=0, le=10_000)] = Field(
        default=0, description="On-demand replicas at least."
    )
