"""What a spot market had of each pool, tick by tick."""

from typing import cast

import numpy as np

from swell.simulator.bounds.demand import Limits
from swell.simulator.result import Scenario
from swell.simulator.spot.market import SpotEventKind, SpotMarket, is_of
from swell.state.scaling import Market


def known_limits(scenario: Scenario, limits: Limits | None, tick_seconds: float, ticks: int) -> Limits | None:
    """`limits` where given, else what the scenario's spot market says; None where it has none."""
    if limits is not None or scenario.spot is None:
        return limits
    return spot_limits(scenario, tick_seconds, ticks)


def spot_limits(scenario: Scenario, tick_seconds: float, ticks: int) -> Limits:
    """By spot pool: the most replicas that could serve at any moment of each tick, those on notice included.

    Pools that share a zone are each given all of it, which errs on the cheap side.
    """
    market = cast(SpotMarket, scenario.spot).restarted()
    changes = {pool.name: [0.0] for pool in scenario.pools if pool.market is Market.SPOT}
    while (event := market.next_event()) is not None and event.at < ticks * tick_seconds:
        for pool in scenario.pools:
            if event.kind is not SpotEventKind.KILL and is_of(event, pool):
                changes[pool.name].append(event.at)
    limits = {}
    for pool in scenario.pools:
        if pool.name not in changes:
            continue
        most = np.zeros(ticks, dtype=np.int64)
        begins = changes[pool.name]
        for begin, end in zip(begins, [*begins[1:], ticks * tick_seconds], strict=True):
            first, last = int(begin // tick_seconds), int((end + market.notice_seconds) // tick_seconds)
            held = most[first : last + 1]
            np.maximum(held, market.available(pool, begin), out=held)
        limits[pool.name] = most
    return limits
