"""Port of whatever is scaled: the live fleet of a model, or a simulated one."""

from typing import Protocol

from swell.state.scaling import Observation


class ScaledFleet(Protocol):
    """The replicas of one model. Nothing here blocks: orders are carried out later, and seen in observations."""

    def observe(self, now: float) -> Observation:
        """What there is now, and what happened since the last call."""

    def start(self, pool: str, count: int) -> None:
        """Order `count` more replicas of `pool`."""

    def drain(self, replica_id: str) -> None:
        """Send a replica nothing more, let it finish what it has, then stop it. One that is gone is no error."""
