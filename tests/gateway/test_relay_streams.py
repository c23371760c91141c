"""Streams: the client gets what the engine wrote, without the usage event it did not ask for."""

import re
from typing import Any

import msgspec
import pytest
from gateway_under_test import Gateway, content_events, error_codes
from http_client import (
    CHAT,
    COMPLETIONS,
    LAST_CHUNK,
    MESSAGES,
    RESPONSES,
    STREAMED,
    Answer,
    body_for,
    events_of,
    is_usage_event,
    post,
    unchunk,
)

from swell.state.worker import Bounds
from swell.testing.upstream_script import Framing, Garbage, Script, UsageMode, Writes

ASKS = [
    {},
    {"stream_options": {"include_usage": True}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": None}},
    {"stream_options": {}},
    {"stream_options": None},
]
LAYOUTS = [
    Script(),
    Script(writes=Writes.RUSH),
    Script(writes=Writes.BURST),
    Script(writes=Writes.MERGED),
    Script(writes=Writes.SPLIT, split_bytes=60),
    Script(writes=Writes.SPLIT, split_bytes=7),
    Script(writes=Writes.DRIBBLE, split_bytes=50),
    Script(writes=Writes.DRIBBLE, split_bytes=7),
    Script(crlf=True),
    Script(crlf=True, writes=Writes.SPLIT, split_bytes=31),
    Script(spaces=True),
    Script(interim=True),
    Script(interim=True, writes=Writes.DRIBBLE, split_bytes=31),
    Script(usage=UsageMode.NULL),
    Script(usage=UsageMode.NULL, spaces=True, writes=Writes.MERGED),
    Script(usage=UsageMode.EVERY),
    Script(usage=UsageMode.ALWAYS),
    Script(framing=Framing.LENGTH),
    Script(framing=Framing.LENGTH, writes=Writes.DRIBBLE, split_bytes=50),
    Script(framing=Framing.EOF),
    Script(framing=Framing.HTTP10),
    Script(close=True),
    Script(silent_close=True),
    Script(prompt_tokens=0, completion_tokens=0),
]


def name_of(script: Script) -> str:
    return msgspec.json.encode(script).decode()


def engine_wire(gateway: Gateway) -> bytes:
    """The last answer's body as the upstream wrote it, framing included, interim answers left out."""
    data = b"".join(data for data, _ in gateway.upstream.seen[-1].answer.steps)
    while True:
        head, _, data = data.partition(b"\r\n\r\n")
        if b" 103 " not in head.partition(b"\r\n")[0]:
            return data


def engine_events(gateway: Gateway, script: Script) -> list[bytes]:
    wire = engine_wire(gateway)
    return events_of(unchunk(wire) if script.framing in (Framing.AUTO, Framing.CHUNKED) else wire)


def check_stream(gateway: Gateway, answer: Answer, script: Script, *, hides_usage: bool) -> None:
    """The client's events are the engine's, and the usage event is missing exactly where it must."""
    expected = engine_events(gateway, script)
    if hides_usage:
        expected = [event for event in expected if not is_usage_event(event)]
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events_of(answer.body) == expected


@pytest.mark.parametrize("asked", ASKS, ids=str)
@pytest.mark.parametrize("path", STREAMED)
async def test_the_usage_event_is_hidden_exactly_from_those_who_did_not_ask(
    gateway: Gateway, path: str, asked: dict[str, Any]
) -> None:
    script = Script(chunks=4)
    openai = path in (CHAT, COMPLETIONS)
    answer = await gateway.ask(path, body_for(path, script, stream=True, **(asked if openai else {})))
    wanted = bool((asked.get("stream_options") or {}).get("include_usage")) or not openai
    check_stream(gateway, answer, script, hides_usage=not wanted)
    assert (b'"usage":{' in answer.body) == wanted
    assert gateway.outcomes == [("settled", 11, 4, 200)]
    (entry,) = gateway.ledger.values()
    assert entry.settled is not None
    assert entry.settled.first_token_ms >= 0
    assert entry.reserved.completion_tokens >= 4


@pytest.mark.parametrize("wants_usage", [False, True])
@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("script", LAYOUTS, ids=name_of)
async def test_every_layout_carries_the_same_events(
    gateway: Gateway, script: Script, path: str, wants_usage: bool
) -> None:
    script = msgspec.structs.replace(script, chunks=5)
    more: dict[str, Any] = {"stream": True}
    if path in (CHAT, COMPLETIONS) and wants_usage:
        more["stream_options"] = {"include_usage": True}
    connection = await gateway.connect()
    for _ in range(2):  # the second on a connection that is kept, as far as the script lets it
        answer = await connection.ask(path, body_for(path, script, **more))
        check_stream(gateway, answer, script, hides_usage=path in (CHAT, COMPLETIONS) and not wants_usage)
    tokens = (0, 0) if script.completion_tokens == 0 else (11, 5)
    assert gateway.outcomes == [("settled", *tokens, 200)] * 2


@pytest.mark.parametrize("script", [Script(), Script(writes=Writes.RUSH), Script(writes=Writes.BURST)], ids=name_of)
@pytest.mark.parametrize("path", STREAMED)
async def test_whole_chunks_pass_with_their_framing(gateway: Gateway, path: str, script: Script) -> None:
    answer = await gateway.ask(path, body_for(path, msgspec.structs.replace(script, chunks=6), stream=True))
    wire = engine_wire(gateway)
    assert answer.raw == re.sub(rb'[0-9a-f]+\r\ndata: [^\n]*"choices":\[\],"usage"[^\n]*\n\n\r\n', b"", wire)


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("script", [Script(), Script(writes=Writes.SPLIT), Script(framing=Framing.EOF)], ids=name_of)
async def test_a_client_of_http_1_0_gets_the_events_bare_and_then_the_end(
    gateway: Gateway, path: str, script: Script
) -> None:
    script = msgspec.structs.replace(script, chunks=3)
    connection = await gateway.connect()
    answer = await connection.ask(path, body_for(path, script, stream=True), version="1.0")
    assert "transfer-encoding" not in answer.headers
    check_stream(gateway, answer, script, hides_usage=path in (CHAT, COMPLETIONS))
    assert gateway.outcomes == [("settled", 11, 3, 200)]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("writes", [Writes.EVENT, Writes.BURST, Writes.MERGED, Writes.SPLIT])
async def test_a_stream_without_usage_is_counted_and_marked_as_estimated(
    gateway: Gateway, path: str, writes: Writes
) -> None:
    script = Script(chunks=9, usage=UsageMode.NEVER, writes=writes)
    answer = await gateway.ask(path, body_for(path, script, stream=True))
    assert content_events(answer.body) == 9
    status, prompt, completion, code = gateway.outcomes[0]
    assert (status, completion, code) == ("estimated", 9, 200)
    assert 0 < prompt <= next(iter(gateway.ledger.values())).reserved.prompt_tokens


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
async def test_the_other_shapes_are_counted_too(gateway: Gateway, path: str) -> None:
    await gateway.ask(path, body_for(path, Script(chunks=9, usage=UsageMode.NEVER), stream=True))
    assert gateway.outcomes[0][::2] == ("estimated", 9)


async def test_several_choices_are_settled_together(gateway: Gateway) -> None:
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=5), stream=True, n=3))
    assert gateway.outcomes == [("settled", 11, 15, 200)]


