"""A replica's answer on its way to the client.

A JSON answer is held until it is complete (bounded), so that its usage is known and a replica that dies
half-way can still be replaced. An event stream goes through as it came: whole chunks are written with
their framing, one write per read. Only two things are looked for in a read, both by C searches: the usage
object, and how many content events went by (what a cut stream is billed for).

A read that does not end where an event ends, an upstream without chunked coding, and a client without it,
take the slow path: payload is cut into events and framed anew, from there to the end of the stream.
"""

import re
from typing import TYPE_CHECKING

from swell.gateway.events import (
    ChunkDecoder,
    EventFilter,
    Usage,
    usage_of_answer,
    usages_in,
    without_usage_chunk,
)
from swell.gateway.request import MESSAGES, RESPONSES
from swell.gateway.responses import LAST_CHUNK, Refusal, chunk, error_body, error_event
from swell.gateway.upstream import UpstreamConnection
from swell.state.usage import UsageStatus

if TYPE_CHECKING:
    from swell.gateway.exchange import Exchange

_EVENT_STREAM = b"text/event-stream"
_JSON = b"application/json"
_CONTENT_MARKS = {MESSAGES: b"event: content_block_delta", RESPONSES: b"event: response.output_text.delta"}
_CHAT_MARK = b'data: {"'  # a quote inside generated text is escaped, so text cannot forge it
_ROLE_ONLY = re.compile(rb'"delta"\s*:\s*\{\s*"role"\s*:\s*"[a-z]+"\s*(?:,\s*"content"\s*:\s*(?:""|null)\s*)?\}')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')


