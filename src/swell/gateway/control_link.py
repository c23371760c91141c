"""The worker's end of the control channel: reconnects for ever, keeps serving meanwhile."""

import asyncio
import os
from typing import TYPE_CHECKING, Protocol, cast

import msgspec

from swell.errors import StateError
from swell.gateway.reconnection import Reconnection
from swell.gateway.responses import Refusal
from swell.gateway.server_addresses import server_addresses
from swell.security.control_tls import CONTROL, SERVER_NAME, control_client_context
from swell.state.messages import (
    FrameBuffer,
    FromServer,
    FromWorker,
    Heard,
    Hello,
    LeaseDeny,
    LeaseGrant,
    LeaseRecall,
    MetricsRequest,
    MetricsResponse,
    decode_from_server,
    encode_message,
)
from swell.state.snapshot import Delta, Snapshot

if TYPE_CHECKING:
    from swell.gateway.service import Service

RECONNECT_SECONDS = 0.2
CONNECT_SECONDS = 5.0  # to one address of a server on another machine, its handshake included
SILENT_SECONDS = 10.0  # of a server on another machine, which answers every load; then it is looked for anew
METRICS_WAITING = 64  # clients that may wait for metrics at once
METRICS_SECONDS = 2.0  # how long each may wait


def no_metrics() -> Refusal:
    """503 where the server cannot be asked."""
    return Refusal(503, "The server that gathers metrics does not answer.", code="no_server", retry_after_seconds=5)


class _MetricsClient(Protocol):
    def respond(self, status: int, headers: bytes, content_type: bytes, body: bytes) -> None: ...

    def refuse(self, refusal: Refusal, headers: bytes = b"") -> None: ...


class ControlLink(asyncio.Protocol):
    """One per worker. `run` connects and waits; messages are handled as they arrive."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._frames = FrameBuffer()
        self._transport: asyncio.Transport | None = None
        self._has_room = True
        self._is_owed = False  # a report was left out since there was no room
        self.informed = asyncio.Event()  # the first snapshot is here
        self._lost = asyncio.Event()
        self._last_heard = self._connected = service.now()
        self._control = service.settings.control
        self._again = Reconnection(RECONNECT_SECONDS)
        self._metrics: dict[int, tuple[_MetricsClient, float]] = {}  # by token: who waits, and since when
        self._token = 0

    async def run(self) -> None:
        """Keep a connection to the server. Ends only when cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._lost = asyncio.Event()
            if await self._connect(loop):
                await self._lost.wait()
            await asyncio.sleep(self._again.wait_seconds())

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> bool:
        control = self._control
        try:
            if control is None:
                await loop.create_unix_connection(lambda: self, self._service.settings.control_socket)
                return True
            context = control_client_context(control, CONTROL)
        except (OSError, StateError):
            return False
        async for host, port in server_addresses(control):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await loop.create_connection(lambda: self, host, port, ssl=context, server_hostname=SERVER_NAME)
            except OSError as error:
                self._again.failed(error)
                continue
            return True
        return False

    def is_outdated(self, now: float) -> bool:
        """Whether the last snapshot is too old to serve on."""
        is_silent = now - self._last_heard > self._service.timeouts.snapshot_max_age_seconds
        return is_silent and (self._transport is None or self._control is not None)

    def ask_for_metrics(self, client: _MetricsClient) -> bool:
        """Answer `client` when the server has. False: it cannot be asked."""
        if self._transport is None or len(self._metrics) >= METRICS_WAITING:
            return False
        self._token += 1
        self._metrics[self._token] = client, self._service.now()
        self.send_load()
        self._send(MetricsRequest(self._token))
        return True

    def check(self, now: float) -> None:
        """Called a few times a second: nobody waits for metrics for ever, nor for a server that has gone dead."""
        heard = max(self._last_heard, self._connected)
        if self._control is not None and self._transport is not None and now - heard > SILENT_SECONDS:
            self._reset()
        for token, (client, since) in list(self._metrics.items()):
            if now - since > METRICS_SECONDS:
                del self._metrics[token]
                client.refuse(no_metrics())

    def send_load(self) -> None:
        """What this worker does right now. On a slow line reports would queue, and tell of ever earlier times; their
        sums only grow, so the next that there is room for makes up for those that were left out.
        """
        self._is_owed = not self._has_room
        if self._transport is not None and self._has_room:
            self._send(self._service.load())

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._has_room = cast(asyncio.Transport, transport), True
        self._connected = self._service.now()
        if self._control is not None:  # one on this machine with no news says nothing, and keeps the connection
            self._again.taken()
        self._frames = FrameBuffer()
        service = self._service
        directory = service.directory
        settings = service.settings
        balances = service.shares.connected(self._send)
        self._send(
            Hello(settings.worker_id, settings.incarnation, os.getpid(), directory.epoch, directory.sequence, balances)
        )
        self.send_load()

    def data_received(self, data: bytes) -> None:
        self._last_heard = self._service.now()
        try:
            for frame in self._frames.feed(data):
                self._again.heard()
                self._handle(decode_from_server(frame))
        except (ValueError, msgspec.MsgspecError):
            self._reset()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._control is None:  # one with no news says nothing; on a network it answers
            self._last_heard = self._service.now()
        self._service.shares.disconnected()
        waiting, self._metrics = self._metrics, {}
        for client, _ in waiting.values():
            client.refuse(no_metrics())
        self._lost.set()

    def pause_writing(self) -> None:
        self._has_room = False

    def resume_writing(self) -> None:
        self._has_room = True
        if self._is_owed:  # always to send one would pause a line again that a report fills, and so on for ever
            self.send_load()

    def _handle(self, message: FromServer) -> None:
        service = self._service
        match message:
            case Snapshot():
                service.directory.apply(message)
                self.informed.set()
            case Delta():
                if not service.directory.apply_delta(message):
                    service.directory.epoch = 0  # ask for everything on the next connection
                    self._reset()
            case LeaseGrant():
                share = service.shares.find(message.limit)
                if share is not None:
                    share.granted(message)
            case LeaseDeny():
                share = service.shares.find(message.limit)
                if share is not None:
                    share.denied(message, service.now())
            case LeaseRecall():
                service.shares.recall(message.limit)
            case MetricsResponse():
                waiting = self._metrics.pop(message.token, None)
                if waiting is not None:
                    waiting[0].respond(200, b"", b"text/plain; version=0.0.4; charset=utf-8", message.text)
            case Heard():
                pass  # that it came is what it says

    def _send(self, message: FromWorker) -> None:
        if self._transport is not None:
            self._transport.write(encode_message(message))

    def _reset(self) -> None:
        if self._transport is not None:
            self._transport.abort()
