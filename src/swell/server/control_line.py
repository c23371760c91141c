"""Messages on the line of one worker, which may be slow: it is waited for as long as it moves.

A snapshot of thousands of keys is larger than a buffer shall be, and a line between machines takes its time for it.
While more is unread than WRITE_BUFFER_BYTES, changes are not queued behind it: once the line has caught up it is sent
what it missed, as one that connects anew is. A line that does not move is cut.
"""

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from collections.abc import Callable
from typing import Protocol

from swell.server.acknowledged import acknowledged_bytes
from swell.state.messages import MAX_MESSAGE_BYTES, FromServer, encode_message
from swell.state.snapshot import Delta, Snapshot

WRITE_BUFFER_BYTES = 8 * 1024 * 1024  # unread by a worker, from which on changes wait
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
        self._written = 0
        self._sent = (0, 0)  # epoch and sequence
        self._has_missed = False
        self._deadline: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(WRITE_BUFFER_BYTES)

    def send(self, message: FromServer) -> None:
        """Queue a message. A change that the line has no room for is made good later; other messages are small."""
        transport = self._transport
        if transport.is_closing():
            return
        is_change = isinstance(message, Snapshot | Delta)
        if is_change and self._deadline is not None:
            self._has_missed = True
            return
        if transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self._cut()
            return
        content = encode_message(message)
        self._written += len(content)
        if isinstance(message, Snapshot | Delta):
            self._sent = message.epoch, message.sequence
        transport.write(content)

    def is_full(self) -> None:
        """More is unread than there shall be."""
        self._expect_more(self._taken())

    def has_room(self) -> None:
        """It has caught up."""
        self.close()
        if self._has_missed:
            self._has_missed = False
            self._caught_up(*self._sent)

    def close(self) -> None:
        """Wait for nothing any more."""
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
