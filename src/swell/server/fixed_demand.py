"""How many replicas models of a fixed number would need: the scaling policy's own forecast. Nothing of it is applied.

Each model has its turn as one that scales has, on the same reports, by the same policy bounded to the number that there
is. So where it needs more, the decision says that the ceiling bound.
"""

from collections.abc import Callable, Collection, Sequence

from swell.clock import Clock
from swell.control.fleet import Fleet
from swell.server.live_fleet import LiveFleet
from swell.server.live_pools import local_pool
from swell.server.loops import Loop
from swell.server.scaling import MakeScaler, served_names
from swell.server.signals import Signals
from swell.spec import ModelSpec
from swell.state.messages import Load
from swell.state.scaling import Decision


class FixedDemand:
    """Made once per server. `decided` gets what would be decided of each of `models`."""

    def __init__(
        self,
        models: Sequence[ModelSpec],
        fleet: Fleet,
        clock: Clock,
        *,
        living: Callable[[], Collection[str]],
        make_scaler: MakeScaler,
        decided: Callable[[str, Decision], None],
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._living = living
        self._make_scaler = make_scaler
        self._decided = decided
        names = {name: model.name for model in models for name in served_names(model)}
        self._signals = Signals(names, clock.monotonic())
        self.loops = tuple(self._loop(model) for model in models)

    def report(self, incarnation: str, load: Load) -> None:
        """Take a worker's report."""
        self._signals.report(incarnation, load, self._clock.monotonic())

    def _loop(self, model: ModelSpec) -> Loop:
        pool = local_pool(model)
        scaler = self._make_scaler(model, (pool,))
        fleet = LiveFleet(
            {pool.name: model.name},
            self._fleet,
            lambda now: self._signals.window(model.name, self._living(), now, scaler.interval_seconds),
            dict,
            self._clock.unix,
            model.scaling.drain_seconds,
        )

        async def step(now: float) -> None:
            self._signals.forget(self._living())
            if not self._signals.is_awaited(model.name, self._living(), now):
                self._decided(model.name, scaler.decide(fleet.observe(now)))

        return Loop(f"demand of {model.name}", step, scaler.interval_seconds, self._clock)
