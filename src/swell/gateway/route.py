"""A model's replicas with their load, and the requests that wait for one."""

from collections import deque
from collections.abc import Callable
from math import ceil
from typing import Protocol

from swell.gateway.tally import Tally
from swell.policy.ejection import HEALTHY, Health, failed, gave_up, may_send, sent, succeeded
from swell.policy.queueing import PRIORITIES, next_class
from swell.policy.routing import POLICIES, Choose, Request, View, build_view, key_hash
from swell.state.snapshot import ModelEntry, ReplicaEntry

UNLIMITED_TOKENS = 2**62


class Connector(Protocol):
    """Connections to one replica."""

    def close(self) -> None:
        """Close the idle ones; busy ones finish."""


class Waiting(Protocol):
    """A request in a queue."""

    tokens_bound: int
    started: float

    @property
    def is_choosy(self) -> bool:
        """Whether it may find no room where others would."""

    def replica_free(self) -> bool:
        """Try to go out now; False if it still finds no room."""


class Replica:
    """One replica as this worker knows it: load, health and connections."""

    __slots__ = (
        "clock",
        "connector",
        "entry",
        "heads",
        "health",
        "in_flight",
        "limit",
        "most_tokens",
        "outstanding_tokens",
        "replica_id",
        "speed",
    )

    def __init__(self, entry: ReplicaEntry, clock: Callable[[], float], connector: Connector) -> None:
        self.entry = entry
        self.replica_id = entry.replica_id
        self.clock = clock
        self.connector = connector
        self.in_flight = 0
        self.outstanding_tokens = 0
        self.limit = entry.max_in_flight
        self.speed = 1.0  # replicas of one process provider are alike
        self.most_tokens = UNLIMITED_TOKENS
        self.health: Health = HEALTHY
        self.heads: dict[str, bytes] = {}  # request heads by path, up to the request id's value

    @property
    def has_room(self) -> bool:
        """Whether a request may be sent: below its limit, and not ejected or due for a probe."""
        return self.in_flight < self.limit and (self.health is HEALTHY or may_send(self.health, self.clock()))

    def acquire(self, tokens: int) -> Callable[[], None]:
        """Book a request of `tokens` outstanding tokens; the result releases it, once."""
        self.in_flight += 1
        self.outstanding_tokens += tokens
        if self.health is not HEALTHY:
            self.health = sent(self.health)
        held = True

        def release() -> None:
            nonlocal held
            if held:
                held = False
                self.in_flight -= 1
                self.outstanding_tokens -= tokens

        return release

    def answered(self) -> None:
        """It answered in time."""
        if self.health is not HEALTHY:
            self.health = succeeded(self.health)

    def failed(self) -> None:
        """It did not answer, or wrongly."""
        self.health = failed(self.health, self.clock())

    def undecided(self) -> None:
        """The client left before it could answer."""
        if self.health is not HEALTHY:
            self.health = gave_up(self.health)


