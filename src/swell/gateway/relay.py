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
_EVENT_ENDS = (b"\n\n\r\n", b"\n\n\r\n0\r\n\r\n")  # of an event that ends its chunk; then of the whole body
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_TEXT = re.compile(rb'"(?:content|text|reasoning_content|arguments)"\s*:\s*"[^"]')


class Relay:
    """Carries one event stream. Made when the answer's head has arrived."""

    __slots__ = (
        "_completion_tokens",
        "_connection_chunked",
        "_decoder",
        "_exchange",
        "_filter",
        "_framed",
        "_is_chat",
        "_last",
        "_mark",
        "_marks",
        "_several",
        "_usage_tail",
        "_write",
        "delivered_tokens",
        "first_token_at",
        "prompt_tokens",
    )
    has_begun = True

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        self._exchange = exchange
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
        self.delivered_tokens = 0
        self.first_token_at = 0.0
        headers = b"cache-control: no-cache\r\n" + exchange.headers()
        self._framed = exchange.client.begin(200, headers, connection.content_type)
        self._write = exchange.client.transport.write
        if not (self._connection_chunked and self._framed):
            self._take_slow_path()

    def data(self, data: bytes) -> None:
        """Raw body bytes. They pass as they are if every chunk in them is complete and ends where an event ends."""
        self._exchange.touched = True
        marks = self._marks
        count = len(marks)
        marks.clear()
        if (
            self._filter is not None
            or count & 1
            or not (data.endswith(_EVENT_ENDS) or data == LAST_CHUNK)
            or (count > 2 and not _ends_in_whole_events(data, self._usage_tail))
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
            exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, self._completion_tokens, 200)
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
            self._exchange.settle(UsageStatus.SETTLED, self.prompt_tokens, told, http_status)
        else:
            prompt = self.prompt_tokens or self._exchange.admitted.prompt_tokens_estimate
            self._exchange.settle(UsageStatus.ESTIMATED, prompt, delivered, http_status)

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


def _ends_in_whole_events(data: bytes, tail: int) -> bool:
    """Whether every chunk in the last `tail` bytes of `data` (0: in all), where usage would be, ends with an event.

    Between two ends of aligned chunks lie two line ends, since JSON text holds no bare CR: the chunk's own and
    that of the next one's size. The last chunk and the end of the body add two.
    """
    start = tail and max(0, len(data) - tail)
    if start:
        start = data.find(_EVENT_ENDS[0], start) + len(_EVENT_ENDS[0])
    ends = data.count(_EVENT_ENDS[0], start)
    return data.count(b"\r\n", start) == 2 * ends + 2 * data.endswith(_EVENT_ENDS[1])


def _carries_nothing(event: bytes) -> bool:
    """Whether a counted event brought no token: an error, or the end of a choice without more text."""
    if event.startswith(b'data: {"error"'):
        return True
    return _FINISHED.search(event) is not None and _TEXT.search(event) is None
