"""SkyServe's spot placer: which zone gets the next spot replica.

Rules: skypilot sky/serve/spot_placer.py. A zone is avoided after a preemption or a failed start there, until a replica
becomes ready in it, or until fewer than two zones are left.
"""

from collections.abc import Mapping, Sequence

from swell.state.scaling import Pool

FEWEST_ACTIVE = 2


class SpotPlacer:
    """Remembers which zones (pools) took a replica away."""

    def __init__(self, pools: Sequence[Pool]) -> None:
        self._pools = sorted(pools, key=lambda pool: (pool.usd_per_hour, pool.name))
        self._preempted: set[str] = set()

    @property
    def active(self) -> list[Pool]:
        """Zones that are not avoided, cheapest first."""
        return [pool for pool in self._pools if pool.name not in self._preempted]

    def ready(self, pool: str) -> None:
        """A replica became ready there."""
        self._preempted.discard(pool)

    def preempted(self, pool: str) -> None:
        """A replica was taken away there, or did not start."""
        self._preempted.add(pool)
        if len(self.active) < FEWEST_ACTIVE:
            self._preempted.clear()

    def next(self, used: Mapping[str, int]) -> str | None:
        """The cheapest active zone that has no replica, else the cheapest active one with room; None without room.

        `used` counts the replicas of each zone.
        """
        room = [pool for pool in self.active if used.get(pool.name, 0) < pool.max_replicas]
        free = [pool for pool in room if not used.get(pool.name, 0)]
        if free or room:
            return (free or room)[0].name
        return next((pool.name for pool in self._pools if used.get(pool.name, 0) < pool.max_replicas), None)
