"""Bytes between gateways, over TLS, and the engine beside it, over loopback. Nothing is parsed and nothing is kept.

Each connection of a gateway has one to the engine. Who reads slowly makes the other side wait: no more than
BUFFER_BYTES wait to be written on either. There are at most MAX_CONNECTIONS, and one in which nothing moves is closed:
its gateway has gone without a word.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from swell.security.replica_tls import names_in
from swell.server.acknowledged import acknowledged_bytes

MAX_CONNECTIONS = 512
BUFFER_BYTES = 64 * 1024
CONNECT_SECONDS = 5.0  # to the engine, on the same machine
LINGER_SECONDS = 30.0  # for a gateway to take some more of what is left of an answer whose engine has closed
LOOK_SECONDS = 30.0
IDLE_LOOKS = 120  # without a byte in either direction, an hour; engines close connections that they keep much sooner
KEEPALIVE = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, tries


class End(asyncio.Protocol):
    """One of a pair's two connections. What it reads goes to the `other`."""

    def __init__(self, pair: "Pair") -> None:
        self._pair = pair
        self.other: End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self._pair.opened(self)

    def data_received(self, data: bytes) -> None:
        self._pair.quiet_looks = 0
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._pair.lost(self, exc)


class Pair:
    """A gateway's connection, and the engine's that answers it."""

    def __init__(self, relay: "Relay") -> None:
        self._relay = relay
        self.quiet_looks = 0
        self.gateway, self.engine = End(self), End(self)
        self._connecting: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None

    def opened(self, end: End) -> None:
        """A connection is there: the gateway's first, which may send once the engine's is there as well."""
        if end is self.engine:
            return
        assert end.transport is not None  # noqa: S101  it has just been given
        if not self._relay.admit(self, end.transport):
            end.transport.abort()
            return
        end.transport.pause_reading()
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def lost(self, end: End, exc: Exception | None) -> None:
        """One side has ended: so does the other, which may still take what was sent before.

        An engine whose connection broke has not finished its answer, and the gateway must not take it for an end.
        """
        if self._linger is not None:
            self._linger.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        other = self.engine if end is self.gateway else self.gateway
        if other.transport is None or other.transport.is_closing():
            self._relay.forget(self)
        elif end is self.gateway:
            other.transport.abort()  # nobody waits for the answer: the engine shall stop
        elif exc is not None:
            _reset(other.transport)
        else:
            self._linger_on(other.transport)
            other.transport.close()

    def _linger_on(self, transport: asyncio.Transport, before: int | None = None) -> None:
        """Wait for a gateway that takes what is left, however slowly; `before` is what it had taken the last time."""
        now = _taken(transport)
        if before is not None and now <= before:
            transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._linger = loop.call_later(LINGER_SECONDS, self._linger_on, transport, now)

    def abort(self) -> None:
        """End both."""
        for end in (self.gateway, self.engine):
            if end.transport is not None:
                end.transport.abort()

    async def _connect(self) -> None:
        host, port = self._relay.engine
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: self.engine, host, port)
        except OSError:  # TimeoutError is one: the gateway asks elsewhere
            self.abort()
            return
        self._connecting = None
        self.gateway.other, self.engine.other = self.engine, self.gateway
        transport = self.gateway.transport
        if transport is None or transport.is_closing():
            self.abort()
        else:
            transport.resume_reading()


def _taken(transport: asyncio.Transport) -> int:
    """A number of bytes that grows as the other side takes more."""
    return (acknowledged_bytes(transport) or 0) - transport.get_write_buffer_size()


def _reset(transport: asyncio.Transport) -> None:
    link = transport.get_extra_info("socket")
    if link is not None:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Relay:
    """Makes the protocols of a `TlsDoor`. `client` is the name that every gateway's certificate must have."""

    def __init__(self, engine: tuple[str, int], client: str, say: Callable[[str], None]) -> None:
        self.engine = engine
        self._client = client
        self._say = say
        self._pairs: dict[Pair, None] = {}
        self.refused = 0  # connections that could not be taken

    def accept(self) -> asyncio.Protocol:
        """The protocol of the next connection."""
        return Pair(self).gateway

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._pairs)

    def admit(self, pair: Pair, transport: asyncio.Transport) -> bool:
        """Whether a gateway's connection, whose handshake is done, may go on."""
        secured = transport.get_extra_info("ssl_object")
        if secured is None or self._client not in names_in(secured.getpeercert()):
            self._refuse(f"a client whose certificate does not name {self._client} was refused")
            return False
        if len(self._pairs) >= MAX_CONNECTIONS:
            self._refuse(f"more than {MAX_CONNECTIONS} connections at once were asked for")
            return False
        link = transport.get_extra_info("socket")
        if link is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in KEEPALIVE:
                link.setsockopt(socket.IPPROTO_TCP, option, value)
        self._pairs[pair] = None
        return True

    def forget(self, pair: Pair) -> None:
        """Both of its connections have ended, or never were."""
        self._pairs.pop(pair, None)

    def look(self) -> None:
        """Every LOOK_SECONDS: end what does not move."""
        for pair in list(self._pairs):
            pair.quiet_looks += 1
            if pair.quiet_looks > IDLE_LOOKS:
                pair.abort()

    def close(self) -> None:
        """End every connection."""
        for pair in list(self._pairs):
            pair.abort()

    def _refuse(self, problem: str) -> None:
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the first, the second, the fourth …: whoever knocks fills no disk
            self._say(f"{problem} ({self.refused} refused so far)")