async def test_an_engines_error_event_passes_and_is_not_a_token(gateway: Gateway) -> None:
    script = Script(chunks=5, error_after=2)
    answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
    assert content_events(answer.body) == 2
    assert b"scripted failure" in answer.body
    assert gateway.outcomes[0] == ("estimated", gateway.outcomes[0][1], 2, 200)


async def test_events_that_are_not_json_pass(gateway: Gateway) -> None:
    script = Script(chunks=3, garbage=Garbage.JSON)
    answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
    check_stream(gateway, answer, script, hides_usage=True)
    assert gateway.outcomes == [("settled", 11, 3, 200)]


async def test_broken_framing_ends_the_stream_with_an_error_event(gateway: Gateway) -> None:
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(chunks=3, garbage=Garbage.CHUNK), stream=True))
    assert error_codes(answer.body) == ["replica_lost"]
    assert answer.raw.endswith(LAST_CHUNK)
    status, _, completion, code = gateway.outcomes[0]
    assert (status, completion, code) == ("estimated", content_events(answer.body), 502)


async def test_an_event_over_the_bound_ends_the_stream(gateway: Gateway) -> None:
    gateway.service.bounds = Bounds(event_bytes=40)
    script = Script(chunks=3, writes=Writes.DRIBBLE, framing=Framing.LENGTH)
    answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
    assert error_codes(answer.body) == ["replica_lost"]
    await gateway.upstream.until(lambda: gateway.upstream.stats.open == 0)


async def test_pipelined_streams_come_in_their_order(gateway: Gateway) -> None:
    connection = await gateway.connect()
    wanted = [3, 1, 4]
    data = [post(CHAT, body_for(CHAT, Script(chunks=chunks), stream=True), gateway.token) for chunks in wanted]
    connection.writer.write(b"".join(data))
    assert [content_events((await connection.answer()).body) for _ in wanted] == wanted
