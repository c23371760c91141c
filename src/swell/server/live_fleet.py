"""One model's replicas as the autoscaler sees and orders them: `ports.scaled_fleet.ScaledFleet` on the real fleet.

The replicas it shows that count, starting or ready, are always as many as the fleet was told to have, so that every
order is relative to what was seen: what was ordered and has no place yet is shown as starting, and what was let go as
draining, from the moment on that it was said.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from swell.control.decide import LEAVING
from swell.control.fleet import Fleet
from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.state.funding import Funding
from swell.state.messages import Load
from swell.state.replica import Phase
from swell.state.scaling import Observation, ReplicaState, ReplicaView, Window

AWAY_SECONDS = 86_400.0  # since when one seems to be ordered that cannot begin: longer than any start takes
_ORDERED = "ordered-"  # begins the ids of replicas that have no place yet; then their number and their pool

_Open = tuple[dict[str, int], dict[str, int]]


class LiveFleet:
    """The replicas of one model. `workloads` has the fleet's workload of each pool, by the pool's name."""

    def __init__(
        self,
        workloads: Mapping[str, str],
        fleet: Fleet,
        window: Callable[[float], Window | None],
        loads: Callable[[], Mapping[str, Load]],
        unix: Callable[[], float],
        drain_seconds: float,
        funding: Callable[[Sequence[ReplicaView], float], Funding | None] = lambda views, now: None,
    ) -> None:
        self._workloads = dict(workloads)
        self._fleet = fleet
        self._window = window
        self._loads = loads
        self._unix = unix
        self._drain_seconds = drain_seconds
        self._funding = funding
        self._engines: dict[str, tuple[int, float]] = {}
        self.seen = Observation(0.0, None, ())

    def engine_says(self, replica_id: str, waiting: int, kv_used: float) -> None:
        """What a replica's own metrics say; it is shown until it says something else."""
        self._engines[replica_id] = waiting, kv_used

    def observe(self, now: float) -> Observation:
        """What there is now, and what happened since the last call."""
        window = self._window(now)
        views = self.views(now, self._loads())
        self._engines = {view.replica_id: self._engines.get(view.replica_id, (0, 0.0)) for view in views}
        self.seen = Observation(now, window, views, self._unix(), self._funding(views, now))
        return self.seen

    def views(self, now: float, loads: Mapping[str, Load]) -> tuple[ReplicaView, ...]:
        """The replicas, as they are shown under what workers report."""
        return tuple(self._views(now, loads))

    def start(self, pool: str, count: int) -> None:
        """Order `count` more of a pool; of one that there is no more, none."""
        if pool in self._workloads:
            self._change_count(pool, count)

    def drain(self, replica_id: str) -> None:
        """Let one go, or take an order back that has no place yet."""
        if replica_id.startswith(_ORDERED):
            self._change_count(replica_id.removeprefix(_ORDERED).partition("-")[2], -1)
        else:
            self._fleet.drain(replica_id, drain_seconds=self._drain_seconds)

    def _change_count(self, pool: str, by: int) -> None:
        name = self._workloads[pool]
        self._fleet.set_count(name, max(0, self._fleet.workload(name).count + by))

    def _views(self, now: float, loads: Mapping[str, Load]) -> Iterator[ReplicaView]:
        open_requests = _open_requests(loads)
        of_workload: dict[str, list[Replica]] = {}
        for replica in self._fleet.replicas:
            of_workload.setdefault(replica.workload, []).append(replica)
        for pool, name in self._workloads.items():
            yield from self._of_pool(pool, self._fleet.workload(name), of_workload.get(name, []), now, open_requests)

    def _of_pool(
        self, pool: str, workload: Workload, replicas: Sequence[Replica], now: float, open_requests: _Open
    ) -> Iterator[ReplicaView]:
        in_flight, tokens = open_requests
        missing = workload.count
        for replica in replicas:
            state = self._state(replica, workload.fingerprint)
            missing -= state is not ReplicaState.DRAINING
            waiting, kv_used = self._engines.get(replica.child_id, (0, 0.0))
            yield ReplicaView(
                replica_id=replica.child_id,
                pool=pool,
                state=state,
                since=now if is_going_yet(state, replica) else replica.since,
                in_flight=in_flight.get(replica.child_id, 0),
                waiting=waiting,
                outstanding_tokens=tokens.get(replica.child_id, 0),
                kv_used=kv_used,
                ordered_at=now - AWAY_SECONDS if self._is_away(replica) else replica.ordered_at,
            )
        for number in range(max(0, missing)):
            yield ReplicaView(f"{_ORDERED}{number}-{pool}", pool, ReplicaState.STARTING, now, ordered_at=now)

    def _is_away(self, replica: Replica) -> bool:
        """Whether nobody need wait for it: it cannot begin before its place answers."""
        return replica.phase is Phase.PENDING and replica.provider in self._fleet.awaited

    def _state(self, replica: Replica, fingerprint: str) -> ReplicaState:
        """A failed one is started again, so it counts as starting; one of an older spec is on its way out."""
        if not self._fleet.stays(replica) or replica.fingerprint != fingerprint:
            return ReplicaState.DRAINING
        return ReplicaState.READY if replica.phase is Phase.READY else ReplicaState.STARTING


def is_going_yet(state: ReplicaState, replica: Replica) -> bool:
    """Shown as draining, though it does not yet: its time to drain has not begun."""
    return state is ReplicaState.DRAINING and replica.phase not in LEAVING


def _open_requests(loads: Mapping[str, Load]) -> _Open:
    """Requests and their tokens' bounds by replica, over all workers."""
    in_flight: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for load in loads.values():
        for replica in load.replicas:
            in_flight[replica.replica_id] = in_flight.get(replica.replica_id, 0) + replica.in_flight
            tokens[replica.replica_id] = tokens.get(replica.replica_id, 0) + replica.outstanding_tokens
    return in_flight, tokens
