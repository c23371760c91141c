"""`swell` whose models are scaled by a small reactive policy, so that a test says when replicas come and go.

As many replicas as open requests need, two on each, at once up and at once down, and none after IDLE_SECONDS of quiet.
"""

import functools
from collections.abc import Sequence
from math import ceil

from swell.cli.main import main
from swell.ports.scaler import Scaler
from swell.server import up
from swell.spec import ModelSpec
from swell.state.scaling import Decision, Observation, Option, Pool

PER_REPLICA = 2
IDLE_SECONDS = 1.0


class Reactive:
    """`ports.scaler.Scaler`."""

    def __init__(self, model: ModelSpec, pool: Pool) -> None:
        self.interval_seconds = model.scaling.interval_seconds
        self._bounds = model.replicas
        self._pool = pool
        self._busy_at = -IDLE_SECONDS

    def decide(self, seen: Observation) -> Decision:
        if seen.window is None:
            return self._to(seen, seen.present, "nothing was observed", "hold")
        wanting = seen.window.queued + seen.window.in_flight
        if wanting or seen.window.arrivals:
            self._busy_at = seen.now
        quiet = seen.now - self._busy_at
        needed = ceil(wanting / PER_REPLICA) or int(quiet < IDLE_SECONDS)
        return self._to(seen, needed, f"{wanting} requests are open", "load" if wanting else "idle")

    def _to(self, seen: Observation, needed: int, reason: str, binding: str) -> Decision:
        count = min(max(needed, self._bounds.min), self._bounds.max)
        rejected = (Option(seen.present, "what there is"),) if count != seen.present else ()
        counts = ((self._pool.name, count),)
        return Decision(seen.now, counts, reason, binding, is_hold=count == seen.present, rejected=rejected)


def make(model: ModelSpec, pools: Sequence[Pool]) -> Scaler:
    """Instead of Swell's own policy."""
    return Reactive(model, pools[0])


if __name__ == "__main__":
    up.Parts = functools.partial(up.Parts, make_scaler=make)  # type: ignore[misc,assignment]
    main()
