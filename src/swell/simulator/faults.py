"""What goes wrong in a replay: spot capacity that ends, replicas that crash, starts that fail. One seed, one story."""

from collections.abc import Iterable
from math import inf
from random import Random

from swell.simulator.fleet import SECONDS_PER_HOUR, SimReplica
from swell.simulator.result import Scenario
from swell.simulator.spot import SpotEvent, SpotEventKind, is_of
from swell.state.scaling import Market, Pool


class Faults:
    """Decides what fails, and when. The market's events do not depend on the fleet."""

    def __init__(self, scenario: Scenario) -> None:
        self._random = Random(scenario.seed)  # noqa: S311 - a replay must be repeatable
        self._crashes_per_second = scenario.crashes_per_hour / SECONDS_PER_HOUR
        self._failed_starts = scenario.failed_starts
        self._market = None if scenario.spot is None else scenario.spot.restarted()
        self.notice_seconds = 0.0 if self._market is None else self._market.notice_seconds
        self._event: SpotEvent | None = None
        self._advance()

    @property
    def next_at(self) -> float:
        """When the market changes next."""
        return inf if self._event is None else self._event.at

    def take(self) -> SpotEvent:
        """The market's next event."""
        event = self._event
        assert event is not None  # noqa: S101 - `next_at` was finite
        self._advance()
        return event

    def crashes_after(self) -> float:
        """Seconds that a new replica lives; infinity where none crashes."""
        return self._random.expovariate(self._crashes_per_second) if self._crashes_per_second else inf

    def start_fails(self) -> bool:
        """Whether a start ends without a replica."""
        return bool(self._failed_starts) and self._random.random() < self._failed_starts

    def has_capacity(self, pool: Pool, now: float, replicas: Iterable[SimReplica]) -> bool:
        """Whether one more replica of `pool` can be had."""
        if self._market is None or pool.market is not Market.SPOT:
            return True
        market, room = self._market, self._market.room_of(pool)
        taken = sum(r.pool.market is Market.SPOT and market.room_of(r.pool) == room for r in replicas)
        return taken < market.available(pool, now)

    def victims(self, event: SpotEvent, replicas: Iterable[SimReplica]) -> list[SimReplica]:
        """The replicas that a loss takes away."""
        if event.kind is not SpotEventKind.KILL:
            return []
        there = [r for r in replicas if r.pool.market is Market.SPOT and is_of(event, r.pool)]
        return self._random.sample(there, min(event.nodes, len(there)))

    def _advance(self) -> None:
        self._event = None if self._market is None else self._market.next_event()
