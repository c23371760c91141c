"""What all connections of a worker share, and which path does what."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from urllib.parse import unquote

import msgspec

from swell.errors import AtCapacity
from swell.gateway.client import ClientConnection, Head
from swell.gateway.control_link import ControlLink, no_metrics
from swell.gateway.counters import Counters
from swell.gateway.directory import Directory, Key
from swell.gateway.exchange import Exchange
from swell.gateway.pacer import Pacer
from swell.gateway.request import INFERENCE_PATHS, BadRequest, admit, model_name, read_members
from swell.gateway.responses import Refusal
from swell.gateway.route import ModelRoute, Replica
from swell.gateway.shares import Shares
from swell.gateway.spool import Spool
from swell.gateway.tally import Tally, with_batch
from swell.gateway.unserved import unserved
from swell.gateway.upstream import UpstreamPool
from swell.policy.queueing import BATCH, best_allowed
from swell.state.messages import Load, ModelLoad, ReplicaLoad, Sample
from swell.state.snapshot import ReplicaEntry
from swell.state.usage import Settled, id_prefix, month_at
from swell.state.worker import WorkerSettings

UNSETTLED_RECORDS = 10_000  # outcomes kept in memory while the spool has no room; beyond, bounds stand
_encode = msgspec.json.Encoder().encode


class Service:
    """A worker's shared parts. One per process, made by `worker.run_worker`."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        now: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.timeouts = settings.timeouts
        self.bounds = settings.bounds
        self.now = now
        self.wall_clock = wall_clock
        self.counters = Counters()
        self.shares = Shares(self.now)
        self.directory = Directory(Path(settings.pepper_file).read_bytes(), self.shares, self._make_replica, now)
        self.spool = Spool(Path(settings.spool_dir))
        self.clients: set[ClientConnection] = set()
        self.exchanges: set[Exchange] = set()
        self.link: ControlLink | None = None
        self.pacer: Pacer | None = None  # without one, bursts are read event by event
        self.leaving = False  # still accepts, and every answer says that its connection ends with it
        self.draining = False
        self._unsettled: list[Settled] = []
        self._request_prefix = self._prefix()
        self._requests = 0
        self._outdated = False
        self.coarse_now = self.now()  # as of the last `check`; for deadlines that need no better

    # For exchanges

    def next_request_id(self) -> str:
        """Unique over all workers and restarts: the incarnation is in it, after the month as of the last `check`."""
        self._requests += 1
        return f"{self._request_prefix}{self._requests:08x}"  # padded: ids that sort keep the ledger's index local

    def _prefix(self) -> str:
        return f"{id_prefix(month_at(self.wall_clock()))}{self.settings.incarnation}-"

    def unix_ms(self) -> int:
        """Wall-clock milliseconds, for records that people read."""
        return int(self.wall_clock() * 1000)

    def queue_seconds(self, priority: str) -> float:
        """The longest wait for a replica."""
        return self.settings.queue_seconds.get(priority, self.timeouts.first_byte_seconds)

    def hold(self, route: ModelRoute) -> None:
        """A request waits for the model's first replica: the server is told at once, and once until there is one."""
        if route.entry.hold_seconds and not route.is_held and self.link is not None:
            route.is_held = True
            self.link.send_load()

    def upstream_head(self, replica: Replica, path: str) -> bytes:
        """The request head up to the request id's value. Never holds anything that a client sent."""
        entry = replica.entry
        authorization = f"authorization: {entry.authorization}\r\n" if entry.authorization else ""
        head = (
            f"POST {entry.base_path}{path} HTTP/1.1\r\nhost: {entry.host}:{entry.port}\r\n"
            f"content-type: application/json\r\naccept-encoding: identity\r\n{authorization}x-request-id: "
        ).encode()
        replica.heads[path] = head
        return head

    def settle(self, record: Settled) -> None:
        """Store an outcome; keep it for later where the spool has no room just now."""
        try:
            self.spool.append(record)
        except AtCapacity:
            if len(self._unsettled) < UNSETTLED_RECORDS:
                self._unsettled.append(record)

    # For client connections

    def authenticate(self, token: bytes) -> Key:
        """The key that `token` is. Raises Refusal."""
        return self.directory.authenticate(token, self.wall_clock())

    def serve(self, client: ClientConnection, request: Head, body: bytes) -> Exchange | None:
        """Begin to answer. None: the answer is on its way already. Raises Refusal."""
        path = request.path
        if path in INFERENCE_PATHS:
            if request.method != b"POST":
                raise Refusal(405, f"Use POST on {path}.", code="method_not_allowed")
            return self._exchange(client, request, body)
        if request.method not in (b"GET", b"HEAD"):
            raise Refusal(404, f"There is no {path} here.", code="not_found")
        if path == "/healthz":
            client.reply(200, b"", b'{"status":"ok"}')
        elif path == "/readyz":
            self._answer_ready(client)
        elif path == "/metrics" and request.method == b"GET":
            self._answer_metrics(client)
        elif path == "/v1/models":
            client.reply(200, b"", _encode({"object": "list", "data": list(map(_card, self._models()))}))
        elif path.startswith("/v1/models/"):
            client.reply(200, b"", _encode(_card(self._model(unquote(path.removeprefix("/v1/models/"))))))
        else:
            raise Refusal(404, f"There is no {path} here.", code="not_found")
        return None

    def _exchange(self, client: ClientConnection, request: Head, body: bytes) -> Exchange:
        key = request.key
        assert key is not None  # noqa: S101 - every inference path needs a key
        if self._outdated:
            raise Refusal(503, "This gateway has lost its server for too long.", code="outdated", retry_after_seconds=5)
        try:
            members = read_members(body, depth=self.bounds.json_depth)
            route = self._model(model_name(members))
            if request.path not in route.entry.endpoints:
                raise Refusal(
                    404, f"The model '{route.name}' does not offer {request.path}.", code="endpoint_not_offered"
                )
            if key.curbs is None:
                admitted = admit(request.path, members, route.entry)
            else:
                route, admitted = key.curbs.admit(
                    request.path, members, route, _priority(key, request, route), self.unix_ms(), self.directory.models
                )
        except BadRequest as error:
            raise Refusal(400, error.message, code=error.code, param=error.param) from None
        if not route.replicas and (refusal := unserved(route.entry, self.unix_ms())) is not None:
            route.tally.arrivals += 1  # it asks all the same: what would be wanted is known when there is money again
            route.tally.arrived_prompt_tokens += admitted.prompt_tokens_estimate
            raise refusal
        headers = request.headers
        if "session" in headers and route.entry.routing == "session_affinity":
            admitted = msgspec.structs.replace(admitted, session=headers["session"])
        priority = _priority(key, request, route)
        return Exchange(self, client, key, request.path, route, admitted, priority, request.started)

    def _models(self) -> list[ModelRoute]:
        return [self.directory.models[name] for name in sorted(self.directory.models)]

    def _model(self, name: str) -> ModelRoute:
        route = self.directory.models.get(name)
        if route is None:
            raise Refusal(
                404, f"The model '{name[:100]}' does not exist; GET /v1/models lists the ones that do.",
                code="model_not_found", param="model",
            )  # fmt: skip
        return route

    def _answer_ready(self, client: ClientConnection) -> None:
        if self.directory.epoch and not self.leaving and not self._outdated:
            client.reply(200, b"", b'{"status":"ready"}')
        else:
            problem = "No snapshot yet, too old a one, or stopping."
            raise Refusal(503, problem, code="not_ready", retry_after_seconds=1)

    def _answer_metrics(self, client: ClientConnection) -> None:
        if self.link is None or not self.link.ask_for_metrics(client):
            raise no_metrics()

    # Upkeep

    def check(self) -> None:
        """A few times a second: timeouts, shares, settlements that wait."""
        now = self.coarse_now = self.now()
        self._request_prefix = self._prefix()
        self._outdated = self.link is not None and self.link.is_outdated(now)
        for exchange in list(self.exchanges):
            exchange.check(now)
        for client in list(self.clients):
            client.check(now)
        for route in self.directory.models.values():
            if route.queued:
                self._refuse_unserved(route)
                route.serve_queue()
        self.shares.turn()
        if self.link is not None:
            self.link.check(now)
        if self._unsettled:
            waiting, self._unsettled = self._unsettled, []
            for record in waiting:
                self.settle(record)

    def _refuse_unserved(self, route: ModelRoute) -> None:
        """Who waited when no replica could come any more, or has come to wait since: for a share, or after a retry."""
        if route.replicas or (refusal := unserved(route.entry, self.unix_ms())) is None:
            return
        for waiting in list(route.queue):
            waiting.end_with(refusal)

    async def keep_spool(self, loop: asyncio.AbstractEventLoop, disk: Executor) -> None:
        """Sync the spool off the loop. A full disk shows again, as a refusal, when a request needs room."""
        try:
            await loop.run_in_executor(disk, self.spool.maintain)
        except (AtCapacity, OSError) as error:
            print(f"usage spool: {error}", file=sys.stderr, flush=True)
            await asyncio.sleep(1)

    def load(self) -> Load:
        """For the server, once a second."""
        routes = self.directory.models.values()
        replicas = tuple(
            ReplicaLoad(r.replica_id, r.in_flight, r.outstanding_tokens, r.health.is_ejected, r.health.failures)
            for route in routes
            for r in route.reported()
        )
        samples = (*self.counters.samples(), Sample("swell_gateway_connections", (), len(self.clients)))
        queued = sum(route.queued for route in routes)
        return Load(len(self.exchanges) - queued, queued, replicas, samples, self._model_loads())

    def _model_loads(self) -> tuple[ModelLoad, ...]:
        now = self.now()
        opened: dict[Tally, list[Exchange]] = {}
        for exchange in self.exchanges:
            opened.setdefault(exchange.route.tally_of(exchange.priority), []).append(exchange)
        found = []
        for route in self.directory.models.values():
            batch_waits = route.queue.waiting(BATCH)
            if route.tally.arrivals or route.batch_tally.arrivals:
                load = _report(route, route.tally, opened, now, route.queued - batch_waits, route.oldest_wait(now))
                if route.batch_tally.arrivals:
                    load = with_batch(load, _report(route, route.batch_tally, opened, now, batch_waits))
                found.append(load)
        return tuple(found)

    def _make_replica(self, entry: ReplicaEntry) -> Replica:
        identities = self.directory.identities
        pool = UpstreamPool(entry, self.timeouts, self.bounds, identities=identities, pacer=self.pacer, now=self.now)
        return Replica(entry, self.now, pool)


def _report(
    route: ModelRoute, tally: Tally, opened: Mapping[Tally, Sequence[Exchange]], now: float, queued: int,
    oldest_seconds: float = 0.0,
) -> ModelLoad:  # fmt: skip
    """Of batch, or of the other classes."""
    exchanges = opened.get(tally, ())
    return tally.report(
        route.name,
        decoded=sum(exchange.delivered_tokens for exchange in exchanges),
        open_seconds=sum(now - exchange.started for exchange in exchanges),
        in_flight=sum(exchange.replica is not None for exchange in exchanges),
        queued=queued,
        oldest_seconds=oldest_seconds,
    )


def _priority(key: Key, request: Head, route: ModelRoute) -> str:
    """The class that a request asks for, as far as its key and its model allow."""
    headers, best = request.headers, route.entry.priority
    allowed = best_allowed(key.priority, best) if best else key.priority
    return best_allowed(headers["priority"].decode("latin-1"), allowed) if "priority" in headers else allowed


def _card(route: ModelRoute) -> dict[str, object]:
    return {"id": route.name, "object": "model", "created": route.entry.created_unix, "owned_by": "swell"}
