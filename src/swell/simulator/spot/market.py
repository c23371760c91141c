"""The contract of a spot market, and the one implementation: a fixed sequence of events."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from swell.state.scaling import Market, Pool

NOTICE_SECONDS = 120.0  # of AWS; GCP and Azure give 30


class SpotEventKind(StrEnum):
    """What happens to a zone."""

    UP = "up"
    DOWN = "down"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class SpotEvent:
    """At `at` seconds, `nodes` replicas of room come to a zone or leave it, or as many running replicas get notice."""

    at: float
    zone: str  # a pool's zone or, where types differ within a zone, a pool's name
    kind: SpotEventKind
    nodes: int


class SpotMarket(Protocol):
    """What a simulated fleet asks. The package says how it is used."""

    @property
    def notice_seconds(self) -> float:
        """From a kill to the end of the replica."""

    def available(self, pool: Pool, now: float) -> int:
        """How many replicas of `pool` can be held at `now`, those that are held included. No side effect.

        On-demand pools have all that they may have. ValueError for a spot pool in a zone that the market does not know.
        """

    def room_of(self, pool: Pool) -> str:
        """The key of the zone whose room the pool shares with every other pool of that key."""

    def next_event(self) -> SpotEvent | None:
        """The next event in order of time; None when there are no more."""

    def restarted(self) -> Self:
        """The same events from the beginning; this one's place is left as it is."""


def is_of(event: SpotEvent, pool: Pool) -> bool:
    """Whether the event is about the zone that the pool is in."""
    return pool.market is Market.SPOT and event.zone in (pool.name, pool.zone)


class Timeline:
    """A market whose events are all known. Capacity starts at 0 and is what the UP and DOWN events add up to."""

    def __init__(
        self, zones: Iterable[str], events: Iterable[SpotEvent], notice_seconds: float = NOTICE_SECONDS
    ) -> None:
        """`events` in order of time. ValueError where they are not, or one takes more than there is."""
        self._events = tuple(events)
        self._notice_seconds = notice_seconds
        self._place = 0
        self._capacity = _capacity(zones, self._events)

    @property
    def notice_seconds(self) -> float:
        """From a kill to the end of the replica."""
        return self._notice_seconds

    @property
    def zones(self) -> tuple[str, ...]:
        """Every zone's key."""
        return tuple(self._capacity)

    @property
    def events(self) -> tuple[SpotEvent, ...]:
        """All of them, in order."""
        return self._events

    def available(self, pool: Pool, now: float) -> int:
        """See `SpotMarket.available`."""
        if pool.market is not Market.SPOT:
            return pool.max_replicas
        key = self.room_of(pool)
        if key not in self._capacity:
            known = ", ".join(self._capacity)
            raise ValueError(f"the spot market has no zone {pool.zone!r} for pool {pool.name}; it has {known}")
        return min(pool.max_replicas, self.capacity(key, now))

    def room_of(self, pool: Pool) -> str:
        """See `SpotMarket.room_of`."""
        return pool.name if pool.name in self._capacity else pool.zone

    def capacity(self, zone: str, now: float) -> int:
        """How many replicas a zone has room for at `now`."""
        times, nodes = self._capacity[zone]
        index = bisect_right(times, now)
        return nodes[index - 1] if index else 0

    def next_event(self) -> SpotEvent | None:
        """See `SpotMarket.next_event`."""
        if self._place == len(self._events):
            return None
        self._place += 1
        return self._events[self._place - 1]

    def restarted(self) -> "Timeline":
        """See `SpotMarket.restarted`."""
        fresh = object.__new__(Timeline)
        fresh._events, fresh._capacity, fresh._notice_seconds = self._events, self._capacity, self._notice_seconds
        fresh._place = 0
        return fresh


def _capacity(zones: Iterable[str], events: Iterable[SpotEvent]) -> Mapping[str, tuple[list[float], list[int]]]:
    found: dict[str, tuple[list[float], list[int]]] = {zone: ([], []) for zone in zones}
    last = 0.0
    for event in events:
        if event.at < last or event.nodes < 1:
            raise ValueError(f"spot events must be in order of time and of at least one node: {event}")
        last = event.at
        if event.kind is SpotEventKind.KILL:
            continue
        times, nodes = found[event.zone]
        now = (nodes[-1] if nodes else 0) + (event.nodes if event.kind is SpotEventKind.UP else -event.nodes)
        if now < 0:
            raise ValueError(f"more nodes leave zone {event.zone} than it has: {event}")
        times.append(event.at)
        nodes.append(now)
    return found
