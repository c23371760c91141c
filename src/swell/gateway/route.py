"""A model's replicas with their load, and the requests that wait for one."""

from collections.abc import Callable
from math import ceil, inf
from typing import Protocol

from swell.gateway.responses import Refusal
from swell.gateway.tally import Tally
from swell.policy.admission import AdmissionQueue
from swell.policy.ejection import HEALTHY, Health, failed, gave_up, may_send, sent, succeeded
from swell.policy.queueing import BATCH, batch_room
from swell.policy.routing import POLICIES, Choose, Request, View, build_view, key_hash
from swell.state.snapshot import ModelEntry, ReplicaEntry

UNLIMITED_TOKENS = 2**62


class Connector(Protocol):
    """Connections to one replica."""

    def close(self) -> None:
        """Close the idle ones; busy ones finish."""


class Waiting(Protocol):
    """A request in a queue."""

    started: float

    def __hash__(self) -> int:
        """It is itself and no other."""

    @property
    def is_held(self) -> bool:
        """Whether it came, or was left, without any replica to wait for."""

    def replica_free(self) -> bool:
        """Try to go out now; False if it finds no room where others would."""

    def refuse_late(self) -> None:
        """It cannot meet its objective any more, and its model refuses such requests."""

    def end_with(self, refusal: Refusal) -> None:
        """It will not be served."""


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
        "_clock",
        "_only",
        "_serving",
        "_turn",
        "batch_tally",
        "entry",
        "is_held",
        "leaving",
        "name",
        "others_at",
        "queue",
        "queued",
        "replicas",
        "tally",
        "view",
    )

    def __init__(self, name: str, clock: Callable[[], float]) -> None:
        self.name = name
        self._clock = clock
        self.entry = ModelEntry(name=name, upstream_model=name, endpoints=())
        self.replicas: dict[str, Replica] = {}
        self.leaving: list[Replica] = []  # routed to no more; some of their requests still run
        self.is_held = False  # the server knows that requests wait for the first replica
        self.tally = Tally()  # of all classes but batch
        self.batch_tally = Tally()
        self.others_at = -inf  # when a request came last that is not of batch
        self.view: View = build_view(())
        self.queue: AdmissionQueue[Waiting] = AdmissionQueue()
        self._choose: Choose = POLICIES["least_outstanding_tokens"]
        self._turn = 0
        self._serving = False
        self._only: Replica | None = None
        self.queued = 0  # the queue's length, as an attribute: every request reads it

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
        return now - min((waiting.started for waiting in self.queue), default=now)

    def tally_of(self, priority: str) -> Tally:
        """Where requests of that class count."""
        return self.batch_tally if priority == BATCH else self.tally

    def arrived(self, priority: str, prompt_tokens: int) -> None:
        """A request was admitted."""
        tally = self.tally_of(priority)
        tally.arrivals += 1
        tally.arrived_prompt_tokens += prompt_tokens
        if tally is self.tally:
            self.others_at = self._clock()

    def choose(
        self, prefix: bytes, session: bytes, priority: str, *, avoid: frozenset[str] = frozenset()
    ) -> Replica | None:
        """A replica with room, by the model's policy. `avoid` names replicas that failed this request."""
        view = self.view
        if len(view.candidates) == 1 and not avoid:  # nothing to choose
            only = self._only
            if only is None or only.in_flight >= only.limit or (only.health is not HEALTHY and not only.has_room):
                return None
            return None if priority == BATCH and self._is_kept(only) else only
        self._turn += 1
        request = Request(key_hash(prefix) if prefix else 0, key_hash(session) if session else 0, self._turn)
        if avoid:
            view = build_view(tuple(c for c in view.candidates if c.replica_id not in avoid))
        chosen = self._choose(view, request)
        if chosen is None or (priority == BATCH and self._is_kept(self.replicas[chosen.replica_id])):
            return None
        return self.replicas[chosen.replica_id]

    def _is_kept(self, replica: Replica) -> bool:
        """Whether what room it has is kept for others than batch."""
        return replica.in_flight >= batch_room(replica.limit, self._clock() - self.others_at)

    def failing(self, names: frozenset[str]) -> frozenset[str]:
        """Those of `names` that are still here and have not answered since they failed."""
        return frozenset(n for n in names if n in self.replicas and self.replicas[n].health is not HEALTHY)

    def enqueue(self, waiting: Waiting, priority: str, prompt_tokens: int, gives_up_at: float) -> None:
        """Let a request wait, in the order in which first tokens are due; it leaves at `gives_up_at` at the latest."""
        entry = self.entry
        limit_ms = entry.ttft_ms + entry.ttft_ms_per_1k_prompt_tokens * prompt_tokens / 1000
        self.queue.push(waiting, waiting.started + limit_ms / 1000, priority=priority, gives_up_at=gives_up_at)
        self.queued += 1

    def leave(self, waiting: Waiting) -> None:
        """A request waits no longer."""
        self.queue.remove(waiting)
        self.queued = len(self.queue)

    def serve_queue(self) -> None:
        """Send out what waits, while there is room."""
        if self._serving:
            return  # what is sent out may end at once and free its place: the turn below goes on with it
        self._serving = True
        now = self._clock()
        try:
            if self.entry.refuses_late:
                self._refuse_late(now)
            while self.queued and self._has_room():
                if self.queue.take(now, self._goes_out) is None:
                    break  # everybody avoids the replicas that have room
        finally:
            self._serving = False
            self.queued = len(self.queue)

    def _has_room(self) -> bool:
        """Whether any replica has some for one of those who wait."""
        is_batch = self.queue.waiting(BATCH) == self.queued
        return any(r.has_room and not (is_batch and self._is_kept(r)) for r in self.replicas.values())

    def _goes_out(self, waiting: Waiting) -> bool:
        self.queued = len(self.queue)  # without this one
        return waiting.replica_free()

    def _refuse_late(self, now: float) -> None:
        """Not those who were held for a start, nor while one may be under way: they have its time as well."""
        if self.entry.hold_seconds and not self.replicas:
            return
        for waiting in self.queue.late(now):
            if not waiting.is_held:
                waiting.refuse_late()


def _address(entry: ReplicaEntry) -> tuple[str | int, ...]:
    where = entry.host, entry.port, entry.tls, entry.base_path
    return *where, entry.authorization, entry.identity, entry.server_name
