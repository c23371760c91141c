"""Messages on the line of one worker, which may be slow: it is waited for as long as it moves.

A snapshot of thousands of keys is larger than a buffer shall be, and a line between machines takes its time for it.
While more waits than WRITE_BUFFER_BYTES, changes are not queued behind it: once the line has caught up it is sent
what it missed, as one that connects anew is. A line that does not move is cut.

What waits does so here, and a transport is given a piece at a time: TLS hands on all that it gets at once, to buffers
which nobody sees, and would not say that it is behind.
"""

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Protocol

from swell.server.acknowledged import acknowledged_bytes
from swell.state.messages import MAX_MESSAGE_BYTES, FromServer, encode_message
from swell.state.snapshot import Delta, Snapshot

PIECE_BYTES = 256 * 1024
WRITE_BUFFER_BYTES = 8 * 1024 * 1024  # that wait for a worker, from which on changes are not queued
MAX_UNREAD_BYTES = MAX_MESSAGE_BYTES + WRITE_BUFFER_BYTES  # with one snapshot in it; then the line is cut
MOVE_SECONDS = 10.0  # in which a line that is behind must take at least
MOVE_BYTES = 64 * 1024

_log = logging.getLogger(__name__)


class Later(Protocol):
    """The event loop's `call_later`."""

    def __call__(self, delay: float, callback: Callable[[int], object], argument: int, /) -> asyncio.TimerHandle: ...


class ControlLine:
    """The sending end. `caught_up` is called with the epoch and sequence that were sent last, once it takes more."""

    def __init__(
        self, transport: asyncio.Transport, caught_up: Callable[[int, int], None], later: Later | None = None
    ) -> None:
        self._transport = transport
        self._caught_up = caught_up
        self._later: Later = later or asyncio.get_running_loop().call_later
        self._waiting: deque[memoryview] = deque()  # only while the transport has no room
        self._waiting_bytes = 0
        self._has_room = True
        self._written = 0
        self._sent = (0, 0)  # epoch and sequence
        self._has_missed = False
        self._deadline: asyncio.TimerHandle | None = None  # while it is behind
        transport.set_write_buffer_limits(PIECE_BYTES)

    def send(self, message: FromServer) -> None:
        """Queue a message. A change that the line has no room for is made good later; other messages are small."""
        transport = self._transport
        if transport.is_closing():
            return
        if isinstance(message, Snapshot | Delta) and self._deadline is not None:
            self._has_missed = True
            return
        if self._waiting_bytes + transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._cut()
            return
        content = encode_message(message)
        if isinstance(message, Snapshot | Delta):
            self._sent = message.epoch, message.sequence
        self._waiting.append(memoryview(content))
        self._waiting_bytes += len(content)
        self._pass_on()
        if self._waiting_bytes > WRITE_BUFFER_BYTES and self._deadline is None:
            self._expect_more(self._taken())

    def is_full(self) -> None:
        """The transport has no room."""
        self._has_room = False

    def has_room(self) -> None:
        """The transport has room again."""
        self._has_room = True
        self._pass_on()
        if self._waiting_bytes > WRITE_BUFFER_BYTES // 4:
            return
        self._expect_nothing()
        if self._has_missed:
            self._has_missed = False
            self._caught_up(*self._sent)

    def finish(self) -> None:
        """Hand over all that waits: the transport is about to be closed."""
        while self._waiting:
            self._write(self._waiting.popleft())

    def close(self) -> None:
        """It has ended."""
        self._expect_nothing()
        self._waiting.clear()
        self._waiting_bytes = 0

    def _pass_on(self) -> None:
        while self._waiting and self._has_room and not self._transport.is_closing():
            content = self._waiting.popleft()
            if len(content) > PIECE_BYTES:
                self._waiting.appendleft(content[PIECE_BYTES:])
            self._write(content[:PIECE_BYTES])

    def _write(self, piece: memoryview) -> None:
        self._waiting_bytes -= len(piece)
        self._written += len(piece)
        self._transport.write(piece)

    def _expect_nothing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expect_more(self, taken: int) -> None:
        self._deadline = self._later(MOVE_SECONDS, self._look, taken)

    def _look(self, before: int) -> None:
        taken = self._taken()
        if taken - before < MOVE_BYTES:
            self._cut()
        else:
            self._expect_more(taken)

    def _cut(self) -> None:
        self.close()
        _log.warning("a worker does not read its control channel; its connection is cut")
        self._transport.abort()

    def _taken(self) -> int:
        """Bytes that the other side has. Of a line between machines those are counted; a worker of this machine has
        what was written and waits no more, here or in the system, which holds megabytes that go by fits and starts.
        """
        acknowledged = acknowledged_bytes(self._transport)
        if acknowledged is not None:
            return acknowledged
        held = bytearray(struct.calcsize("i"))
        end: socket.socket | None = self._transport.get_extra_info("socket")
        if end is not None and end.fileno() >= 0:
            fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, held)
        return self._written - self._transport.get_write_buffer_size() - int(struct.unpack("i", held)[0])
