"""Connections to replicas: keep-alive HTTP/1.1, one request at a time each.

The C parser checks syntax and finds the end of an answer; body bytes are handed on as they were read,
framing included, to `sink`; `chunk_marks` holds one entry per chunk begun and one per chunk completed.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

import httptools

from swell.errors import StateError
from swell.gateway.pacer import BURST_SECONDS, Pacer
from swell.security.replica_tls import Identities
from swell.state.snapshot import ReplicaEntry
from swell.state.worker import Bounds, Timeouts

EVENT_STREAM = b"text/event-stream"
MAX_ANSWER_HEAD_BYTES = 64 * 1024
LENGTH_DIGITS = 12

_LENGTH_LINE = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_NOTHING_KNOWN = b"\0"  # no answer begins so


class Listener(Protocol):
    """Who waits for an answer."""

    def answer_begins(self, connection: "UpstreamConnection") -> None:
        """Status and headers are known. Sets `connection.sink`, or aborts the connection."""

    def answer_whole(self, content_type: bytes, body: bytes) -> None:
        """A whole answer with status 200; no more calls follow."""

    def answer_ends(self, *, reusable: bool) -> None:
        """The answer is complete; no more calls follow."""

    def answer_fails(self, reason: str, *, stale: bool) -> None:
        """No complete answer will come. `stale`: a kept connection that the replica had closed already."""


class UpstreamConnection(asyncio.Protocol):
    """One connection. `listener` is None while it is idle."""

    __slots__ = (
        "_complete", "_first_read", "_head", "_headers", "_headers_done", "_held", "_in_body", "_keeps_alive",
        "_known_end", "_known_start", "_known_type", "_pacer", "_parser", "_pool", "_read_at", "_rests",
        "chunk_marks", "chunked", "content_type", "is_reused", "length", "listener", "on_chunk_complete",
        "on_chunk_header", "on_header", "retry_after", "sink", "status", "transport",
    )  # fmt: skip

    def __init__(self, pool: "UpstreamPool") -> None:
        self._pool = pool
        # What the parser calls most often are methods written in C, bound to plain containers: a Python
        # frame per header and per chunk would cost a tenth of a short stream.
        self._headers: dict[bytes, bytes] = {}
        self.chunk_marks: list[None] = []
        self.on_header = self._headers.__setitem__
        self.on_chunk_header = self.on_chunk_complete = partial(self.chunk_marks.append, None)
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.listener: Listener | None = None
        self.is_reused = False
        self.sink: Callable[[bytes], None] = _nobody
        self._first_read = b""
        self._known_start = _NOTHING_KNOWN
        self._known_end = b""
        self._known_type = b""
        self._held = False  # the client does not keep up
        self._rests = False  # between two reads of a burst
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._headers_done = False
        self._in_body = False
        self._pacer: Pacer | None = None  # of an event stream
        self._read_at = 0.0
        self._complete = False
        self._keeps_alive = False
        self._headers.clear()
        self.chunk_marks.clear()
        self.status = 0
        self.content_type = b""
        self.length = -1
        self.chunked = False
        self.retry_after = b""

    def send(self, listener: Listener, data: bytes) -> None:
        """Send one request and hand its answer to `listener`."""
        self.listener = listener
        self.transport.write(data)

    def abort(self) -> None:
        """Drop the connection; its listener hears nothing more. The replica cancels the request."""
        self.listener = None
        self.transport.abort()

    def hold(self) -> None:
        """Read no more until `go_on`: the client does not keep up."""
        if not self._rests and not self._held:
            self.transport.pause_reading()
        self._held = True

    def go_on(self) -> None:
        """Read again, if `hold` was called before."""
        if self._held:
            self._held = False
            self._resume()

    def rested(self) -> None:
        """Read again after a pause in a burst (pacer.Resting)."""
        self._rests = False
        self._resume()

    def _resume(self) -> None:
        if not self._rests and not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def _pace(self, pacer: Pacer) -> None:
        now = self._pool.now()
        if now - self._read_at < BURST_SECONDS and not self._held:
            self._rests = True
            self.transport.pause_reading()
            pacer.rest(self)
        self._read_at = now

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.lost(self)
        self._parser = None  # type: ignore[assignment]  # it holds this object: no cycle is left to collect
        listener, self.listener = self.listener, None
        if listener is None:
            return
        if exc is None and self._in_body and self.length < 0 and not self.chunked:
            listener.answer_ends(reusable=False)  # an answer that lasts until the connection closes
        else:
            nothing_came = not self._head and not self._headers_done
            listener.answer_fails("the replica closed the connection", stale=self.is_reused and nothing_came)

    def data_received(self, data: bytes) -> None:
        listener = self.listener
        if listener is None:
            self.transport.abort()  # nobody asked
            return
        if not self._in_body:
            if data.startswith(self._known_start) and not self._headers_done and self._take_known(listener, data):
                return
            self._first_read = data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"the replica's answer is not HTTP: {error}")
            return
        if self._in_body:
            self.sink(data)
        elif self._headers_done:
            head = self._head + data if self._head else data
            self._head = b""
            self._in_body = True
            if head is not self._first_read:
                head = _without_interim(head)
            elif self.length >= 0:
                self._learn_head(head)
            body = head[head.find(b"\r\n\r\n") + 4 :]
            listener.answer_begins(self)
            if self.listener is listener:
                self.sink(body)  # also where none has come: a stream's head waits for what came with it
        else:
            self._head += data
            if len(self._head) > MAX_ANSWER_HEAD_BYTES:
                self._break("the replica's answer has too large a head")
            return
        if self.listener is listener:
            if self._complete:
                self._finish(listener)
            elif self._pacer is not None and self._pacer.is_busy:
                self._pace(self._pacer)

    def _take_known(self, listener: Listener, data: bytes) -> bool:
        """Take an answer that came in one read and whose head equals the last one's but for its length's digits."""
        start = len(self._known_start)
        known_end = self._known_end
        end = data.find(known_end, start, start + LENGTH_DIGITS + len(known_end))
        digits = data[start:end]
        body_start = end + len(known_end)
        if end < 0 or self._head or not digits.isdigit() or int(digits) != len(data) - body_start:
            return False
        self.listener = None
        if self.transport.is_closing():
            self.transport.close()
        else:
            self._pool.put(self)
        listener.answer_whole(self._known_type, data[body_start:])
        return True

    def _learn_head(self, head: bytes) -> None:
        """Remember the head of a plain answer for `_take_known`."""
        end = head.find(b"\r\n\r\n") + 4
        length = _LENGTH_LINE.search(head, 0, end)
        plain = self.status == 200 and self._keeps_alive and not self.content_type.startswith(EVENT_STREAM)
        if length is not None and plain:
            self._known_start, self._known_end = head[: length.start(1)], head[length.end(1) : end]
            self._known_type = self.content_type or b"application/json"

    def _finish(self, listener: Listener) -> None:
        reusable = self._keeps_alive and not self.transport.is_closing()
        self.listener = None
        self._reset()
        if reusable:
            self._pool.put(self)
        else:
            self.transport.close()
        listener.answer_ends(reusable=reusable)

    def _break(self, reason: str) -> None:
        listener = self.listener
        self.abort()
        if listener is not None:
            listener.answer_fails(reason, stale=False)

    # httptools

    def on_headers_complete(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")  # the parser reports it as its own error
        self._headers_done = True
        self.status = self._parser.get_status_code()
        if self.status != 200:
            self._note_unusual()
        self.content_type = self._header(b"content-type")
        if self.content_type.startswith(EVENT_STREAM):
            self._pacer = self._pool.pacer
        length = self._header(b"content-length")
        if length:
            self.length = int(length)
        else:
            self.chunked = self._header(b"transfer-encoding").lower().endswith(b"chunked")
        self._keeps_alive = self._parser.should_keep_alive()  # asked later, the parser has forgotten

    def _header(self, name: bytes) -> bytes:
        headers = self._headers
        value = headers.get(name)
        if value is None:
            value = headers.get(name.title())
            if value is None:
                return next((headers[given] for given in headers if given.lower() == name), b"")
        return value

    def _note_unusual(self) -> None:
        self.retry_after = self._header(b"retry-after")
        if self.status < 200:  # an interim answer: the real one follows
            self._headers_done = False
            self._first_read = b""
            self._headers.clear()

    def on_message_complete(self) -> None:
        self._complete = self._headers_done


def _without_interim(head: bytes) -> bytes:
    """`head` from the real answer on."""
    while head[9:10] == b"1":
        head = head[head.find(b"\r\n\r\n") + 4 :]
    return head


def _nobody(data: bytes) -> None:
    """No answer is expected."""


class UpstreamPool:
    """Connections to one replica. Idle ones are reused, the latest first."""

    def __init__(
        self,
        entry: ReplicaEntry,
        timeouts: Timeouts,
        bounds: Bounds,
        *,
        identities: Identities | None = None,
        pacer: Pacer | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entry = entry
        self.pacer = pacer
        self.now = now
        self._timeouts = timeouts
        self._bounds = bounds
        self._idle: list[UpstreamConnection] = []
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._identities = identities or Identities()
        self._tls = ssl.create_default_context() if entry.tls and not entry.identity else None

    def take(self) -> UpstreamConnection | None:
        """An idle connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.is_reused = True
                return connection
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        if self._closed or len(self._idle) >= self._bounds.idle_upstream_connections:
            connection.transport.close()
        else:
            self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        """A connection is closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def connect(self, ready: Callable[[UpstreamConnection | None, str], None]) -> Callable[[], None]:
        """Open a connection, then call `ready` with it or with the reason why not. The result cancels."""
        task = asyncio.get_running_loop().create_task(self._connect(ready))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task.cancel  # type: ignore[return-value]

    def close(self) -> None:
        """Close idle connections; busy ones close when their answer ends."""
        self._closed = True
        for connection in self._idle:
            connection.transport.close()
        self._idle.clear()

    async def _connect(self, ready: Callable[[UpstreamConnection | None, str], None]) -> None:
        loop, entry, tls = asyncio.get_running_loop(), self._entry, self._tls
        try:
            if entry.identity:
                tls = self._identities.context(entry.identity)  # the newest, since what it stands for is renewed
            async with asyncio.timeout(self._timeouts.connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    entry.host,
                    entry.port,
                    ssl=tls,
                    server_hostname=entry.server_name or None,
                )
        except TimeoutError:
            ready(None, "the replica did not accept a connection in time")
        except StateError as error:
            ready(None, str(error))
        except OSError as error:
            ready(None, f"the replica refused the connection: {error.strerror or error}")
        else:
            ready(connection, "")
