"""The kinds of machines that a cluster may give a model's replicas, where the spec names several or allows spot.

Prices and zones are those of the catalogue, latency profiles too: a mix can only be chosen among what is known.
Replicas on demand may be in any zone; spot has a pool for each zone of the cluster's region, since zones lose it apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from swell.errors import UserError
from swell.policy.fit import fit
from swell.policy.parallelism import PIPELINE_PARALLEL, TENSOR_PARALLEL, SplitError, said_sizes, split_over
from swell.ports.provider import Needs
from swell.spec import Engine, KubernetesSpec, ModelSpec
from swell.state import catalogue
from swell.state.accelerators import asked_for
from swell.state.catalogue import Price
from swell.state.model_shapes import SHAPES
from swell.state.replica_runs import RunMarket
from swell.state.scaling import Market, Pool

CLOUDS = {"gke": ["gcp"], "eks": ["aws"], "eks-auto": ["aws"], "aks": ["azure"]}


@dataclass(frozen=True)
class ClusterPool:
    """One kind of machine: what the policy knows of it, what bills count, and what a Pod asks for."""

    pool: Pool
    usd_nanos_per_hour: int
    needs: Needs


def cluster_pools(model: ModelSpec, place: KubernetesSpec, needs: Needs) -> tuple[ClusterPool, ...]:
    """None where all replicas are alike; otherwise at least one, those on demand first, the cheapest of each first.

    Raises UserError where a profile or a price is missing, or the region that spot needs.
    """
    spot = model.spot
    if spot is None and model.accelerators and place.region is not None:
        spot = model.bought_on_spot  # by the rule for batch, where it can be: nobody asked for it outright
    if len(model.accelerators) < 2 and spot is None:
        return ()
    if not model.accelerators:
        raise UserError(f"model {model.name}: spot needs accelerators: name what replicas may run on, such as [L4]")
    allowed = spot is not None and spot.max_fraction > 0
    markets = [Market.ON_DEMAND, *([Market.SPOT] if allowed else [])]
    if place.market is not None:
        markets = [Market(place.market)]
    if Market.SPOT in markets and place.region is None:
        raise UserError(
            f"model {model.name}: spot is bought zone by zone; say where the cluster is, in region of {place.name}"
        )
    clouds, regions = CLOUDS.get(place.platform), [place.region] if place.region else None
    known = catalogue.pools_for(
        model.source or model.name,
        model.accelerators,
        markets=markets,
        clouds=clouds,
        regions=regions,
        start_seconds=model.start_seconds,
    )
    found = [_with_needs(pool, needs, clouds, regions) for pool in known]
    return tuple(sorted(found, key=lambda each: (each.pool.market is Market.SPOT, each.usd_nanos_per_hour)))


def with_parallelism(model: ModelSpec, needs: Needs) -> ModelSpec:
    """vLLM told to use all accelerators of a replica, as far as the spec does not say how.

    Over several nodes layers are dealt out to nodes, but for a slice of TPUs, which is one. Raises UserError for what
    cannot fit, and for what would leave accelerators of several nodes idle.
    """
    if model.engine is not Engine.VLLM or not needs.accelerator:
        return model
    shape = SHAPES.get(catalogue.plain_model(model.source or model.name))
    asked = asked_for(f"{needs.accelerators}x{needs.accelerator}" if needs.accelerators > 1 else needs.accelerator)
    where = f"{needs.nodes} nodes of " if needs.nodes > 1 else ""
    where = f"model {model.name} on {where}{needs.accelerators} x {needs.accelerator}"
    if shape is not None:
        found = fit(shape, asked, context_tokens=model.context_tokens or 1, nodes=needs.nodes)
        if found.why_not:
            raise UserError(f"{where}: {found.why_not}")
    said = said_sizes(model.engine_args)
    if said is None or (needs.nodes == 1 and TENSOR_PARALLEL in said):
        return model
    try:
        split = split_over(said, needs.accelerators, needs.nodes, shape, is_tpu=asked.accelerator.is_tpu)
    except SplitError as error:
        raise UserError(f"{where}: {error}") from error
    added = [f"{name}={split[name]}" for name in (TENSOR_PARALLEL, PIPELINE_PARALLEL) if name not in said]
    added = [word for word in added if not word.endswith("=1")]
    return model.model_copy(update={"engine_args": (*added, *model.engine_args)}) if added else model


def _with_needs(pool: Pool, needs: Needs, clouds: list[str] | None, regions: list[str] | None) -> ClusterPool:
    kind, count = pool.profile.accelerator, pool.profile.accelerator_count
    is_spot = pool.market is Market.SPOT
    among: Iterable[Price] = catalogue.prices()
    if is_spot:
        among = [price for price in among if (price.zone or price.region or price.cloud) == pool.zone]
    price = catalogue.cheapest(kind, count, pool.market, clouds=clouds, regions=regions, among=among)
    nanos = price.usd_nanos_per_hour(pool.market, count)
    market: RunMarket = "spot" if is_spot else "on_demand"
    asked = replace(
        needs, accelerator=kind, accelerators=count, market=market, zone=price.zone if is_spot else needs.zone
    )
    return ClusterPool(pool, nanos or 0, asked)
