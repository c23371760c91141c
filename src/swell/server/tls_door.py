"""Accepting TLS connections, of which no more than a bounded number has not proved yet who it is.

Whoever reaches the port may connect and say nothing. Each such connection costs a file descriptor, and a server without
any can neither probe its replicas nor read its store. So where MAX_HANDSHAKES are under way others wait, and after
SLOW_SECONDS the oldest makes room: a gateway's takes milliseconds, even where hundreds come at once. While the server
itself is behind it counts for little: on a busy machine all handshakes are slow, and who is cut comes again. An address
that opens more connections than it proves is refused, before a key is exchanged, so that others need not wait for it.
"""

import asyncio
import logging
import math
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress

from swell.server.unproven import Unproven, source

HANDSHAKE_SECONDS = 10.0
SHUTDOWN_SECONDS = 3600.0  # for what was written before a close to be read; protocols that wait for less abort
MAX_HANDSHAKES = 128
SLOW_SECONDS = 1.0  # after which one makes room for another, while none is accepted
LOOK_SECONDS = 0.1  # of them a turn of the loop counts for at most
BACKLOG = 2048
RETRY_SECONDS = 0.5  # after a connection could not be accepted, as where there are no file descriptors
REFUSALS_A_TURN = 32  # connections; then the loop has something else to do

_log = logging.getLogger(__name__)


class Waited:
    """For how long anybody has waited for room: several listening sockets' time counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._until = -math.inf

    def add(self, since: float, now: float) -> None:
        """Somebody did from then until now."""
        self.seconds += min(max(0.0, now - max(since, self._until)), LOOK_SECONDS)
        self._until = now


class TlsDoor:
    """Hands each connection whose handshake is done to a protocol of its own."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: dict[asyncio.Task[None], float] = {}  # oldest first, and how long had been waited before
        self._waited = Waited()
        self._unproven = Unproven()
        self.refused = 0  # connections, of addresses that open more than they prove

    async def open(self, host: str, port: int, context: Callable[[], ssl.SSLContext]) -> None:
        """Listen on every address of `host`, with what `context` says then. Raises OSError where one cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
                listening = socket.create_server(address, family=family, backlog=BACKLOG)
                listening.setblocking(False)
                self._sockets.append(listening)
        except OSError:
            self.close()
            raise
        self._accepting = [loop.create_task(self._accept(each, context)) for each in self._sockets]

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening, and let go of whoever has not proved yet who it is."""
        for task in (*self._accepting, *self._handshakes):
            task.cancel()
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    async def _accept(self, listening: socket.socket, context: Callable[[], ssl.SSLContext]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except OSError as error:
                _log.warning("gateways cannot be accepted now", extra={"reason": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
                continue
            address = source(peer)
            if not self._unproven.admits(address, loop.time()):
                self.refuse(accepted, address)
                if self.refused % REFUSALS_A_TURN == 0:
                    await asyncio.sleep(0)
                continue
            try:
                await self._make_room()
            except asyncio.CancelledError:
                accepted.close()
                raise
            task = loop.create_task(self._shake_hands(accepted, address, context()))
            self._handshakes[task] = self._waited.seconds
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    def refuse(self, accepted: socket.socket, address: str) -> None:
        """Close it at once, and leave nothing behind in the system."""
        with suppress(OSError):  # where it is gone already, some systems say so here
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with suppress(OSError):
            accepted.close()
        self.refused += 1
        if self.refused & (self.refused - 1) == 0:  # the first, the second, the fourth …: whoever knocks fills no disk
            reason = f"{address} opens more connections than it proves to be a gateway's; more of them are refused"
            _log.warning("connections are refused", extra={"reason": reason, "count": self.refused})

    async def _make_room(self) -> None:
        now = asyncio.get_running_loop().time
        while len(self._handshakes) >= MAX_HANDSHAKES:
            oldest, waited_before = next(iter(self._handshakes.items()))
            if self._waited.seconds - waited_before >= SLOW_SECONDS:
                oldest.cancel()
                del self._handshakes[oldest]
                return
            since = now()
            await asyncio.wait(self._handshakes, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            self._waited.add(since, now())

    async def _shake_hands(self, accepted: socket.socket, address: str, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=SHUTDOWN_SECONDS,
            )
        except OSError:  # it proved nothing, or gave up
            return
        self._unproven.proved(address, loop.time())
