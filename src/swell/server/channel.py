"""The server's side of the control channel: one connection per gateway worker, by a Unix socket or over a network.

A worker says Hello and is sent the deltas it missed or the whole snapshot; every later change goes out
the moment it is published. Leases are asked of the lease book in the order in which requests arrive.

Fencing: a connection speaks for the incarnation of its Hello and for no other, an incarnation that the
supervisor does not know (any more) is turned away, and a second connection of the same incarnation
replaces the first. A lost connection is not a dead worker: what it holds stays booked until the
supervisor says that the process is gone (`worker_gone`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import cast

import msgspec

from swell.clock import Clock
from swell.metering.budgets import PREFIX, BudgetBook, BudgetGrant
from swell.metering.leases import WINDOW_SECONDS, Grant, LeaseBook
from swell.observe import metrics
from swell.server.control_line import ControlLine
from swell.server.private_socket import private_socket, remove_socket
from swell.server.publish import Picture, Publication, limits_of
from swell.state.messages import (
    FrameBuffer,
    FromServer,
    Heard,
    Hello,
    LeaseDeny,
    LeaseGrant,
    LeaseRecall,
    LeaseReport,
    LeaseRequest,
    Load,
    MetricsRequest,
    MetricsResponse,
    Sample,
    decode_from_worker,
    encode_message,
)

STORE_RETRY_SECONDS = 1.0  # after a lease could not be stored
HELLO_SECONDS = 5.0
MAX_CONNECTIONS = 1024


async def _saved_nowhere() -> None:
    """For a channel without budgets."""


_log = logging.getLogger(__name__)
_MONOTONE = ("_total", "_bucket", "_sum", "_count")


class Connection(asyncio.Protocol):
    """One worker's connection: frames in, messages out."""

    def __init__(self, channel: "ControlChannel", *, is_remote: bool = False) -> None:
        self._channel = channel
        self.is_remote = is_remote
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._line: ControlLine | None = None
        self._hello_deadline: asyncio.TimerHandle | None = None
        self.hello: Hello | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        if not self._channel.admit(self):
            self.close()
            return
        self._line = ControlLine(self._transport, self._caught_up)
        loop = asyncio.get_running_loop()
        self._hello_deadline = loop.call_later(HELLO_SECONDS, self._expect_hello)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._channel.received(self, decode_from_worker(frame))
        except (ValueError, msgspec.MsgspecError):
            _log.warning("a worker sent what is no control message; its connection is closed")
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._hello_deadline:
            self._hello_deadline.cancel()
        if self._line is not None:
            self._line.close()
        self._channel.lost(self)

    def pause_writing(self) -> None:
        if self._line is not None:
            self._line.is_full()

    def resume_writing(self) -> None:
        if self._line is not None:
            self._line.has_room()

    def send(self, message: FromServer) -> None:
        """Queue a message; the connection is cut where the worker does not read."""
        if self._line is not None:
            self._line.send(message)

    def _caught_up(self, epoch: int, sequence: int) -> None:
        for message in self._channel.publication.since(epoch, sequence):
            self.send(message)

    def close(self) -> None:
        """Close after what is queued."""
        if self._transport is not None:
            if self._line is not None and not self._transport.is_closing():
                self._line.finish()
            self._transport.close()

    def _expect_hello(self) -> None:
        if self.hello is None:
            self.close()


