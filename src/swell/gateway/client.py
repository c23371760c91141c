"""A client's connection: HTTP/1.1 in, answers out.

The C parser (llhttp in its strict mode) refuses conflicting or malformed lengths and codings, folded
headers, bare CR or LF and control characters. Sizes, counts and times are bounded here. Whatever is
refused for its form gets one answer and the connection is closed, so that nothing after it can be read
as a request. Requests are authenticated when their headers are complete, before their body is read.
"""

import asyncio
import hmac
import ipaddress
import re
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

from swell.gateway.responses import CONTINUE, Refusal, error_body, head, retry_after

if TYPE_CHECKING:
    from swell.gateway.directory import Key
    from swell.gateway.exchange import Exchange
    from swell.gateway.service import Service

_OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # everything else needs a key
_LOCAL_PATH = "/metrics"  # needs one from elsewhere than this machine: it names models and tells their traffic
JSON = b"application/json"
LINGER_SECONDS = 2.0  # reading and dropping what a refused client still sends, so that it gets the answer
URL_BYTES = 8 * 1024
LENGTH_DIGITS = 12

_LENGTH_LINE = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,12})[ \t]*\r\n", re.IGNORECASE)
_NOTHING_KNOWN = b"\0"  # no request begins so

_WANTED = {
    b"authorization": "authorization",
    b"x-api-key": "api_key",
    b"content-length": "content_length",
    b"host": "host",
    b"transfer-encoding": "coding",
    b"expect": "expect",
    b"x-session-id": "session",
    b"x-swell-priority": "priority",
}
_SINGLE = frozenset({"authorization", "api_key", "host", "coding"})


# Where a header's value is kept, by its name as clients spell it; learned, so that names are folded to lower
# case once and not with every request. Names that nobody wants are kept as "".
_slots: dict[bytes, str] = {}
LEARNED_NAMES = 1024


def _learn_slot(name: bytes) -> str:
    slot = _WANTED.get(name.lower(), "")
    if len(_slots) < LEARNED_NAMES:
        _slots[name] = slot
    return slot


class Head:
    """What is kept of a request's headers."""

    __slots__ = (
        "headers", "is_old", "keep_alive", "key", "method", "path", "refusal", "started",
    )  # fmt: skip

    def __init__(self, started: float) -> None:
        self.started = started
        self.method = b""
        self.path = ""
        self.headers: dict[str, bytes] = {}
        self.keep_alive = True
        self.is_old = False  # HTTP/1.0: no chunked coding, no keep-alive
        self.key: Key | None = None
        self.refusal: Refusal | None = None

    @property
    def is_anthropic(self) -> bool:
        """Whether errors have Anthropic's shape."""
        return self.path == "/v1/messages"


