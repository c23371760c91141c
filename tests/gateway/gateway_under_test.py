"""A real worker's service on the test's own loop: real sockets, scripted upstreams, time that the test moves."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from http_client import STREAMED, Answer, Connection

from swell.clock import ManualClock
from swell.gateway.client import ClientConnection
from swell.gateway.route import ModelRoute, Replica
from swell.gateway.service import Service
from swell.gateway.shares import Share
from swell.metering.leases import Grant, LeaseBook
from swell.security.keys import digest_key, new_key
from swell.state.messages import FromWorker, LeaseDeny, LeaseGrant, LeaseReport, LeaseRequest
from swell.state.snapshot import KeyDigest, KeyEntry, Limits, ModelEntry, ReplicaEntry, Snapshot, TenantEntry
from swell.state.usage import LOCK_NAME, Reserved, Sent, Settled, SpoolRecord, read_frames
from swell.state.worker import Bounds, Timeouts, WorkerSettings
from swell.testing.upstream import Upstream

PEPPER = b"p" * 32
WAIT_SECONDS = 5.0
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


class StartGateway(Protocol):
    """Starts a gateway; the options are those of `Gateway`."""

    async def __call__(self, **options: Any) -> "Gateway": ...


class Entry:
    """What the spool says about one request."""

    def __init__(self, reserved: Reserved) -> None:
        self.reserved = reserved
        self.sent = reserved.sent
        self.settled: Settled | None = None

    @property
    def outcome(self) -> tuple[str, int, int, int]:
        """Status, prompt tokens, completion tokens, HTTP status."""
        assert self.settled is not None, "the request is not settled"
        found = self.settled
        return found.status, found.prompt_tokens, found.completion_tokens, found.http_status

    @property
    def cached_tokens(self) -> int:
        """Of the prompt tokens, those that the engine had in its prefix cache."""
        assert self.settled is not None, "the request is not settled"
        return self.settled.cached_tokens


class Gateway:
    """Started with `async with`; `replicas` scripted upstreams stand behind the model `m`."""

    def __init__(
        self,
        folder: Path,
        *,
        replicas: int = 1,
        max_in_flight: int = 64,
        timeouts: Timeouts | None = None,
        bounds: Bounds | None = None,
        limits: Limits | None = None,
        tenant_limits: Limits | None = None,
        priority: str = "interactive",
        queue_seconds: dict[str, float] | None = None,
        **model: Any,
    ) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "pepper").write_bytes(PEPPER)
        settings = WorkerSettings(
            worker_id=0, incarnation="0123456789ab", host="127.0.0.1", port=0, control_socket="",
            spool_dir=str(folder / "spool"), pepper_file=str(folder / "pepper"),
            timeouts=timeouts or Timeouts(), bounds=bounds or Bounds(),
        )  # fmt: skip
        if queue_seconds is not None:
            settings = msgspec.structs.replace(settings, queue_seconds=queue_seconds)
        self.clock = ManualClock()
        self.clock.advance(1000.0)
        self.service = Service(settings, now=self.clock.monotonic, wall_clock=self.clock.unix)
        self.upstreams = [Upstream() for _ in range(replicas)]
        self.key_id, self.token = new_key()
        digest = KeyDigest(digest_key(PEPPER, self.token))
        self.key = KeyEntry(self.key_id, "t", (digest,), limits=limits or Limits())
        self.tenant = TenantEntry("t", tenant_limits or Limits(), priority)
        self.max_in_flight = max_in_flight
        self.model = ModelEntry(name="m", upstream_model="m", endpoints=(*STREAMED, "/v1/embeddings"))
        self.model = msgspec.structs.replace(self.model, **model)
        self.spool_folder = folder / "spool"
        self.port = 0
        self.leases: Leases | None = None
        self._connections: list[Connection] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        for upstream in self.upstreams:
            await upstream.start()
        self.publish()
        if any(getattr(scope.limits, name) is not None for scope in (self.key, self.tenant) for name in LIMITS):
            self.leases = Leases(self)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ClientConnection(self.service), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything, and see that nothing is held that no request holds."""
        for connection in self._connections:
            connection.writer.transport.abort()
        await self.until(lambda: not self.service.clients)
        for route in self.service.directory.models.values():
            for replica in route.replicas.values():
                replica.connector.close()
        for upstream in self.upstreams:
            upstream.release()
            await upstream.close()
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
        try:
            self.assert_idle()
        finally:
            self.service.spool.close()

    def assert_idle(self) -> None:
        """The self-check of a gateway without requests."""
        service = self.service
        assert not service.exchanges
        for route in service.directory.models.values():
            assert route.queued == 0
            assert not len(route.queue)
            for replica in route.replicas.values():
                assert (replica.in_flight, replica.outstanding_tokens) == (0, 0)
        for share in self.shares():
            assert share.in_use == 0
            assert share.waiting == 0
        assert all(entry.settled is not None for entry in self.ledger.values())

    def publish(self, **changes: Any) -> None:
        """Apply a snapshot with everything, with fields of it replaced."""
        entries = tuple(
            ReplicaEntry(f"m-{index}", upstream.host, upstream.port, max_in_flight=self.max_in_flight)
            for index, upstream in enumerate(self.upstreams)
        )
        self.model = msgspec.structs.replace(self.model, replicas=entries)
        directory = self.service.directory
        whole = Snapshot(1, directory.sequence + 1, 1, (self.model,), (self.key,), (self.tenant,))
        directory.apply(msgspec.structs.replace(whole, **changes))

    async def connect(self) -> Connection:
        return await self.connect_over(None)

    async def connect_over(self, endpoint: socket.socket | None, **options: Any) -> Connection:
        """A client's connection; `endpoint` is connected already."""
        where = (None, None) if endpoint else ("127.0.0.1", self.port)
        reader, writer = await asyncio.open_connection(*where, sock=endpoint, **options)
        connection = Connection(reader, writer, self.token)
        self._connections.append(connection)
        return connection

    async def ask(self, path: str, body: dict[str, Any] | bytes, **headers: str) -> Answer:
        """One request on a connection of its own."""
        return await (await self.connect()).ask(path, body, **headers)

    async def ask_patiently(self, path: str, body: dict[str, Any]) -> Answer:
        """The same, while the clock moves: for answers that take turns of the worker's upkeep."""
        answer = asyncio.ensure_future(self.ask(path, body))
        while not answer.done():
            for _ in range(10):
                await asyncio.sleep(0)
            self.pass_time(0.1)
        return await answer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Let the loop turn until `condition` holds; fails after five seconds."""
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event, and turns are cheap
                await asyncio.sleep(0)

    def pass_time(self, seconds: float) -> None:
        """Move the clock, in steps as the worker's upkeep takes them: what waits is noted first, then times out."""
        self.service.check()
        self.clock.advance(seconds)
        self.service.check()

    # What is known

    @property
    def upstream(self) -> Upstream:
        """The only upstream, or the first."""
        return self.upstreams[0]

    @property
    def route(self) -> ModelRoute:
        return self.service.directory.models["m"]

    @property
    def replicas(self) -> list[Replica]:
        return list(self.route.replicas.values())

    def replica(self, index: int = 0) -> Replica:
        return self.route.replicas[f"m-{index}"]

    def shares(self) -> list[Share]:
        scopes = (f"key:{self.key_id}", "tenant:t")
        found = (self.service.shares.find(f"{scope}:{measure}") for scope in scopes for measure in LIMITS)
        return [share for share in found if share is not None]

    @property
    def records(self) -> list[SpoolRecord]:
        """Everything in the spool, as the server would read it."""
        found: list[SpoolRecord] = []
        for path in sorted(self.spool_folder.iterdir()):
            if path.name not in (LOCK_NAME, "spare"):
                found += [record for record, _ in read_frames(path.read_bytes())]
        return found

    @property
    def ledger(self) -> dict[str, Entry]:
        """The spool's records by request; fails where a record has no place."""
        entries: dict[str, Entry] = {}
        for record in self.records:
            match record:
                case Reserved():
                    assert record.request_id not in entries
                    entries[record.request_id] = Entry(record)
                case Sent():
                    assert not entries[record.request_id].sent
                    entries[record.request_id].sent = True
                case Settled():
                    assert entries[record.request_id].settled is None
                    entries[record.request_id].settled = record
        return entries

    @property
    def outcomes(self) -> list[tuple[str, int, int, int]]:
        """Of all requests, in order of their reservation."""
        return [entry.outcome for entry in self.ledger.values()]

    def outcomes_of(self, status: str) -> list[tuple[str, int, int, int]]:
        """Of the requests that are settled so."""
        settled = [entry.outcome for entry in self.ledger.values() if entry.settled is not None]
        return [outcome for outcome in settled if outcome[0] == status]

    async def settled(self, count: int = 1) -> None:
        """Wait until so many requests are settled."""
        await self.until(lambda: sum(isinstance(record, Settled) for record in self.records) >= count)