class Relay:
    """Carries one answer. Made when the answer's head has arrived."""

    __slots__ = (
        "_completion_tokens",
        "_connection_chunked",
        "_content_type",
        "_decoder",
        "_exchange",
        "_filter",
        "_framed",
        "_held",
        "_held_bytes",
        "_last",
        "_mark",
        "_retry_after",
        "_status",
        "_streams",
        "delivered_tokens",
        "first_token_at",
        "has_begun",
        "prompt_tokens",
    )  # fmt: skip

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        self._exchange = exchange
        self._status = connection.status
        self._content_type = connection.content_type or _JSON
        self._connection_chunked = connection.chunked
        self._retry_after = connection.retry_after
        self._streams = connection.status == 200 and self._content_type.startswith(_EVENT_STREAM)
        self._mark = _CONTENT_MARKS.get(exchange.path, _CHAT_MARK)
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._last = b""
        self._decoder: ChunkDecoder | None = None
        self._filter: EventFilter | None = None
        self._framed = True
        self._completion_tokens = -1
        self.prompt_tokens = 0
        self.delivered_tokens = 0
        self.first_token_at = 0.0
        self.has_begun = self._streams
        if self._streams:
            headers = b"cache-control: no-cache\r\n" + exchange.headers()
            self._framed = exchange.client.begin(200, headers, self._content_type)
            if not (self._connection_chunked and self._framed):
                self._take_slow_path()

    def data(self, data: bytes, *, at_boundary: bool) -> None:
        """Raw body bytes."""
        if not self._streams:
            self._hold(data)
            return
        if self._filter is None and not (
            at_boundary and (data.endswith((b"\n\n\r\n", b"\n\n\r\n0\r\n\r\n")) or data == LAST_CHUNK)
        ):
            self._take_slow_path()
        if self._filter is not None:
            self._slow(data)
            return
        at = data.rfind(b'"usage":')
        if at >= 0:
            data = self._read_usage(data, at)
            if not data:
                return
        self._count(data)
        self._exchange.client.write(data)

    def end(self) -> None:
        """The answer is complete."""
        if self._streams:
            self._end_stream()
        else:
            self._end_answer()

    def cut(self, refusal: Refusal) -> None:
        """The stream broke off: count what was delivered and tell the client in the stream."""
        exchange = self._exchange
        if self._completion_tokens >= 0:
            exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, self._completion_tokens, 200)
        else:
            self._forget_finish()
            prompt = self.prompt_tokens or exchange.admitted.prompt_tokens_estimate
            exchange.settle(UsageStatus.ESTIMATED, prompt, self.delivered_tokens, refusal.status)
        exchange.service.counters.outcome(refusal.code)
        exchange.end()
        event = error_event(refusal, anthropic=exchange.is_anthropic)
        exchange.client.write(chunk(event) + LAST_CHUNK if self._framed else event)
        exchange.client.finish()

    # Streams

    def _count(self, data: bytes) -> None:
        self._last = data
        events = data.count(self._mark)
        if not self.first_token_at and events:
            if self._mark is _CHAT_MARK:
                events -= len(_ROLE_ONLY.findall(data))
            if events:
                self.first_token_at = self._exchange.service.now()
        self.delivered_tokens += events

    def _forget_finish(self) -> None:
        if self._mark is _CHAT_MARK and _FINISHED.search(self._last):
            self.delivered_tokens -= 1

    def _read_usage(self, data: bytes, at: int) -> bytes:
        """Note the usage in `data`; return what of it goes to the client."""
        if not self._note_usage(data) or self._exchange.admitted.wants_usage:
            return data
        rest = without_usage_chunk(data, at)
        if rest is not None:
            return rest
        self._take_slow_path()
        self._slow(data)
        return b""

    def _note_usage(self, data: bytes) -> bool:
        found = usages_in(data)
        for usage in found:
            self._note(usage)
        return bool(found)

    def _note(self, usage: Usage) -> None:
        if usage.prompt is not None:
            self.prompt_tokens = max(self.prompt_tokens, usage.prompt)
        if usage.completion is not None:
            self._completion_tokens = max(self._completion_tokens, usage.completion)

    def _take_slow_path(self) -> None:
        drop = not self._exchange.admitted.wants_usage
        self._filter = EventFilter(drop_usage=drop, framed=self._framed)
        self._decoder = ChunkDecoder() if self._connection_chunked else None

    def _slow(self, data: bytes) -> None:
        events = self._filter
        assert events is not None  # noqa: S101 - set by _take_slow_path
        payload = self._decoder.feed(data) if self._decoder is not None else data
        self._emit(events.feed(payload, self._note_usage))
        if events.pending_bytes > self._exchange.service.bounds.event_bytes:
            self._exchange.stop_answer("one of its events is too large")

    def _emit(self, data: bytes) -> None:
        if data:
            self._count(data)
            self._exchange.client.write(data)

    def _end_stream(self) -> None:
        exchange = self._exchange
        if self._filter is not None:
            self._emit(self._filter.end(self._note_usage))
        if self._completion_tokens >= 0:
            exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, self._completion_tokens, 200)
        else:
            self._forget_finish()
            prompt = self.prompt_tokens or exchange.admitted.prompt_tokens_estimate
            exchange.settle(UsageStatus.ESTIMATED, prompt, self.delivered_tokens, 200)
        exchange.end()
        exchange.client.finish()

    # Whole answers

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._exchange.service.bounds.response_bytes:
            self._exchange.stop_answer("it is too large")

    def _end_answer(self) -> None:
        exchange = self._exchange
        body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
        if self._connection_chunked:
            body = ChunkDecoder().feed(body)
        usage = usage_of_answer(body)
        if usage is not None:
            self._note(usage)
        if self._status != 200 or usage is not None:
            completion = max(0, self._completion_tokens)
            exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, completion, self._status)
        else:
            exchange.settle(
                UsageStatus.ESTIMATED, exchange.admitted.prompt_tokens_estimate,
                min(len(body) // 4, exchange.admitted.completion_tokens_bound), self._status,
            )  # fmt: skip
        headers = exchange.headers()
        if self._status >= 400:
            body, headers = self._as_error(body), self._with_retry_after(headers)
        exchange.end()
        exchange.client.respond(self._status, headers, self._content_type, body)

    def _as_error(self, body: bytes) -> bytes:
        """Engines' own error objects pass; anything else is put into the common shape."""
        if b'"error"' in body:
            return body
        self._content_type = _JSON
        text = body[:500].decode("utf-8", "replace").strip() or "no reason given"
        refusal = Refusal(self._status, f"The engine answered {self._status}: {text}", code="engine_error")
        return error_body(refusal, anthropic=self._exchange.is_anthropic)

    def _with_retry_after(self, headers: bytes) -> bytes:
        if self._retry_after.isdigit():
            return headers + b"retry-after: " + self._retry_after + b"\r\n"
        return headers
