"""An event stream on its way from a replica to the client.

It goes through as it came: whole chunks are written with their framing, one write per read. Only two
things are looked for in a read, both by C searches: the usage object, and how many content events went by
(what a cut stream is billed for).

A read that does not end where an event ends, an upstream without chunked coding, and a client without it,
take the slow path: payload is cut into events and framed anew, from there to the end of the stream.
"""

import re
from typing import TYPE_CHECKING

from swell.gateway.events import (
    ChunkDecoder,
    EventFilter,
    Usage,
    usages_in,
    without_usage_chunk,
)
from swell.gateway.request import MESSAGES, RESPONSES
from swell.gateway.responses import LAST_CHUNK, Refusal, chunk, error_event
from swell.gateway.upstream import UpstreamConnection
from swell.state.usage import UsageStatus

if TYPE_CHECKING:
    from swell.gateway.exchange import Exchange

_CONTENT_MARKS = {MESSAGES: b"event: content_block_delta", RESPONSES: b"event: response.output_text.delta"}
_CHAT_MARK = b'data: {"'  # a quote inside generated text is escaped, so text cannot forge it
_OTHER_CHAT_MARKS = (b'data:{"', b"data: { ", b"data:")  # legal as well, and rare
_ROLE_ONLY = re.compile(rb'"delta"\s*:\s*\{\s*"role"\s*:\s*"[a-z]+"\s*(?:,\s*"content"\s*:\s*(?:""|null)\s*)?\}')
TAIL_BYTES = 4096  # of a read: what is looked at closely; a usage event and the end of the body are shorter
_EVENT_END = b"\n\n\r\n"  # of an event that ends its chunk; nowhere else, since JSON text holds no bare line end
_BODY_END = _EVENT_END + LAST_CHUNK
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|arguments)"\s*:\s*"[^"]')


class Relay:
    """Carries one event stream. Made when the answer's head has arrived."""

    __slots__ = (
        "_completion_tokens",
        "_connection",
        "_connection_chunked",
        "_decoder",
        "_exchange",
        "_filter",
        "_framed",
        "_head",
        "_is_chat",
        "_last",
        "_mark",
        "_marks",
        "_several",
        "_usage_tail",
        "_write",
        "cached_tokens",
        "delivered_tokens",
        "first_token_at",
        "prompt_tokens",
    )
    has_begun = True

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        self._exchange = exchange
        self._connection = connection
        self._connection_chunked = connection.chunked
        self._marks = connection.chunk_marks
        self._mark = _CONTENT_MARKS.get(exchange.path, _CHAT_MARK)
        self._usage_tail = TAIL_BYTES if self._mark is _CHAT_MARK else 0  # elsewhere usage also comes first
        self._is_chat = exchange.path not in _CONTENT_MARKS
        self._several = exchange.admitted.choices > 1
        self._last = b""
        self._decoder: ChunkDecoder | None = None
        self._filter: EventFilter | None = None
        self._completion_tokens = -1
        self.prompt_tokens = 0
        self.cached_tokens = 0  # of the prompt's
        self.delivered_tokens = 0
        self.first_token_at = 0.0
        headers = b"cache-control: no-cache\r\n" + exchange.headers()
        self._head, self._framed = exchange.client.begin(200, headers, connection.content_type)
        self._write = self._write_with_head
        if not (self._connection_chunked and self._framed):
            self._take_slow_path()

    def first(self, data: bytes) -> None:
        """The head, and what of the body came with it, in one write."""
        self._connection.sink = self.data
        if data:
            self.data(data)
        if self._head:
            self._write(b"")

    def _write_with_head(self, data: bytes) -> None:
        head, self._head = self._head, b""
        self._write = self._exchange.client.transport.write
        self._write(head + data)

    def data(self, data: bytes) -> None:
        """Raw body bytes. They pass as they are if every chunk in them is complete and ends where an event ends."""
        self._exchange.touched = True
        marks = self._marks
        count = len(marks)
        marks.clear()
        # A chunk leaves two marks. Of those that end with an event, as many must be complete as there are ends.
        unended = (count >> 1) - data.count(_EVENT_END)
        if (
            self._filter is not None
            or count & 1
            or not (data.endswith(_EVENT_END) if not unended else unended == 1 and _is_end(data))
        ):
            self._slow(data)
            return
        if data.find(b'"usage":', self._usage_tail and max(0, len(data) - self._usage_tail)) >= 0:
            data = self._read_usage(data)
            if not data:
                return
        self._count(data)
        self._write(data)

    def end(self) -> None:
        """The stream is complete."""
        exchange = self._exchange
        if self._filter is not None:
            self._emit(self._filter.end(self._note_usage))
        if self._completion_tokens >= 0:
            exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, self._completion_tokens, 200, self.cached_tokens)
        else:
            self.settle_cut(200)
        exchange.end()
        exchange.client.finish()

    def cut(self, refusal: Refusal) -> None:
        """The stream broke off: count what was delivered and tell the client in the stream."""
        exchange = self._exchange
        self.settle_cut(refusal.status)
        exchange.service.counters.outcome(refusal.code)
        exchange.end()
        event = error_event(refusal, anthropic=exchange.is_anthropic)
        self._write(chunk(event) + LAST_CHUNK if self._framed else event)
        exchange.client.finish()

    def settle_cut(self, http_status: int) -> None:
        """Settle a stream that ends early: as the engine counted, where it had told, else as counted here.

        The count with which a stream of messages begins is none of what it delivered.
        """
        delivered = self.delivered_tokens
        if self._is_chat and not self._several:
            delivered -= sum(map(_carries_nothing, self._last.split(b"\n")))
        told = self._completion_tokens
        is_final = told > 1 and told >= delivered if self._exchange.path == MESSAGES else told >= 0
        if is_final:
            self._exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, told, http_status, self.cached_tokens)
        else:
            prompt = self.prompt_tokens or self._exchange.admitted.prompt_tokens_estimate
            self._exchange.settle(UsageStatus.ESTIMATED, prompt, delivered, http_status, self.cached_tokens)

    def _count(self, data: bytes) -> None:
        events = data.count(self._mark)
        if not events and not self._last and self._is_chat:
            self._mark = next((mark for mark in _OTHER_CHAT_MARKS if mark in data), self._mark)
            events = data.count(self._mark)
        if events:
            self._last = data
            if self._several and self._is_chat:  # they end at different times
                events -= sum(map(_carries_nothing, data.split(b"\n")))
            if not self.first_token_at:
                if self._is_chat:
                    # Roles come first; of one choice there is one.
                    events -= len(_ROLE_ONLY.findall(data, 0, len(data) if self._several else TAIL_BYTES))
                if events:
                    self.first_token_at = self._exchange.service.now()
            self.delivered_tokens += events

    def _read_usage(self, data: bytes) -> bytes:
        """Note the usage in `data`; return what of it goes to the client."""
        if not self._note_usage(data) or self._exchange.admitted.wants_usage:
            return data
        rest = without_usage_chunk(data, data.rfind(b'"usage":'))
        if rest is not None:
            return rest
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
            self.cached_tokens = max(self.cached_tokens, usage.cached)
        if usage.completion is not None:
            self._completion_tokens = usage.completion  # counts run on; the last one holds

    def _take_slow_path(self) -> EventFilter:
        drop = not self._exchange.admitted.wants_usage
        self._filter = EventFilter(drop_usage=drop, framed=self._framed)
        self._decoder = ChunkDecoder() if self._connection_chunked else None
        return self._filter

    def _slow(self, data: bytes) -> None:
        events = self._filter or self._take_slow_path()
        payload = self._decoder.feed(data) if self._decoder is not None else data
        self._emit(events.feed(payload, self._note_usage))
        if events.pending_bytes > self._exchange.service.bounds.event_bytes:
            self._exchange.stop_answer("one of its events is too large")

    def _emit(self, data: bytes) -> None:
        if data:
            self._count(data)
            self._write(data)


def _is_end(data: bytes) -> bool:
    """Whether `data` ends with the body's last chunk, which holds no event, after a whole event."""
    return data.endswith(_BODY_END) or data == LAST_CHUNK


def _carries_nothing(event: bytes) -> bool:
    """Whether a counted event brought no token: an error, or the end of a choice without more text."""
    if event.startswith(b'data: {"error"'):
        return True
    return _FINISHED.search(event) is not None and _TEXT.search(event) is None
