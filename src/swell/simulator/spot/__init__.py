"""Spot markets of the simulator: what capacity there is, when it comes back, and when running replicas are taken away.

A market is a sequence of events in time order, fixed by its seed before the replay begins, so that every policy meets
the same weather. How a simulated fleet uses one:

1. `market = scenario.spot.restarted()` at the start of a replay: the same events, from the beginning.
2. To start a replica of a spot pool at `now`, there must be fewer than `market.available(pool, now)` of the pool's
   replicas (starting, ready, or given notice, all count); otherwise the order fails for want of capacity.
3. `event = market.next_event()` until it is None. `UP`: the zone has `nodes` more. `DOWN`: `nodes` fewer can be had;
   what runs is left alone. `KILL`: `nodes` of the replicas that run in the zone, or all where fewer run, get notice
   at `event.at` and are gone `market.notice_seconds` later. A loss is a `DOWN` and a `KILL` of the same moment, in
   this order.
4. `is_of(event, pool)` says whether a pool is in the zone of an event.

Capacity counts replicas. Pools that share a zone's key share its capacity, which `available` cannot see: the fleet
counts the replicas of all of them.

Markets come from `market_for` (typical zones for some pools), `semi_markov_market` (zones with run lengths of their
own, correlated by `couple`) and `replay_market` (recordings).
"""

from swell.simulator.spot.calibrate import SHARED_ACROSS_REGIONS, SHARED_WITHIN_REGION, Coupling, couple
from swell.simulator.spot.market import NOTICE_SECONDS, SpotEvent, SpotEventKind, SpotMarket, Timeline, is_of
from swell.simulator.spot.replay import NodeEvent, read_node_events, replay_market
from swell.simulator.spot.runs import Family, Runs
from swell.simulator.spot.semi_markov import Shock, Zone, semi_markov_market
from swell.simulator.spot.typical import market_for, typical_zones

__all__ = [
    "NOTICE_SECONDS",
    "SHARED_ACROSS_REGIONS",
    "SHARED_WITHIN_REGION",
    "Coupling",
    "Family",
    "NodeEvent",
    "Runs",
    "Shock",
    "SpotEvent",
    "SpotEventKind",
    "SpotMarket",
    "Timeline",
    "Zone",
    "couple",
    "is_of",
    "market_for",
    "read_node_events",
    "replay_market",
    "semi_markov_market",
    "typical_zones",
]