class ControlChannel:
    """Publishes to the workers, grants them leases and gathers what they report."""

    def __init__(
        self,
        *,
        publication: Publication,
        leases: LeaseBook,
        clock: Clock,
        is_known: Callable[[str], bool],
        server_samples: Callable[[], Iterable[Sample]] = tuple,
        on_change: Callable[[], None] = lambda: None,
        on_load: Callable[[str, Load], None] = lambda incarnation, load: None,
        budgets: BudgetBook | None = None,
        save_leases: Callable[[], Awaitable[None]] = _saved_nowhere,
    ) -> None:
        self.publication = publication
        self.leases = leases
        self._clock = clock
        self._is_known = is_known
        self._server_samples = server_samples
        self._on_change = on_change
        self._on_load = on_load
        self.budgets = budgets or BudgetBook()
        self._save_leases = save_leases
        self._unsent: list[tuple[Connection, LeaseGrant]] = []  # grants of budgets that are not stored yet
        self._sending: asyncio.Task[None] | None = None
        self._connections: set[Connection] = set()
        self._by_incarnation: dict[str, Connection] = {}
        self._loads: dict[str, Load] = {}
        self._retired: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._listener: asyncio.Server | None = None
        self._is_closed = False
        self._limits: dict[str, int] = {}
        self._set_limits(publication.picture)

    async def open(self, path: Path) -> None:
        """Listen on `path`, replacing a socket that a dead server left."""
        loop = asyncio.get_running_loop()
        self._path = path
        self._listener = await loop.create_unix_server(lambda: Connection(self), sock=private_socket(path))

    def close(self) -> None:
        """Stop listening and close every connection, also those that are being made."""
        self._is_closed = True
        if self._listener is not None:
            self._listener.close()
            remove_socket(self._path)
        for connection in list(self._connections):
            connection.close()

    def publish(self, picture: Picture) -> None:
        """Make `picture` the truth and send what changed to every worker, at once.

        What cannot be encoded raises, and does not become the truth: the next attempt would have to send it too.
        """
        delta = self.publication.update(picture, check=encode_message)
        if delta is not None:
            self._set_limits(picture)
            for connection in list(self._by_incarnation.values()):
                connection.send(delta)

    def recall_overdrawn(self) -> None:
        """Have every worker hand back what is idle of budgets whose cap fell below what is spent and held."""
        for limit in self.budgets.overdrawn():
            for connection in list(self._by_incarnation.values()):
                connection.send(LeaseRecall(limit))

    def connected(self) -> dict[str, Hello]:
        """The workers that are connected, by incarnation."""
        return {incarnation: c.hello for incarnation, c in self._by_incarnation.items() if c.hello is not None}

    def loads(self) -> dict[str, Load]:
        """The last load of every living worker, by incarnation."""
        return dict(self._loads)

    def worker_gone(self, incarnation: str) -> None:
        """The process has ended: book its leases, keep its counters, close what is left of its connection."""
        connection = self._by_incarnation.pop(incarnation, None)
        if connection is not None:
            connection.close()
        self.leases.leave(incarnation, self._clock.monotonic())
        self.budgets.leave(incarnation)
        load = self._loads.pop(incarnation, None)
        for sample in load.samples if load else ():
            if sample.name.endswith(_MONOTONE):
                key = (sample.name, sample.labels)
                self._retired[key] = self._retired.get(key, 0.0) + sample.value

    def metrics_text(self) -> bytes:
        """Prometheus exposition over all workers, those that have ended, and the server."""
        samples = [(name, labels, value) for (name, labels), value in self._retired.items()]
        for load in self._loads.values():
            samples += [(sample.name, sample.labels, sample.value) for sample in load.samples]
        samples += [(sample.name, sample.labels, sample.value) for sample in self._server_samples()]
        return metrics.exposition(samples)

    def admit(self, connection: Connection) -> bool:
        """Whether there is room for another connection."""
        if self._is_closed or len(self._connections) >= MAX_CONNECTIONS:
            return False
        self._connections.add(connection)
        return True

    def lost(self, connection: Connection) -> None:
        """A connection ended; its worker may come back."""
        self._connections.discard(connection)
        hello = connection.hello
        if hello is not None and self._by_incarnation.get(hello.incarnation) is connection:
            del self._by_incarnation[hello.incarnation]
            self._on_change()

    def received(self, connection: Connection, message: object) -> None:
        """Act on one message."""
        if isinstance(message, Hello):
            self._welcome(connection, message)
            return
        hello = connection.hello
        if hello is None or self._by_incarnation.get(hello.incarnation) is not connection:
            connection.close()
            return
        match message:
            case LeaseRequest():
                self._request_lease(connection, hello.incarnation, message)
            case LeaseReport():
                now = self._clock.monotonic()
                if message.limit.startswith(PREFIX):
                    self.budgets.report(hello.incarnation, message.limit, message.used, message.returned)
                    return
                self.leases.report(hello.incarnation, message.limit, message.used, message.returned, now)
            case Load():
                self._loads[hello.incarnation] = message
                self._on_load(hello.incarnation, message)
                if connection.is_remote:
                    connection.send(Heard())
            case MetricsRequest(token=token):
                connection.send(MetricsResponse(token, self.metrics_text()))

    def _welcome(self, connection: Connection, hello: Hello) -> None:
        if connection.hello is not None or not self._is_known(hello.incarnation):
            _log.warning("an unknown worker was turned away", extra={"incarnation": hello.incarnation})
            connection.close()
            return
        connection.hello = hello
        replaced = self._by_incarnation.get(hello.incarnation)
        self._by_incarnation[hello.incarnation] = connection
        if replaced is not None:
            replaced.close()
        rates = [balance for balance in hello.balances if not balance.limit.startswith(PREFIX)]
        self.leases.join(hello.incarnation, rates, self._clock.monotonic())
        self.budgets.join(hello.incarnation, hello.balances)
        for message in self.publication.since(hello.epoch, hello.sequence):
            connection.send(message)
        for limit in self.budgets.overdrawn():
            connection.send(LeaseRecall(limit))
        self._on_change()

    def _request_lease(self, connection: Connection, incarnation: str, wanted: LeaseRequest) -> None:
        if wanted.limit.startswith(PREFIX):
            self._request_budget(connection, incarnation, wanted)
            return
        answer = self.leases.request(incarnation, wanted.limit, max(1, wanted.amount), self._clock.monotonic())
        if isinstance(answer, Grant):
            connection.send(LeaseGrant(wanted.limit, answer.amount, answer.limit_value, answer.remaining))
            return
        # More than the limit itself never fits; a client is told the longest wait that can ever make sense.
        retry_after = min(answer.retry_after_seconds, float(WINDOW_SECONDS))
        connection.send(LeaseDeny(wanted.limit, answer.limit_value, retry_after))
        for other in answer.recall:
            if other in self._by_incarnation:
                self._by_incarnation[other].send(LeaseRecall(wanted.limit))

    def _request_budget(self, connection: Connection, incarnation: str, wanted: LeaseRequest) -> None:
        """As for rates, but that a grant is stored before it is sent; those that come meanwhile are stored together."""
        answer = self.budgets.request(incarnation, wanted.limit, wanted.amount, wanted.need, self._clock.unix())
        if isinstance(answer, BudgetGrant):
            self._unsent.append((connection, LeaseGrant(wanted.limit, answer.amount, answer.cap, answer.remaining)))
            if self._sending is None:
                self._sending = asyncio.get_running_loop().create_task(self._send_grants())
            return
        connection.send(
            LeaseDeny(wanted.limit, answer.cap, answer.retry_after_seconds, answer.is_final, answer.remaining)
        )
        for other, limit in answer.recall:
            if other in self._by_incarnation:
                self._by_incarnation[other].send(LeaseRecall(limit))

    async def _send_grants(self) -> None:
        while self._unsent:
            grants, self._unsent = self._unsent, []
            try:
                await self._save_leases()
            except Exception:
                _log.exception("leases of budgets could not be stored; the workers are told to wait")
                for connection, grant in grants:
                    if self._is_current(connection) and connection.hello is not None:
                        self.budgets.withdraw(connection.hello.incarnation, grant.limit, grant.amount)
                        connection.send(LeaseDeny(grant.limit, grant.limit_value, STORE_RETRY_SECONDS))
            else:
                for connection, grant in grants:
                    if self._is_current(connection):  # else what it stated on coming back does not have this in it
                        connection.send(grant)
        self._sending = None

    def _is_current(self, connection: Connection) -> bool:
        hello = connection.hello
        return hello is not None and self._by_incarnation.get(hello.incarnation) is connection

    def _set_limits(self, picture: Picture) -> None:
        limits = limits_of(picture)
        for name in self._limits.keys() - limits.keys():
            self.leases.set_limit(name, None)
        for name, value in limits.items():
            self.leases.set_limit(name, value)
        self._limits = limits