class Leases:
    """The server's lease book behind this one worker; `other` may hold shares as a second worker."""

    def __init__(self, gateway: Gateway, *, connect: bool = True) -> None:
        self._gateway = gateway
        self.book = LeaseBook()
        self.book.join("other", (), gateway.clock.monotonic())
        for scope, entry in ((f"key:{gateway.key_id}", gateway.key), ("tenant:t", gateway.tenant)):
            for measure in LIMITS:
                self.book.set_limit(f"{scope}:{measure}", getattr(entry.limits, measure))
        self.sent: list[FromWorker] = []
        if connect:
            self.connect()

    def connect(self) -> None:
        balances = self._gateway.service.shares.connected(self._receive)
        self.book.join("w", balances, self._gateway.clock.monotonic())

    def disconnect(self) -> None:
        self._gateway.service.shares.disconnected()

    def _receive(self, message: FromWorker) -> None:
        """Answers come in a later turn of the loop, as over a socket."""
        self.sent.append(message)
        now = self._gateway.clock.monotonic()
        if isinstance(message, LeaseReport):
            self.book.report("w", message.limit, message.used, message.returned, now)
        elif isinstance(message, LeaseRequest):
            asyncio.get_running_loop().call_soon(self._answer, message)

    def _answer(self, message: LeaseRequest) -> None:
        now = self._gateway.clock.monotonic()
        share = self._gateway.service.shares.find(message.limit)
        answer = self.book.request("w", message.limit, message.amount, now)
        assert share is not None
        if isinstance(answer, Grant):
            share.granted(LeaseGrant(message.limit, answer.amount, answer.limit_value, answer.remaining))
        else:
            share.denied(LeaseDeny(message.limit, answer.limit_value, min(60.0, answer.retry_after_seconds)), now)


def content_events(payload: bytes) -> int:
    """Events of an OpenAI chat or completion stream that carry the scripted word."""
    return payload.count(b'" token"')


def error_codes(payload: bytes) -> list[str]:
    """Codes of the error events in a stream."""
    lines = [line[6:] for line in payload.split(b"\n") if line.startswith(b'data: {"error"')]
    return [json.loads(line)["error"]["code"] for line in lines]
