"""The connection side of the scripted upstream: parse a request, look up its answer, write it step by step."""

import asyncio
import os
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import httptools
import msgspec

from swell.testing.upstream_journal import Journal, Line
from swell.testing.upstream_script import Body, Cut, Script, Writes, decode_body, decode_script
from swell.testing.upstream_shapes import CREATED, SHAPES, error_document
from swell.testing.upstream_wire import Answer, Question, plain, render

REMEMBERED_REQUESTS = 10_000  # of `UpstreamState.seen`
KEPT_REQUESTS = 256  # read and answered once, for load that repeats itself
KEPT_BODY_BYTES = 8192  # larger ones are read every time
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Seen:
    """One request, and how far its answer got: outcome is empty while it runs, then done, cut or client_gone."""

    request_id: str
    path: str
    headers: dict[str, str]
    body: bytes
    model: str
    answer: Answer
    outcome: str = ""
    delivered: int = 0


@dataclass(slots=True)
class Stats:
    """Counts since the start; `open` and `in_flight` are current."""

    connections: int = 0
    open: int = 0
    requests: int = 0
    in_flight: int = 0
    peak_in_flight: int = 0
    done: int = 0
    cut: int = 0
    client_gone: int = 0


@dataclass(slots=True)
class UpstreamState:
    """What all connections of one upstream share. `record` keeps requests in `seen`, for tests."""

    script: Script = field(default_factory=Script)
    models: tuple[str, ...] = ("m",)
    record: bool = True
    stats: Stats = field(default_factory=Stats, init=False)
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REQUESTS), init=False)
    journal: Journal | None = field(default=None, init=False)
    held: set["Exchange"] = field(default_factory=set, init=False)
    connections: set["Connection"] = field(default_factory=set, init=False)
    change: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def release(self) -> None:
        """Let every held answer go on."""
        held, self.held = self.held, set()
        for exchange in held:
            exchange.release()

    def drop(self) -> None:
        """Reset every open connection."""
        for connection in list(self.connections):
            connection.reset()

    def changed(self) -> None:
        """Wake those who wait for a request, an outcome or a connection."""
        self.change.set()


class Exchange:
    """One answer under way: writes its steps one by one."""

    __slots__ = ("answer", "connection", "index", "released", "request_id", "script", "seen", "timer", "waiting")

    def __init__(
        self, connection: "Connection", request_id: str, script: Script, answer: Answer, seen: Seen | None
    ) -> None:
        self.connection = connection
        self.request_id = request_id
        self.script = script
        self.answer = answer
        self.seen = seen
        self.index = 0
        self.released = False
        self.waiting = False  # for the client to read
        self.timer: asyncio.Handle | None = None

    @property
    def delivered(self) -> int:
        return self.answer.steps[self.index - 1][1] if self.index else 0

    def start(self) -> None:
        if self.script.head_delay_ms:
            self._later(self.script.head_delay_ms)
        else:
            self.step()

    def step(self) -> None:
        """Write one step, then arrange for the next, the end, the hold or the cut."""
        answer, connection = self.answer, self.connection
        self.timer = None
        if self.index == answer.hold_at and not self.released:
            connection.upstream.held.add(self)
            connection.upstream.changed()
            return
        if connection.paused:
            self.waiting = True
            return
        if self.index == len(answer.steps):
            self._cut()
            return
        if self.script.writes is Writes.RUSH and not self.script.delay_ms:
            self._rush()
        data, _ = answer.steps[self.index]
        self.index += 1
        if self.index == len(answer.steps) and not answer.cut:
            connection.finish(self, "done")
            connection.write_last(data, close=answer.close)
            return
        connection.transport.write(data)
        self._later(self.script.delay_ms)

    def _rush(self) -> None:
        """Write all but the last step, each with a system call of its own, as long as the socket takes them."""
        transport = self.connection.transport
        socket_number = transport.get_extra_info("socket").fileno()
        end = len(self.answer.steps) - 1
        if not self.released and self.answer.hold_at is not None:
            end = min(end, self.answer.hold_at - 1)
        while self.index < end and not transport.get_write_buffer_size() and not transport.is_closing():
            data, _ = self.answer.steps[self.index]
            try:
                # uvloop's own write would join everything written within one turn.
                sent = os.write(socket_number, data)
            except BlockingIOError:
                return
            except OSError:
                transport.abort()
                return
            self.index += 1
            if sent < len(data):
                transport.write(data[sent:])

    def release(self) -> None:
        self.released = True
        self._later(0)

    def resume(self) -> None:
        if self.waiting:
            self.waiting = False
            self.step()

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.connection.upstream.held.discard(self)

    def _later(self, delay_ms: float) -> None:
        loop = self.connection.loop
        # A turn of the loop between two writes, or uvloop would send them as one.
        self.timer = loop.call_later(delay_ms / 1000, self.step) if delay_ms else loop.call_soon(self.step)

    def _cut(self) -> None:
        self.connection.finish(self, "cut")
        if self.script.die is Cut.RESET:
            self.connection.reset()
        else:
            self.connection.transport.close()


