"""Server-sent events inside chunked coding: taking the usage event out, and reading token counts. Pure.

The fast path relays whole reads untouched. What is here runs at the end of a stream (the usage event),
and for upstreams whose chunks do not end where events end.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from swell.gateway.responses import chunk

_USAGE_NAME = b'"usage"'
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}\Z")
_EVENT_END = re.compile(rb"\r?\n\r?\n")


class Usage(msgspec.Struct):
    """Token counts as engines name them; absent or null counts are None."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None  # Anthropic's: not part of input_tokens
    cache_creation_input_tokens: int | None = None
    # OpenAI's, the second of /v1/responses: an object whose `cached_tokens` are part of the count. Not typed further:
    # an engine with an idea of its own about them must not cost anybody the counts above.
    prompt_tokens_details: Any = None
    input_tokens_details: Any = None

    @property
    def prompt(self) -> int | None:
        """Prompt tokens under either name, cached ones included."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_read_input_tokens or 0) + (self.cache_creation_input_tokens or 0)

    @property
    def completion(self) -> int | None:
        """Completion tokens under either name."""
        return self.completion_tokens if self.completion_tokens is not None else self.output_tokens

    @property
    def cached(self) -> int:
        """Of the prompt tokens, those that the engine says it found in a prefix cache; 0 where it says nothing."""
        details = self.prompt_tokens_details or self.input_tokens_details
        found = details.get("cached_tokens") if type(details) is dict else self.cache_read_input_tokens
        return found if type(found) is int else 0


class _Answer(msgspec.Struct):
    usage: Usage | None = None


class _Event(msgspec.Struct):
    """The places where the protocols report usage: at the top, in a response that has ended, in a message."""

    type: str | None = None
    choices: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    response: _Answer | None = None
    message: _Answer | None = None


_ENDED = frozenset({"response.completed", "response.incomplete", "response.failed"})
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def usage_of_answer(body: bytes) -> Usage | None:
    """Usage of a complete JSON answer; None where there is none or it is malformed."""
    try:
        return _decode_answer(body).usage
    except (msgspec.DecodeError, RecursionError):
        return None


def usages_in(data: bytes) -> list[Usage]:
    """Every usage report in a piece of an event stream, framed or not.

    Events are parsed, since engines echo what clients sent: a tool's schema may hold a "usage" of its own.
    """
    found: list[Usage] = []
    at = data.find(_USAGE_NAME)
    while at >= 0:
        after = at + len(_USAGE_NAME)
        if not data[after : after + 8].lstrip(b" :").startswith(b"null"):
            start = data.rfind(b"\n", 0, at) + 1
            end = data.find(b"\n", at)
            after = end if end >= 0 else len(data)
            event = _parse(data[start:after])
            usage = None if event is None else _usage_of(event)
            if usage is not None:
                found.append(usage)
        at = data.find(_USAGE_NAME, after)
    return found


def is_usage_event(event: bytes) -> bool:
    """Whether an event carries usage and nothing that a client who did not ask would miss."""
    for line in event.split(b"\n"):
        parsed = _parse(line) if _USAGE_NAME in line else None
        if parsed is not None and parsed.usage is not None and parsed.choices == []:
            return True
    return False


def _parse(line: bytes) -> _Event | None:
    """The JSON of a `data:` line; None for anything else."""
    name, _, text = line.partition(b":")
    if name.strip() != b"data":
        return None
    try:
        return _decode_event(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _usage_of(event: _Event) -> Usage | None:
    if event.usage is not None:
        return event.usage
    if event.message is not None:
        return event.message.usage
    if event.response is not None and event.type in _ENDED:
        return event.response.usage
    return None


def without_usage_chunk(data: bytes, at: int) -> bytes | None:
    """Cut the chunk around offset `at` out of `data`, a run of whole chunks.

    Only where that chunk is exactly one usage event; otherwise None, and the slow path must look.
    """
    line = data.rfind(b"\r\ndata:", 0, at)
    if line < 0:
        return None
    start = data.rfind(b"\r\n", 0, line)
    start = 0 if start < 0 else start + 2
    size = data[start:line]
    if not _CHUNK_SIZE.match(size):
        return None
    payload_end = line + 2 + int(size, 16)
    payload = data[line + 2 : payload_end]
    if data[payload_end : payload_end + 2] != b"\r\n" or payload.find(b"\n\n") != len(payload) - 2:
        return None
    if not is_usage_event(payload):
        return None
    return data[:start] + data[payload_end + 2 :]


class ChunkDecoder:
    """Takes chunked coding apart. The C parser has checked the syntax before; this only walks it."""

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0  # bytes of the current chunk still to come, its CRLF included
        self._ended = False

    def feed(self, data: bytes) -> bytes:
        """The payload bytes in `data`."""
        data = self._pending + data
        self._pending = b""
        out: list[bytes] = []
        at = 0
        while at < len(data) and not self._ended:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                payload = max(0, self._left - 2)
                out.append(piece[:payload])
                self._left -= len(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._pending = data[at:]
                break
            size = data[at:end].partition(b";")[0].strip()
            at = end + 2
            length = int(size, 16)
            self._left = length + 2
            self._ended = length == 0  # trailers follow
        return b"".join(out)


class EventFilter:
    """Cuts a byte stream into whole events, drops the usage event, and frames what is left."""

    def __init__(self, *, drop_usage: bool, framed: bool) -> None:
        self._drop_usage = drop_usage
        self._framed = framed  # whether the client gets chunked coding
        self._pending = b""

    @property
    def pending_bytes(self) -> int:
        """Bytes of an event that is not complete yet."""
        return len(self._pending)

    def feed(self, payload: bytes, note_usage: Callable[[bytes], bool]) -> bytes:
        """What may go to the client now. Usage in it is noted."""
        data = self._pending + payload
        out: list[bytes] = []
        at = 0
        for match in _EVENT_END.finditer(data):
            event = data[at : match.end()]
            at = match.end()
            if b'"usage"' in event and note_usage(event) and self._drop_usage and is_usage_event(event):
                continue
            out.append(event)
        self._pending = data[at:]
        return self._frame(b"".join(out))

    def end(self, note_usage: Callable[[bytes], bool]) -> bytes:
        """What is left when the upstream has ended properly, and the end of the body."""
        rest, self._pending = self._pending, b""
        if b'"usage"' in rest and note_usage(rest) and self._drop_usage and is_usage_event(rest):
            rest = b""
        return self._frame(rest) + (b"0\r\n\r\n" if self._framed else b"")

    def _frame(self, payload: bytes) -> bytes:
        return chunk(payload) if self._framed and payload else payload
