"""However a stream is cut into chunks and reads, the client gets the same events and the ledger the same usage."""

from collections.abc import Iterator

import pytest
from http_client import CHAT, COMPLETIONS, MESSAGES, RESPONSES, body_for, events_of, is_usage_event, parse_head, post
from http_client import unchunk as payload_of
from hypothesis import given
from hypothesis import strategies as st
from memory_transport import MemoryGateway
from msgspec.structs import replace

from swell.gateway.relay import TAIL_BYTES
from swell.testing.upstream_script import Framing, Script, UsageMode
from swell.testing.upstream_wire import Question, render

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n"


@pytest.fixture(scope="module")
def memory_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MemoryGateway]:
    gateway = MemoryGateway(tmp_path_factory.mktemp("memory"))
    yield gateway
    gateway.close()


def stream(path: str, script: Script, asked: bool) -> bytes:
    """A stream's payload, as it is before any framing."""
    answer = render(Question(path, "m", 11, 1, 1, None, True, asked, replace(script, framing=Framing.EOF)))
    return b"".join(data for data, _ in answer.steps).partition(b"\r\n\r\n")[2]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} - {0} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def chunked(pieces: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return body + b"0\r\n" + trailer + b"\r\n"


def miscounts(splits_events: bool, wire: bytes, places: list[int]) -> int:
    """By how much an estimate may be off: of long reads, only the end is searched for chunks that end anywhere."""
    return len(places) if splits_events and len(wire) > TAIL_BYTES else 0


places = st.lists(st.integers(0, 10**6), max_size=40)
scripts = st.builds(
    Script,
    chunks=st.one_of(st.integers(0, 6), st.integers(20, 60)),
    crlf=st.booleans(),
    spaces=st.booleans(),
    usage=st.sampled_from(list(UsageMode)),
)


@given(
    path=st.sampled_from([CHAT, COMPLETIONS, RESPONSES, MESSAGES]),
    script=scripts,
    chunk_places=places,
    read_places=st.one_of(st.just([]), places),
    framing=st.sampled_from(["chunked", "length", "eof"]),
    extension=st.sampled_from([b"", b";x=1"]),
    trailer=st.sampled_from([b"", b"x-end: 1\r\n"]),
    asked=st.booleans(),
    version=st.sampled_from(["1.1", "1.1", "1.0"]),
    by_event=st.booleans(),
)
def test_any_segmentation_gives_the_same_events_and_usage(
    memory_gateway: MemoryGateway,
    path: str,
    script: Script,
    chunk_places: list[int],
    read_places: list[int],
    framing: str,
    extension: bytes,
    trailer: bytes,
    asked: bool,
    version: str,
    by_event: bool,
) -> None:
    openai = path in (CHAT, COMPLETIONS)
    payload = stream(path, script, True)
    events = events_of(payload)
    if framing == "chunked":
        pieces = events if by_event else cut(payload, chunk_places)
        wire = HEAD % b"transfer-encoding: chunked\r\n" + chunked(pieces, extension, trailer)
    elif framing == "length":
        wire = HEAD % (b"content-length: %d\r\n" % len(payload)) + payload
    else:
        wire = HEAD % b"connection: close\r\n" + payload
    more = {"stream_options": {"include_usage": asked}} if openai else {}
    request = post(path, body_for(path, stream=True, **more), memory_gateway.token, version=version)

    got = memory_gateway.exchange(request, cut(wire, read_places), then_close=framing == "eof")

    head, _, raw = got.partition(b"\r\n\r\n")
    _, status, headers = parse_head(head + b"\r\n\r\n")
    body = payload_of(raw) if headers.get("transfer-encoding") == "chunked" else raw
    assert status == 200
    assert events_of(body) == [event for event in events if asked or not openai or not is_usage_event(event)]
    settled = memory_gateway.last_settled()
    reports = script.usage is not UsageMode.NEVER
    assert settled.status == ("settled" if reports else "estimated")
    if reports:
        assert (settled.prompt_tokens, settled.completion_tokens) == (11, script.chunks)
    else:
        off = miscounts(framing == "chunked" and not by_event, wire, chunk_places)
        assert abs(settled.completion_tokens - script.chunks) <= off


@pytest.mark.parametrize("asked", [False, True])
def test_a_chunk_may_end_anywhere_in_a_read(memory_gateway: MemoryGateway, asked: bool) -> None:
    """Two chunks that arrive together, cut at every byte, the usage event's name among them."""
    payload = stream(CHAT, Script(chunks=2), True)
    expected = [event for event in events_of(payload) if asked or not is_usage_event(event)]
    more = {"stream_options": {"include_usage": asked}}
    request = post(CHAT, body_for(CHAT, stream=True, **more), memory_gateway.token)
    head = HEAD % b"transfer-encoding: chunked\r\n"
    for place in range(1, len(payload)):
        got = memory_gateway.exchange(request, [head + chunked([payload[:place], payload[place:]], b"", b"")])
        assert events_of(payload_of(got.partition(b"\r\n\r\n")[2])) == expected
        settled = memory_gateway.last_settled()
        assert (settled.status, settled.completion_tokens) == ("settled", 2)


@given(
    path=st.sampled_from([CHAT, COMPLETIONS, RESPONSES, MESSAGES]),
    script=scripts,
    chunk_places=places,
    read_places=places,
    stop=st.integers(0, 10**6),
)
def test_a_stream_cut_anywhere_counts_exactly_the_content_that_was_delivered(
    memory_gateway: MemoryGateway,
    path: str,
    script: Script,
    chunk_places: list[int],
    read_places: list[int],
    stop: int,
) -> None:
    payload = stream(path, script, True)
    head = HEAD % b"transfer-encoding: chunked\r\n"
    wire = chunked(cut(payload, chunk_places), b"", b"")[:-5]
    wire = head + wire[: stop % (len(wire) + 1)]
    request = post(path, body_for(path, stream=True), memory_gateway.token)

    got = memory_gateway.exchange(request, cut(wire, read_places), then_close=True)

    body = payload_of(got.partition(b"\r\n\r\n")[2])
    *delivered, last = events_of(body.replace(b"\r\n", b"\n"))
    assert b"replica_lost" in last or b"event: error" in last
    expected = [event.replace(b"\r\n", b"\n") for event in events_of(payload)]
    openai = path in (CHAT, COMPLETIONS)
    whole = [event for event in expected if not openai or not is_usage_event(event)]
    assert delivered == whole[: len(delivered)]
    settled = memory_gateway.last_settled()
    words = sum(event.count(b'" token"') for event in delivered if b".done" not in event and b".completed" not in event)
    assert settled.http_status == 502
    if settled.status == "estimated":
        assert abs(settled.completion_tokens - words) <= miscounts(True, wire, chunk_places)
    else:
        assert words <= settled.completion_tokens <= script.chunks