class ModelRoute:
    """Routing and queueing for one model."""

    __slots__ = (
        "_choose",
        "_only",
        "_served",
        "_serving",
        "_turn",
        "entry",
        "is_held",
        "leaving",
        "name",
        "queued",
        "queues",
        "replicas",
        "tally",
        "view",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.entry = ModelEntry(name=name, upstream_model=name, endpoints=())
        self.replicas: dict[str, Replica] = {}
        self.leaving: list[Replica] = []  # routed to no more; some of their requests still run
        self.is_held = False  # the server knows that requests wait for the first replica
        self.tally = Tally()
        self.view: View = build_view(())
        self.queues: dict[str, deque[Waiting]] = {name: deque() for name in PRIORITIES}
        self._choose: Choose = POLICIES["least_outstanding_tokens"]
        self._turn = 0
        self._served: dict[str, int] = {}
        self._serving = False
        self._only: Replica | None = None
        self.queued = 0

    def update(self, entry: ModelEntry, workers: int, make_replica: Callable[[ReplicaEntry], Replica]) -> None:
        """Take over a new entry. A replica whose address is unchanged keeps its load and connections."""
        self.entry = entry
        self._choose = POLICIES.get(entry.routing, POLICIES["least_outstanding_tokens"])
        known, self.replicas = self.replicas, {}
        for replica_entry in entry.replicas:
            replica = known.get(replica_entry.replica_id)
            if replica is None or _address(replica.entry) != _address(replica_entry):
                replica = make_replica(replica_entry)
            else:
                known.pop(replica_entry.replica_id)
                replica.entry = replica_entry
            replica.limit = max(1, ceil(replica_entry.max_in_flight / workers))
            self.replicas[replica_entry.replica_id] = replica
        for gone in known.values():
            gone.connector.close()
        self.leaving += known.values()
        if self.replicas:
            self.is_held = False
        self.view = build_view(tuple(self.replicas.values()))
        self._only = next(iter(self.replicas.values()), None)
        self.serve_queue()

    def retire(self) -> None:
        """The model is gone; running requests finish."""
        for replica in self.replicas.values():
            replica.connector.close()
        self.replicas = {}
        self.view = build_view(())

    def reported(self) -> list[Replica]:
        """The replicas that the server is to know of: also those that are let go and have requests open."""
        self.leaving = [replica for replica in self.leaving if replica.in_flight]
        return [*self.replicas.values(), *self.leaving]

    def oldest_wait(self, now: float) -> float:
        """How long the one that waits longest has waited since it arrived."""
        return now - min((queue[0].started for queue in self.queues.values() if queue), default=now)

    def choose(self, prefix: bytes, session: bytes, *, avoid: frozenset[str] = frozenset()) -> Replica | None:
        """A replica with room, by the model's policy. `avoid` names replicas that failed this request."""
        view = self.view
        if len(view.candidates) == 1 and not avoid:  # nothing to choose
            only = self._only
            if only is None or only.in_flight >= only.limit or (only.health is not HEALTHY and not only.has_room):
                return None
            return only
        self._turn += 1
        request = Request(key_hash(prefix) if prefix else 0, key_hash(session) if session else 0, self._turn)
        if avoid:
            view = build_view(tuple(c for c in view.candidates if c.replica_id not in avoid))
        chosen = self._choose(view, request)
        return None if chosen is None else self.replicas[chosen.replica_id]

    def failing(self, names: frozenset[str]) -> frozenset[str]:
        """Those of `names` that are still here and have not answered since they failed."""
        return frozenset(n for n in names if n in self.replicas and self.replicas[n].health is not HEALTHY)

    def enqueue(self, priority: str, waiting: Waiting, *, first: bool = False) -> None:
        """Let a request wait; `first` for one that had a replica already."""
        queue = self.queues[priority]
        if first:
            queue.appendleft(waiting)
        else:
            queue.append(waiting)
        self.queued += 1

    def leave(self, priority: str, waiting: Waiting) -> None:
        """A request waits no longer."""
        if waiting in self.queues[priority]:
            self.queues[priority].remove(waiting)
            self.queued -= 1

    def serve_queue(self) -> None:
        """Send out what waits, while there is room."""
        if self._serving:
            return  # what is sent out may end at once and free its place: the turn below goes on with it
        self._serving = True
        try:
            self._serve_classes()
        finally:
            self._serving = False

    def _serve_classes(self) -> None:
        stuck: set[str] = set()  # classes in which everybody waits for a certain replica
        while self.queued:
            waiting = {name: len(queue) for name, queue in self.queues.items() if name not in stuck}
            name = next_class(waiting, self._served)
            if name is None:
                return
            queue = self.queues[name]
            for place in range(len(queue)):
                request = queue[place]
                if request.replica_free():
                    self._served[name] = self._served.get(name, 0) + 1
                    break
                if not request.is_choosy:
                    return  # no replica has room
            else:
                stuck.add(name)
        self._served.clear()


def _address(entry: ReplicaEntry) -> tuple[str, int, bool, str, str]:
    return entry.host, entry.port, entry.tls, entry.base_path, entry.authorization