class Connection(asyncio.Protocol):
    """HTTP/1.1 server side of one connection; answers requests one after the other."""

    def __init__(self, upstream: UpstreamState) -> None:
        self.upstream = upstream
        self.loop = asyncio.get_running_loop()
        self.paused = False
        self._exchange: Exchange | None = None
        self._waiting: deque[tuple[bytes, str, bytes, str, str, dict[str, str]]] = deque()
        self._parser = httptools.HttpRequestParser(self)
        self._reset_request()

    # -- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        stats = self.upstream.stats
        stats.connections += 1
        stats.open += 1
        self.upstream.connections.add(self)
        self.upstream.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.upstream.connections.discard(self)
        self.upstream.stats.open -= 1
        self._waiting.clear()
        if self._exchange is not None:
            self.finish(self._exchange, "client_gone")
        self.upstream.changed()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._answer_plain(plain(400, error_document(400, f"not HTTP: {error}"), close=True))

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None:
            self._exchange.resume()

    def reset(self) -> None:
        """Close with RST."""
        endpoint = self.transport.get_extra_info("socket")
        if endpoint is not None and not self.transport.is_closing():
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    # -- parser

    def _reset_request(self) -> None:
        self._url = b""
        self._request_id = ""
        self._script_text = ""
        self._headers: dict[str, str] = {}
        self._body: bytes | bytearray = b""

    def on_message_begin(self) -> None:
        self._reset_request()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        size = len(name)
        if size == 12 and name.lower() == b"x-request-id":
            self._request_id = value.decode("latin-1")
        elif size == 17 and name.lower() == b"x-upstream-script":
            self._script_text = value.decode("latin-1")
        if self.upstream.record:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body = self._body + data if self._body else data

    def on_message_complete(self) -> None:
        request = (
            self._parser.get_method(),
            self._url.partition(b"?")[0].decode("latin-1"),
            bytes(self._body),
            self._request_id,
            self._script_text,
            self._headers,
        )
        if self._exchange is None:
            self._handle(*request)
        else:
            self._waiting.append(request)

    # -- requests

    def _handle(
        self, method: bytes, path: str, data: bytes, request_id: str, script_text: str, headers: dict[str, str]
    ) -> None:
        if path not in SHAPES:
            self._answer_plain(self._other(method, path, data))
            return
        upstream = self.upstream
        try:
            read = _read_kept if len(data) <= KEPT_BODY_BYTES else _read
            body, script, answer = read(path, data, script_text, upstream.script)
        except msgspec.MsgspecError as error:
            message = f"the scripted upstream cannot read this request: {error}"
            self._answer_plain(plain(400, error_document(400, message)))
            return
        stats = upstream.stats
        stats.requests += 1
        stats.in_flight += 1
        stats.peak_in_flight = max(stats.peak_in_flight, stats.in_flight)
        request_id = request_id or f"upstream-{stats.requests}"
        seen = None
        if upstream.record:
            seen = Seen(request_id, path, headers, data, body.model, answer)
            upstream.seen.append(seen)
        if upstream.journal is not None:
            upstream.journal.write([_request_line(request_id, path, body, answer)])
        self._exchange = Exchange(self, request_id, script, answer, seen)
        if upstream.record:
            upstream.changed()
        self._exchange.start()

    def finish(self, exchange: Exchange, outcome: str) -> None:
        """Note the outcome, before the last bytes go out."""
        exchange.cancel()
        self._exchange = None
        upstream, stats = self.upstream, self.upstream.stats
        stats.in_flight -= 1
        setattr(stats, outcome, getattr(stats, outcome) + 1)
        if upstream.journal is not None:
            upstream.journal.write([Line(exchange.request_id, outcome, delivered=exchange.delivered)])
        if exchange.seen is not None:
            exchange.seen.outcome = outcome
            exchange.seen.delivered = exchange.delivered
            upstream.changed()

    def write_last(self, data: bytes, *, close: bool) -> None:
        """The end of an answer; then the next pipelined request."""
        self.transport.write(data)
        if close:
            self.transport.close()
        elif self._waiting:
            self.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._waiting and self._exchange is None:
            self._handle(*self._waiting.popleft())

    def _answer_plain(self, answer: Answer) -> None:
        self.write_last(answer.steps[0][0], close=answer.close)

    def _other(self, method: bytes, path: str, data: bytes) -> Answer:
        """Health, models and the control endpoints."""
        upstream = self.upstream
        if path in ("/health", "/healthz", "/ping", "/health_generate"):
            status = upstream.script.health
            return plain(status, {"status": "ok"} if status == 200 else error_document(status, "scripted health"))
        if path == "/v1/models":
            models = [
                {"id": name, "object": "model", "created": CREATED, "owned_by": "swell"} for name in upstream.models
            ]
            return plain(200, {"object": "list", "data": models})
        if path == "/_upstream/stats":
            return plain(200, {name: getattr(upstream.stats, name) for name in Stats.__slots__})
        if path == "/_upstream/script" and method == b"PUT":
            try:
                upstream.script = decode_script(data)
            except msgspec.MsgspecError as error:
                return plain(400, error_document(400, f"not a script: {error}"))
            return plain(200, {"ok": True})
        if path == "/_upstream/release" and method == b"POST":
            upstream.release()
            return plain(200, {"ok": True})
        if path == "/_upstream/drop" and method == b"POST":
            upstream.drop()
            return plain(200, {"ok": True}, close=True)
        return plain(404, error_document(404, f"the scripted upstream has no {path}"))


def _read(path: str, data: bytes, script_text: str, default: Script) -> tuple[Body, Script, Answer]:
    """What a request says and what it gets; msgspec.MsgspecError if it says nothing readable."""
    body = decode_body(data)
    text = script_text or body.script_text
    script = decode_script(text) if text else default
    return body, script, render(_question(path, body, script))


_read_kept = lru_cache(maxsize=KEPT_REQUESTS)(_read)


def _question(path: str, body: Body, script: Script) -> Question:
    return Question(
        path=path,
        model=body.model,
        prompt_tokens=body.prompt_tokens(),
        choices=max(1, body.n or 1),
        inputs=body.inputs(),
        token_limit=body.token_limit,
        stream=bool(body.stream),
        include_usage=body.include_usage,
        script=script,
    )


def _request_line(request_id: str, path: str, body: Body, answer: Answer) -> Line:
    return Line(
        id=request_id,
        event="request",
        path=path,
        model=body.model,
        stream=bool(body.stream),
        status=answer.status,
        prompt_tokens=answer.prompt_tokens,
        completion_tokens=answer.completion_tokens,
        usage_reported=answer.usage_reported,
    )
