"""The scaling loop's one turn, the same live and simulated: observe, decide, apply."""

from collections.abc import Callable, Mapping

from swell.policy.scaling.diff import Start, actions
from swell.policy.scaling.partial import letting_nobody_go
from swell.ports.scaled_fleet import ScaledFleet
from swell.ports.scaler import Scaler
from swell.state.scaling import Decision, Pool


class ScalingLoop:
    """Scales one model's fleet. Between two turns nothing is remembered here: the scaler has the memory."""

    def __init__(
        self,
        fleet: ScaledFleet,
        scaler: Scaler,
        pools: Mapping[str, Pool],
        record: Callable[[Decision], None] = lambda decision: None,
    ) -> None:
        """`record` gets every decision before it is applied; where it raises, nothing is applied."""
        self._fleet = fleet
        self._scaler = scaler
        self._pools = pools
        self._record = record

    def step(self, now: float) -> Decision:
        """One turn."""
        seen = self._fleet.observe(now)
        decision = self._scaler.decide(seen)
        if seen.window is not None and seen.window.is_partial:
            decision = letting_nobody_go(decision, seen.replicas)
        self._record(decision)
        for action in actions(decision, seen.replicas, self._pools):
            if isinstance(action, Start):
                self._fleet.start(action.pool, action.count)
            else:
                self._fleet.drain(action.replica_id)
        return decision
