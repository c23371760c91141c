"""Which machines are simulated: pools from the catalogue, on demand and spot, and the weather of the spot market.

On-demand pools come first, the first accelerator's before all: it is what a fleet begins with, and what peers that know
one kind of machine scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from swell.errors import UserError
from swell.policy.scaling.placement_problem import PlacementRules
from swell.simulator.spot import NodeEvent, SpotMarket, market_for, read_node_events, replay_market
from swell.spec import ModelSpec
from swell.state.catalogue import load_prices, load_profiles, pools_for
from swell.state.scaling import Market, Pool

AFTER_SECONDS = 7200.0  # that a market goes on after the trace's last request


@dataclass(frozen=True)
class Bought:
    """How machines are bought; None where nothing was said."""

    accelerators: tuple[str, ...] | None = None  # such as `L4` or `4xH100`
    spot: bool | None = None
    spot_events: Path | None = None  # a recording that spot follows
    max_spot_fraction: float | None = None
    on_demand_base: int | None = None
    usd_per_hour: float | None = None

    @property
    def wants_spot(self) -> bool | None:
        """Whether spot may be bought, by what was said."""
        implied = self.spot_events is not None or self.max_spot_fraction is not None
        return True if self.spot is None and implied else self.spot


def pools_of(
    model: str,
    accelerators: Sequence[str],
    *,
    spot: bool,
    spot_is_needed: bool = True,
    start_seconds: float,
    profiles: Path | None,
    prices: Path | None,
) -> tuple[Pool, ...]:
    """Every way to get a replica. UserError where there is no profile or price."""
    markets = (Market.ON_DEMAND, Market.SPOT) if spot else (Market.ON_DEMAND,)
    pools = pools_for(
        model,
        list(dict.fromkeys(accelerators)),
        markets=markets,
        start_seconds=start_seconds,
        known_profiles=None if profiles is None else load_profiles(profiles),
        known_prices=None if prices is None else load_prices(prices),
    )
    if spot and spot_is_needed and not any(pool.market is Market.SPOT for pool in pools):
        raise UserError(f"no spot price of {', '.join(accelerators)} is listed; leave --spot out or add your --prices")
    return tuple(sorted(pools, key=lambda pool: pool.market is Market.SPOT))


def market_of(pools: Sequence[Pool], events: Path | None, seconds: float, seed: int) -> SpotMarket | None:
    """The spot market of a trace so long: zones of typical length and correlation, or a recording; None without spot.

    A recording that names no zones happens in every zone, with beginnings spread evenly over it.
    """
    spot = [pool for pool in pools if pool.market is Market.SPOT]
    horizon = seconds + AFTER_SECONDS
    if not spot:
        return None
    if events is None:
        return market_for(spot, seed=seed, horizon_seconds=horizon)
    recorded = _in_pools(read_node_events(events), spot, events)
    return replay_market(recorded, zones=[pool.name for pool in spot], horizon_seconds=horizon)


def _in_pools(events: Sequence[NodeEvent], spot: Sequence[Pool], path: Path) -> list[NodeEvent]:
    """Each event once for every pool that is in its zone. UserError where a zone has no pool."""
    unknown = sorted({event.zone for event in events if event.zone} - {name for p in spot for name in (p.name, p.zone)})
    if unknown:
        known = ", ".join(dict.fromkeys(pool.zone for pool in spot))
        raise UserError(
            f"{path} records the zones {', '.join(unknown)}, where no spot machine is listed; name zones among "
            f"{known}, or leave the column out: then it happens in every zone"
        )
    found = [event for event in events if not event.zone]
    for pool in spot:
        there = (pool.name, pool.zone)
        found += [replace(event, zone=pool.name) for event in events if event.zone and event.zone in there]
    return found


def spot_is_wanted(bought: Bought, declared: ModelSpec | None) -> bool:
    """By what was said outright, else by the model in the file."""
    if bought.wants_spot is not None:
        return bought.wants_spot
    spot = None if declared is None else declared.bought_on_spot
    return spot is not None and spot.max_fraction > 0


def spot_is_needed(bought: Bought, declared: ModelSpec | None) -> bool:
    """Whether somebody said so, and not only the rule for batch: then a spot price must be listed."""
    return bool(bought.wants_spot) or (declared is not None and declared.spot is not None)


def rules_of(bought: Bought, declared: ModelSpec | None) -> PlacementRules:
    """How the mix may be made. UserError where what was said contradicts."""
    if bought.spot is False and (bought.spot_events is not None or bought.max_spot_fraction is not None):
        raise UserError("--no-spot contradicts --spot-events and --max-spot-fraction; leave one of them out")
    spec = None if declared is None else declared.bought_on_spot
    fraction, base = bought.max_spot_fraction, bought.on_demand_base
    if fraction is None:
        fraction = 1.0 if spec is None else spec.max_fraction
    if base is None:
        base = 0 if spec is None else spec.ondemand_base
    return PlacementRules(on_demand_base=base, max_spot_fraction=fraction, usd_per_hour=bought.usd_per_hour)
