"""The ways in which a running server gets a replica of a model: a pool each, and the fleet's workload behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from swell.spec import Engine, ModelSpec
from swell.state import catalogue
from swell.state.accelerators import asked_for
from swell.state.scaling import LatencyProfile, Pool
from swell.units import usd_nanos

LOCAL = "process"  # the only pool of a model whose replicas are all alike


@dataclass(frozen=True)
class LivePool:
    """What the policy knows of it, the fleet's workload whose count is set, and what bills count."""

    pool: Pool
    workload: str
    usd_nanos_per_hour: int  # of one replica; `pool.usd_per_hour` is the nearest float, for choosing only


PoolsByModel = Mapping[str, Sequence[LivePool]]
NO_POOLS: PoolsByModel = MappingProxyType({})


def pools_of(model: ModelSpec, known: PoolsByModel) -> tuple[LivePool, ...]:
    """All ways to get a replica of a model: those of its place, or else the one of this machine."""
    return tuple(known.get(model.name) or (own_pool(model),))


def own_pool(model: ModelSpec) -> LivePool:
    """Replicas that are all alike, at the price that the spec gives for one."""
    price = model.usd_per_replica_hour
    return LivePool(local_pool(model), model.name, 0 if price is None else usd_nanos(price))


def advised_pool(model: ModelSpec) -> LivePool | None:
    """Replicas that somebody else runs on the accelerator that the spec names: how fast one is, by its latency profile.

    None where it names none. Raises UserError where there is no profile.
    """
    if not model.accelerators:
        return None
    asked = asked_for(model.accelerators[0])
    profile = catalogue.find_profile(model.upstream_model or model.name, asked.kind, asked.count)
    own = own_pool(model)
    pool = Pool(profile.name.rpartition("@")[2], profile, 0.0, model.start_seconds)
    return LivePool(pool, own.workload, own.usd_nanos_per_hour)


def local_pool(model: ModelSpec) -> Pool:
    """Replicas as processes on this machine: they cost nothing, and how fast they are is a modest guess.

    For llama.cpp: a small model in four bits on a few CPU cores. For vLLM: an 8B model on one mid-range GPU.
    """
    sequences = model.parallel or model.max_in_flight
    if model.engine is Engine.LLAMA_CPP:
        profile = LatencyProfile(
            model.name, "cpu", 1,
            prefill_fixed_ms=20.0, prefill_ms_per_token=2.0, prefill_ms_per_token2=0.0,
            step_fixed_ms=20.0, step_ms_per_sequence=8.0, step_ms_per_context_token=0.0,
            kv_tokens=sequences * (model.context_tokens or 2048), max_sequences=sequences, chunk_tokens=2048,
            source="a guess: a small model in four bits on a few cores",
        )  # fmt: skip
    else:
        profile = LatencyProfile(
            model.name, "gpu", 1,
            prefill_fixed_ms=20.0, prefill_ms_per_token=0.12, prefill_ms_per_token2=0.0,
            step_fixed_ms=30.0, step_ms_per_sequence=0.1, step_ms_per_context_token=0.0005,
            kv_tokens=100_000, max_sequences=sequences,
            source="a guess: an 8B model on one mid-range GPU",
        )  # fmt: skip
    return Pool(LOCAL, profile, 0.0, model.start_seconds)
