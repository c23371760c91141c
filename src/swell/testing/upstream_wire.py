"""From a script to the bytes of one answer, and where in them to pause, hold or cut.

Answers are rendered once and kept, so that a benchmark's upstream only looks one up and writes it.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus

from swell.testing.upstream_script import Framing, Garbage, Script, UsageMode, Writes
from swell.testing.upstream_shapes import SHAPES, Event, Reply, Shape, error_document

KEPT_ANSWERS = 1024  # rendered answers held in memory

Piece = tuple[bytes, int]  # bytes, and the content chunks that they complete


@dataclass(frozen=True, slots=True)
class Question:
    """Everything about a request that its answer depends on."""

    path: str
    model: str
    prompt_tokens: int
    choices: int
    inputs: int
    token_limit: int | None
    stream: bool
    include_usage: bool
    script: Script


@dataclass(frozen=True, slots=True)
class Answer:
    """Writes in order. `steps[i][1]` is the content delivered once step `i` is written."""

    steps: tuple[Piece, ...]
    hold_at: int | None = None  # hold before this step until released
    cut: bool = False  # cut the connection after the last step
    close: bool = False  # close after the last step
    status: int = 200
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usage_reported: bool = False


def plain(status: int, document: object, *, close: bool = False) -> Answer:
    """A JSON answer outside any script."""
    body = json.dumps(document, separators=(",", ":")).encode()
    connection = "connection: close\r\n" if close else ""
    return Answer(
        (((_head(status, "application/json", f"content-length: {len(body)}\r\n{connection}") + body), 0),),
        close=close,
        status=status,
    )


@lru_cache(maxsize=KEPT_ANSWERS)
def render(question: Question) -> Answer:
    """The answer to a request on one of the endpoints in `SHAPES`."""
    script = question.script
    shape = SHAPES[question.path]
    reply = _reply(question, shape)
    stream = question.stream and shape.events is not None and script.status == HTTPStatus.OK
    if script.garbage is Garbage.HEAD:
        return Answer(((b"\x00\x01 this is not HTTP\r\n\r\n", 0),), cut=True, status=0)
    pieces = _event_pieces(reply, shape, script) if stream else [_document_piece(reply, shape, script)]
    whole = sum(len(data) for data, _ in pieces)
    framing = _framing(script, stream)
    head = _answer_head(script, stream, framing, whole)
    cut_at, hold_after = _positions(pieces, script, stream)
    cut = cut_at is not None
    if cut_at is not None:
        pieces = _until(pieces, cut_at, stream)
    before, after = _split_at_hold(pieces, hold_after, stream)
    chunked = framing is Framing.CHUNKED
    tail = b"0\r\n\r\n" if chunked and not cut else b""
    first = _writes(before, script, chunked, b"" if hold_after is not None else tail)
    second = _writes(after, script, chunked, tail) if hold_after is not None else []
    if hold_after != -1:
        first = _with_head(head, first)
    else:
        second = _with_head(head, second)
    if script.die_after == -1:
        first, second = [], []
    elif script.garbage is Garbage.CHUNK:
        first, second, cut = [*first[:2], (b"zz\r\nnot a chunk size\r\n", 0)], [], True
    return Answer(
        steps=_accumulate([*first, *second]),
        hold_at=len(first) if hold_after is not None else None,
        cut=cut,
        close=script.close or script.silent_close or framing in (Framing.EOF, Framing.HTTP10),
        status=script.status,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
        usage_reported=_reports_usage(reply, script, question, stream),
    )


def _reply(question: Question, shape: Shape) -> Reply:
    script = question.script
    limit = question.token_limit
    chunks = script.chunks if limit is None else min(script.chunks, limit)
    counted = chunks * question.choices if shape.events is not None else 0
    return Reply(
        model=question.model,
        prompt_tokens=script.prompt_tokens if script.prompt_tokens >= 0 else question.prompt_tokens,
        completion_tokens=script.completion_tokens if script.completion_tokens >= 0 else counted,
        chunks=chunks,
        choices=question.choices,
        inputs=question.inputs,
        cut_short=chunks < script.chunks,
        include_usage=question.include_usage,
        usage=script.usage,
        cached_tokens=script.cached_tokens,
    )


def _reports_usage(reply: Reply, script: Script, question: Question, stream: bool) -> bool:
    if reply.usage is UsageMode.NEVER or script.status != HTTPStatus.OK or script.error_after is not None:
        return False
    if script.garbage is not Garbage.NONE or script.die_after is not None:
        return False
    own_shape = question.path in ("/v1/responses", "/v1/messages")
    return not stream or own_shape or reply.include_usage or reply.usage is UsageMode.ALWAYS


def _dump(data: object, script: Script) -> bytes:
    if isinstance(data, str):
        return data.encode()
    return json.dumps(data, separators=(", ", ": ") if script.spaces else (",", ":")).encode()


def _event_pieces(reply: Reply, shape: Shape, script: Script) -> list[Piece]:
    events: Iterable[Event] = shape.events(reply) if shape.events is not None else ()
    if script.error_after is not None:
        events = _with_error(list(events), script.error_after)
    end = b"\r\n" if script.crlf else b"\n"
    pieces: list[Piece] = []
    for event in events:
        name = b"event: " + event.name.encode() + end if event.name else b""
        data = b'{"not": json' if script.garbage is Garbage.JSON and event.content else _dump(event.data, script)
        pieces.append((name + b"data: " + data + end + end, event.content))
    return pieces


def _with_error(events: list[Event], after: int) -> list[Event]:
    kept, seen = [], 0
    for event in events:
        if event.content and seen >= after:
            break
        kept.append(event)
        seen += event.content
    error = Event("error" if kept and kept[0].name else "", error_document(500, "scripted failure in mid-stream"))
    return [*kept, error] if error.name else [*kept, error, Event("", "[DONE]")]


def _document_piece(reply: Reply, shape: Shape, script: Script) -> Piece:
    if script.status != HTTPStatus.OK:
        return _dump(error_document(script.status, f"scripted status {script.status}"), script), 0
    body = _dump(shape.document(reply), script)
    return (body[: len(body) // 2] if script.garbage is Garbage.JSON else body), reply.chunks * reply.choices


def _framing(script: Script, stream: bool) -> Framing:
    if script.framing is not Framing.AUTO:
        return script.framing
    return Framing.CHUNKED if stream else Framing.LENGTH


def _head(status: int, content_type: str, more: str, *, version: str = "1.1") -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Scripted"
    return (
        f"HTTP/{version} {status} {reason}\r\nserver: scripted\r\ncontent-type: {content_type}\r\n{more}\r\n".encode()
    )


def _answer_head(script: Script, stream: bool, framing: Framing, length: int) -> bytes:
    more = ""
    if framing is Framing.CHUNKED:
        more += "transfer-encoding: chunked\r\n"
    elif framing is Framing.LENGTH:
        more += f"content-length: {length}\r\n"
    if script.close or framing is Framing.EOF:
        more += "connection: close\r\n"
    if script.retry_after:
        more += f"retry-after: {script.retry_after}\r\n"
    content_type = "text/event-stream; charset=utf-8" if stream else "application/json"
    interim = b"HTTP/1.1 103 Early Hints\r\nlink: </v1>\r\n\r\n" if script.interim else b""
    version = "1.0" if framing is Framing.HTTP10 else "1.1"
    return interim + _head(script.status, content_type, more, version=version)


def _positions(pieces: Sequence[Piece], script: Script, stream: bool) -> tuple[int | None, int | None]:
    """Content positions of the cut and the hold, none where the answer is too short to reach them."""
    total = sum(content for _, content in pieces)
    cut_at, hold_after = script.die_after, script.hang_after
    if stream and cut_at is not None and cut_at > total:
        cut_at = None
    if stream and hold_after is not None and hold_after > total:
        hold_after = None
    return cut_at, hold_after


def _until(pieces: list[Piece], content: int, stream: bool) -> list[Piece]:
    """The pieces up to and with content chunk `content`; half the body of a document."""
    if content < 0:
        return []
    if not stream:
        return [(pieces[0][0][: len(pieces[0][0]) // 2], 0)]
    kept, seen = [], 0
    for data, count in pieces:
        if seen + count > content or (count == 0 and seen == content and seen > 0):
            break
        kept.append((data, count))
        seen += count
    return kept


def _split_at_hold(pieces: list[Piece], hold_after: int | None, stream: bool) -> tuple[list[Piece], list[Piece]]:
    if hold_after is None:
        return pieces, []
    if hold_after < 0:
        return [], pieces
    if not stream:
        data, content = pieces[0]
        middle = len(data) // 2
        return [(data[:middle], 0)], [(data[middle:], content)]
    before = _until(pieces, hold_after, stream)
    return before, pieces[len(before) :]


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _writes(pieces: list[Piece], script: Script, chunked: bool, tail: bytes) -> list[Piece]:
    """Lay the pieces over HTTP chunks and socket writes."""
    content = sum(count for _, count in pieces)
    if script.writes is Writes.SPLIT:
        pieces = _cut_evenly(pieces, script.split_bytes)
    elif script.writes is Writes.MERGED and pieces:
        pieces = [(b"".join(data for data, _ in pieces), content)]
    wire = [(_chunk(data), count) for data, count in pieces] if chunked else list(pieces)
    if tail:
        # The last event and the end travel together, as engines send them.
        last, count = wire.pop() if wire else (b"", 0)
        wire.append((last + tail, count))
    if script.writes in (Writes.BURST, Writes.MERGED) and wire:
        return [(b"".join(data for data, _ in wire), content)]
    return _cut_evenly(wire, script.split_bytes) if script.writes is Writes.DRIBBLE else wire


def _cut_evenly(pieces: list[Piece], size: int) -> list[Piece]:
    """The same bytes in slices of `size`; a content chunk belongs to the slice that completes it."""
    whole = b"".join(data for data, _ in pieces)
    ends: list[Piece] = []
    completed: dict[int, int] = {}
    offset = 0
    for data, count in pieces:
        offset += len(data)
        index = max(0, offset - 1) // size
        completed[index] = completed.get(index, 0) + count
    for index, start in enumerate(range(0, len(whole), size)):
        ends.append((whole[start : start + size], completed.get(index, 0)))
    return ends


def _with_head(head: bytes, wire: list[Piece]) -> list[Piece]:
    """The head travels with the first event, unless there is none."""
    if not wire:
        return [(head, 0)]
    (data, count), *rest = wire
    return [(head + data, count), *rest]


def _accumulate(steps: list[Piece]) -> tuple[Piece, ...]:
    total, running = 0, []
    for data, count in steps:
        total += count
        running.append((data, total))
    return tuple(running)