class ClientConnection(asyncio.Protocol):
    """One client connection; serves one request at a time, in order."""

    __slots__ = (
        "_answered", "_body", "_cached_key", "_cached_token", "_closing", "_deadline", "_discarding", "_fields",
        "_first_read", "_halted", "_head", "_known", "_known_end", "_known_start", "_parser", "_pending", "_read_bytes",
        "_reading", "_service", "_serving", "_unread_bytes", "_unread_since", "_url", "exchange", "on_body", "on_url",
        "transport",
    )  # fmt: skip

    def __init__(self, service: "Service") -> None:
        self._service = service
        # What the parser calls with pieces are methods written in C; sizes are checked per read.
        self._url: list[bytes] = []
        self._body: list[bytes] = []
        self.on_url = self._url.append
        self.on_body = self._body.append
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.exchange: Exchange | None = None
        self._serving: Head | None = None  # the request being answered
        self._head: Head | None = None  # the request being read
        self._read_bytes = 0  # of the request being read, body included
        self._reading = 0  # bytes of the read that is being parsed
        self._first_read = b""  # in which the request being read began, if it began that read
        self._known_start = _NOTHING_KNOWN
        self._known_end = b""
        self._known: Head | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._pending: deque[tuple[Head, bytes]] = deque()
        self._deadline = 0.0
        self._discarding = False
        self._closing = False
        self._halted = False  # closing, or the client does not read
        self._answered = False  # the answer is complete, and the client has yet to read it
        self._unread_bytes = 0
        self._unread_since = 0.0
        self._cached_token = b""
        self._cached_key: Key | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        service = self._service
        if len(service.clients) >= service.bounds.connections or service.draining:
            service.counters.outcome("connection_refused")
            self.transport.abort()
            return
        service.clients.add(self)
        self.transport.set_write_buffer_limits(high=service.bounds.client_buffer_bytes)
        self._deadline = service.now() + service.timeouts.header_seconds

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = None  # type: ignore[assignment]  # it holds this object: no cycle is left to collect
        self._service.clients.discard(self)
        self._pending.clear()
        self._closing = self._halted = True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_left()

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._reading = len(data)
        if self._head is not None:
            self._read_bytes += self._reading
        else:
            if data.startswith(self._known_start) and self._serving is None and self._serve_known(data):
                return
            self._first_read = data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._malformed(str(error))
            return
        request = self._head
        if request is None:
            return
        bounds = self._service.bounds
        if not request.method:
            if self._read_bytes > bounds.header_bytes:
                self._close_with(Refusal(431, "The headers are too large.", code="headers_too_large"))
        elif self._read_bytes > bounds.body_bytes + bounds.header_bytes:
            self._close_with(_too_large(bounds.body_bytes))
        elif request.refusal is not None:
            self._body.clear()  # it is answered when it has been read; nobody needs it

    def _serve_known(self, data: bytes) -> bool:
        """Serve a request that came in one read and whose head equals the last one's but for its length's digits.

        Clients send the same head over and over on a connection. The strict parser has accepted it, and other
        digits cannot change what the rest of it means. False: the parser must look.
        """
        start = len(self._known_start)
        known_end = self._known_end
        end = data.find(known_end, start, start + LENGTH_DIGITS + len(known_end))
        digits = data[start:end]
        if end < 0 or not digits.isdigit():
            return False
        body_start = end + len(known_end)
        length = len(data) - body_start
        service = self._service
        known = self._known
        if int(digits) != length or length > service.bounds.body_bytes or known is None:
            return False
        key = known.key
        if key is None or not key.live or not key.has_one_secret or service.wall_clock() >= key.expires_at_unix:
            return False
        known.started = service.now()
        self._serve(known, data[body_start:])
        return True

    def _learn_head(self, request: Head) -> None:
        """Remember a head for `_serve_known`, if it was read in one piece from the start of a read."""
        data, self._first_read = self._first_read, b""
        end = data.find(b"\r\n\r\n") + 4
        length = _LENGTH_LINE.search(data, 0, end)
        if length is not None and request.keep_alive and request.key is not None and "expect" not in request.headers:
            self._known_start, self._known_end = data[: length.start(1)], data[length.end(1) : end]
            self._known = request

    def pause_writing(self) -> None:
        """The client does not keep up: nothing more is fetched for it, and its next request waits."""
        self._halted = True
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self._halted = self._closing
        if self.exchange is not None:
            self.exchange.resume()
        elif self._answered:
            self._answered = False
            self.finish()

    def eof_received(self) -> None:
        """The client has closed its side; it is gone."""
        self._closing = self._halted = True

    # httptools: reading a request

    def on_message_begin(self) -> None:
        service = self._service
        now = service.now()
        self._head = Head(now)
        self._url.clear()
        self._body.clear()
        self._read_bytes = self._reading
        self._fields = []
        self._deadline = now + service.timeouts.header_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        request = self._head
        if request is None or self._discarding:
            return
        service = self._service
        request.method = self._parser.get_method()
        version = self._parser.get_http_version()
        request.is_old = version == "1.0"
        request.keep_alive = not request.is_old and self._parser.should_keep_alive()
        headers = request.headers
        for name, value in self._fields:
            slot = _slots.get(name)
            if slot is None:
                slot = _learn_slot(name)
            if slot:
                if slot in headers and slot in _SINGLE:
                    headers["twice"] = slot.encode()
                headers[slot] = value
        url = self._url[0] if len(self._url) == 1 else b"".join(self._url)
        request.path = url.partition(b"?")[0].decode("latin-1")
        refusal = request.refusal or self._check_head(request, version)
        if refusal is not None:
            self._close_with(refusal)
            return
        self._deadline = request.started + service.timeouts.body_seconds
        if request.path not in _OPEN_PATHS and not (request.path == _LOCAL_PATH and self._is_local()):
            try:
                request.key = self._authenticate(request)
            except Refusal as error:
                request.refusal = error
                if int(headers.get("content_length", b"0")) > service.bounds.header_bytes or "coding" in headers:
                    self._close_with(error)
                return
        if "expect" in headers and headers["expect"].lower() == b"100-continue" and self._serving is None:
            self.transport.write(CONTINUE)

    def on_message_complete(self) -> None:
        request, self._head = self._head, None
        if request is None or self._discarding:
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if self._first_read:
            self._learn_head(request)
        if self._serving is not None:
            if len(self._pending) >= self._service.bounds.pipelined_requests:
                self._close_with(Refusal(429, "Too many requests are pipelined.", code="too_many_pipelined"))
                return
            self._pending.append((request, body))
            if len(self._pending) == self._service.bounds.pipelined_requests:
                self.transport.pause_reading()  # not before: who does not read does not notice that the client left
            return
        self._serve(request, body)

    def _check_head(self, request: Head, version: str) -> Refusal | None:
        bounds = self._service.bounds
        if len(request.path) > URL_BYTES:
            return Refusal(414, "The URL is too long.", code="url_too_long")
        if len(self._fields) > bounds.header_count or (
            self._read_bytes > bounds.header_bytes
            and sum(len(name) + len(value) for name, value in self._fields) > bounds.header_bytes
        ):
            return Refusal(431, "The headers are too large or too many.", code="headers_too_large")
        if not request.path.startswith("/"):
            return Refusal(400, "The request target must be a path.", code="bad_target")
        if version not in ("1.1", "1.0"):
            return Refusal(505, "Use HTTP/1.1.", code="http_version")
        if "coding" in request.headers and request.headers["coding"].strip().lower() != b"chunked":
            return Refusal(501, "Only the transfer coding 'chunked' is accepted.", code="transfer_coding")
        if self._parser.should_upgrade():
            return Refusal(501, "Upgrades are not accepted; speak HTTP/1.1.", code="upgrade")
        if "twice" in request.headers:
            name = request.headers["twice"].decode()
            return Refusal(400, f"The header '{name}' is given twice.", code="duplicate_header")
        if "host" not in request.headers and not request.is_old:
            return Refusal(400, "The header 'host' is missing.", code="no_host")
        if int(request.headers.get("content_length", b"0")) > bounds.body_bytes:
            return _too_large(bounds.body_bytes)
        return None

    def _authenticate(self, request: Head) -> "Key":
        token = request.headers.get("api_key", b"")
        if "authorization" in request.headers:
            scheme, _, token = request.headers["authorization"].partition(b" ")
            if scheme.lower() != b"bearer":
                raise Refusal(401, "Use 'Authorization: Bearer KEY'.", code="invalid_api_key")
            token = token.strip()
        if not token:
            raise Refusal(401, "Give a key: 'Authorization: Bearer KEY' or 'x-api-key: KEY'.", code="missing_api_key")
        service = self._service
        cached = self._cached_key
        if (
            cached is not None
            and cached.live
            and cached.has_one_secret
            and service.wall_clock() < cached.expires_at_unix
            and hmac.compare_digest(token, self._cached_token)
        ):
            return cached
        self._cached_key = service.authenticate(token)
        self._cached_token = token
        return self._cached_key

    # Serving

    def _serve(self, request: Head, body: bytes) -> None:
        self._serving = request
        self._deadline = 0.0
        try:
            if request.refusal is not None:
                raise request.refusal
            self.exchange = self._service.serve(self, request, body)
        except Refusal as refusal:
            self._service.counters.outcome(refusal.code)
            self.refuse(refusal)
        else:
            if self.exchange is not None:
                self.exchange.start()

    def respond(self, status: int, headers: bytes, content_type: bytes, body: bytes) -> None:
        """A whole answer (exchange.Client)."""
        if self._closing:
            return
        close = self._says_it_closes()
        self.transport.write(head(status, headers, content_type=content_type, length=len(body), close=close) + body)
        self._finish(close)

    def begin(self, status: int, headers: bytes, content_type: bytes) -> tuple[bytes, bool]:
        """The head of a stream (exchange.Client)."""
        if self._serving is not None and self._serving.is_old:
            line = b"HTTP/1.1 %d OK\r\ncontent-type: %b\r\nconnection: close\r\n%b\r\n"
            return line % (status, content_type, headers), False
        return head(status, headers, content_type=content_type, length=None, close=self._says_it_closes()), True

    def finish(self) -> None:
        """The answer is complete; the next request may begin."""
        self._finish(self._closes_after())

    def _finish(self, close: bool) -> None:
        self.exchange = None
        if self._halted:
            self._answered = not self._closing  # `resume_writing` goes on
            return
        self._serving = None
        if close:
            self._close()
            return
        self._deadline = self._service.coarse_now + self._service.timeouts.keep_alive_seconds
        if self._pending:
            request, body = self._pending.popleft()
            self.transport.resume_reading()
            self._serve(request, body)

    def abort(self) -> None:
        """Cut the connection (exchange.Client)."""
        self.exchange = None
        self._closing = self._halted = True
        self.transport.abort()

    def refuse(self, refusal: Refusal, headers: bytes = b"") -> None:
        """An error of Swell's own (exchange.Client)."""
        anthropic = self._serving is not None and self._serving.is_anthropic
        self.reply(refusal.status, headers + retry_after(refusal), error_body(refusal, anthropic=anthropic))

    def reply(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole answer of Swell's own. A HEAD request gets its head alone."""
        if self._serving is None or self._serving.method != b"HEAD":
            self.respond(status, headers, JSON, body)
        elif not self._closing:
            close = self._says_it_closes()
            self.transport.write(head(status, headers, content_type=JSON, length=len(body), close=close))
            self.finish()

    def check(self, now: float) -> None:
        """Called a few times a second: headers, bodies and idle connections have their time."""
        if self._halted and self.exchange is None:
            self._check_unread(now)
        elif not self._deadline or now < self._deadline or self._serving is not None:
            return
        elif self._discarding or self._head is None:
            self._close()
        else:
            self._close_with(Refusal(408, "The request did not arrive in time.", code="request_timeout"))

    def _check_unread(self, now: float) -> None:
        """Cut a client off that has read nothing of its answer for `slow_client_seconds`."""
        unread = self.transport.get_write_buffer_size()
        if unread != self._unread_bytes:
            self._unread_bytes, self._unread_since = unread, now
        elif unread and now - self._unread_since > self._service.timeouts.slow_client_seconds:
            self._service.counters.outcome("slow_client")
            self.abort()

    def stop(self) -> None:
        """The worker stops: close now if idle, else when the answer is complete (`_closes_after`)."""
        if self._serving is None and self._head is None:
            self._close()

    def _close(self) -> None:
        """Close when everything has been read; `check` sees to it that this comes to an end."""
        self._closing = self._halted = True
        self.transport.close()

    def _says_it_closes(self) -> bool:
        """Whether the head that is written now tells the client to send nothing more here."""
        if self._service.leaving and self._serving is not None:
            self._serving.keep_alive = False
        return self._closes_after()

    def _closes_after(self) -> bool:
        """A stream that did not say so is closed only by one that drains: its client may send the next request."""
        return self._service.draining or self._serving is None or not self._serving.keep_alive

    def _is_local(self) -> bool:
        peer = self.transport.get_extra_info("peername")
        return bool(peer) and ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback

    def _malformed(self, reason: str) -> None:
        self._close_with(Refusal(400, f"This is not an HTTP request Swell accepts: {reason}.", code="bad_http"))

    def _close_with(self, refusal: Refusal) -> None:
        """Answer once and read no more requests. An answer under way is completed first."""
        if self._discarding or self._closing:
            return
        self._service.counters.outcome(refusal.code)
        self._discarding = True
        self._pending.clear()
        self._head = None
        if self._serving is not None:
            self._serving.keep_alive = False
            return
        body = error_body(refusal)
        self.transport.write(
            head(refusal.status, retry_after(refusal), content_type=JSON, length=len(body), close=True) + body
        )
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline = self._service.now() + LINGER_SECONDS


def _too_large(limit: int) -> Refusal:
    return Refusal(413, f"The body is larger than {limit} bytes.", code="body_too_large")
