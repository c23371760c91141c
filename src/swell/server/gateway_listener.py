"""Where gateways on other machines reach the server: one port, TLS with certificates on both sides, three protocols.

Which of them a connection speaks is agreed on with TLS (ALPN): a worker's control messages, its gateway's report of
workers, or the calls of the reader of its spools.
"""

import asyncio
import logging
import secrets
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

from swell.errors import StateError, SwellError
from swell.security.control_tls import CONTROL, USAGE
from swell.server.channel import Connection, ControlChannel
from swell.server.frames import read_frame
from swell.server.remote_gateways import RemoteGateways
from swell.server.tls_door import TlsDoor
from swell.state.gateway_messages import (
    FromGateway,
    GatewayHello,
    GatewayReport,
    GatewaySettings,
    ReportHeard,
    ToGateway,
    TurnedAway,
    UsageSent,
    UsageWanted,
    decode_from_gateway,
    encode_gateway_message,
)
from swell.state.messages import MAX_MESSAGE_BYTES

HELLO_SECONDS = 5.0
HELLO_BYTES = 16 * 1024
UNREAD_SECONDS = 10.0  # for a gateway to read what it is told, once its buffer is full
SILENT_SECONDS = 30.0  # of a gateway that reports once a second; then its connection is closed
IDLE_SECONDS = 3600.0  # of a spools' reader, which has nothing to say where nothing is asked
COLLECT_SECONDS = 2.0  # for the ledger up to now; what a gateway has not sent by then comes later
MAX_GATEWAY_CONNECTIONS = 2048  # two of each gateway
KEEP_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, times

_log = logging.getLogger(__name__)


class GatewayListener:
    """Listens from `open` on."""

    def __init__(self, gateways: RemoteGateways, channel: ControlChannel, settings: GatewaySettings) -> None:
        self._gateways = gateways
        self._channel = channel
        self._settings = settings
        self._door = TlsDoor(lambda: _Chooser(self))
        self._streams: set[asyncio.StreamWriter] = set()
        self._sessions: set[asyncio.StreamWriter] = set()  # of those that report
        self._waiting: dict[int, asyncio.Future[None]] = {}  # for usage, by token
        self._token = secrets.randbits(48)  # an answer to a server before this one is none to this one
        self._is_closed = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> None:
        """`context` is asked for each connection. Raises StateError where the port cannot be had."""
        try:
            await self._door.open(host, port, context)
        except OSError as error:
            raise StateError(
                f"gateways cannot be listened to at {host}:{port} ({error.strerror or error}); free the port, or "
                "choose another one with server.gateways"
            ) from error

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return self._door.port

    @property
    def refused(self) -> int:
        """Connections of addresses that open more than they prove to be a gateway's."""
        return self._door.refused

    @property
    def is_closed(self) -> bool:
        """Whether it is no longer listened to."""
        return self._is_closed

    async def collect(self) -> None:
        """Have every gateway send up what its spools have; those that take longer than COLLECT_SECONDS are left."""
        waiting = []
        for writer in self._sessions:
            self._token += 1
            self._waiting[self._token] = done = asyncio.get_running_loop().create_future()
            writer.write(encode_gateway_message(UsageWanted(self._token)))
            waiting.append((self._token, done))
        try:
            if waiting:
                await asyncio.wait([done for _, done in waiting], timeout=COLLECT_SECONDS)
        finally:
            for token, _ in waiting:
                del self._waiting[token]

    def close(self) -> None:
        """Stop listening and close what is open; a connection whose handshake is under way is closed after it."""
        self._is_closed = True
        self._door.close()
        for task in self._tasks:
            task.cancel()
        for stream in list(self._streams):
            stream.close()

    def protocol(self, spoken: str | None) -> asyncio.Protocol:
        """What speaks that on a new connection."""
        if spoken == CONTROL:
            return Connection(self._channel, is_remote=True)
        talk = self._usage if spoken == USAGE else self._reports

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._serve(reader, writer, talk))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), accepted)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, talk: "_Talk") -> None:
        try:
            if len(self._streams) >= MAX_GATEWAY_CONNECTIONS:
                _log.warning("more gateways than there may be; one is turned away", extra={"count": len(self._streams)})
                return
            self._streams.add(writer)
            hello = await _receive(reader, HELLO_SECONDS, HELLO_BYTES)
            if isinstance(hello, GatewayHello):
                await talk(hello, reader, writer)
        except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
            _log.info("a gateway's connection ended", extra={"reason": str(error) or type(error).__name__})
        finally:
            self._streams.discard(writer)
            writer.close()

    async def _reports(self, hello: GatewayHello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        problem = self._gateways.greet(hello)
        if problem:
            await _send(writer, TurnedAway(problem))
            return
        try:
            await _send(writer, self._settings)
            self._sessions.add(writer)
            await self._listen(hello, reader, writer)
        finally:
            self._sessions.discard(writer)
            self._gateways.left(hello)

    async def _listen(self, hello: GatewayHello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await _receive(reader, SILENT_SECONDS)
            if isinstance(message, UsageSent):
                done = self._waiting.get(message.token)
                if done is not None and not done.done():
                    done.set_result(None)
                continue
            if not isinstance(message, GatewayReport):
                return
            try:
                await self._gateways.report(hello, message.workers)
            except SwellError as error:  # the store is away: what it knows already goes on; the next report tries again
                _log.warning("a gateway's new workers could not be noted", extra={"reason": str(error)})
                continue
            await _send(writer, ReportHeard(message.workers))

    async def _usage(self, hello: GatewayHello, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            message = await _receive(reader, IDLE_SECONDS)
            if isinstance(message, GatewayHello | GatewayReport | UsageSent):
                return
            await _send(writer, await self._gateways.answer(hello, message))


_Talk = Callable[[GatewayHello, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class _Chooser(asyncio.Protocol):
    """Hands a connection to what speaks its protocol, once TLS has told which that is."""

    def __init__(self, listener: GatewayListener) -> None:
        self._listener = listener

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._listener.is_closed:  # whoever speaks to it would hear nothing of what its successor says
            cast(asyncio.Transport, transport).abort()
            return
        _keep_alive(transport)
        tls = transport.get_extra_info("ssl_object")
        chosen = self._listener.protocol(None if tls is None else tls.selected_alpn_protocol())
        cast(asyncio.Transport, transport).set_protocol(chosen)
        chosen.connection_made(transport)


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    """A machine that is gone without a word shall not hold a connection for hours."""
    end = transport.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEP_ALIVE:
        end.setsockopt(socket.IPPROTO_TCP, option, value)


async def _receive(reader: asyncio.StreamReader, seconds: float, max_bytes: int = MAX_MESSAGE_BYTES) -> FromGateway:
    message: FromGateway = decode_from_gateway(await read_frame(reader, seconds, max_bytes))
    return message


async def _send(writer: asyncio.StreamWriter, message: ToGateway) -> None:
    writer.write(encode_gateway_message(message))
    async with asyncio.timeout(UNREAD_SECONDS):
        await writer.drain()
