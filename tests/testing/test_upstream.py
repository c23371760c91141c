"""The scripted upstream does what it is told, and journals it before it does."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from swell.testing.upstream import Upstream
from swell.testing.upstream_journal import read_journal
from swell.testing.upstream_script import Cut, Framing, Garbage, Script, UsageMode, Writes, encode_script

CHAT = "/v1/chat/completions"
ENDPOINTS = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Upstream]:
    async with Upstream(journal_path=tmp_path / "journal") as running:
        yield running


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=upstream.url, trust_env=False) as running:
        yield running


def body(script: Script | None = None, path: str = CHAT, **more: Any) -> dict[str, Any]:
    text = "x" * 41
    prompt: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if path in ("/v1/completions",):
        prompt = {"prompt": text}
    elif path in ("/v1/responses", "/v1/embeddings"):
        prompt = {"input": text}
    who = {} if script is None else {"user": encode_script(script)}
    if path == "/v1/messages" and script is not None:
        who = {"metadata": {"user_id": encode_script(script)}}  # type: ignore[dict-item]
    return {"model": "m", **prompt, **who, **more}


def events(text: str) -> list[Any]:
    lines = [line[6:] for line in text.replace("\r\n", "\n").split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def contents(text: str) -> int:
    return text.count('" token"')


async def read_into(parts: list[str], client: httpx.AsyncClient, request: dict[str, Any]) -> None:
    async with client.stream("POST", CHAT, json=request) as answer:
        async for part in answer.aiter_text():
            parts.append(part)


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_json_answers_report_deterministic_usage(client: httpx.AsyncClient, path: str) -> None:
    answer = (await client.post(path, json=body(Script(chunks=5), path))).json()
    usage = answer["usage"]
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    completion = usage.get("completion_tokens", usage.get("output_tokens"))
    assert (prompt, completion) == (11, 5)


async def test_embeddings_answer_one_vector_per_input(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/v1/embeddings", json={"model": "m", "input": ["abcd", "efgh"]})).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1]
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


async def test_health_and_models(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/v1/models")).json()["data"][0]["id"] == "m"
    assert (await client.get("/nowhere")).status_code == 404


async def test_a_chat_stream_has_role_content_finish_and_usage_only_where_asked(client: httpx.AsyncClient) -> None:
    plain = events((await client.post(CHAT, json=body(Script(chunks=3), stream=True))).text)
    assert [e["choices"][0]["delta"] for e in plain[:-1]] == [
        {"role": "assistant", "content": ""},
        *[{"content": " token"}] * 3,
        {},
    ]
    assert plain[-1] == "[DONE]"
    assert all("usage" not in e for e in plain[:-1])
    asked = body(Script(chunks=3), stream=True, stream_options={"include_usage": True})
    with_usage = events((await client.post(CHAT, json=asked)).text)
    assert with_usage[-2]["choices"] == []
    assert with_usage[-2]["usage"] == {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@pytest.mark.parametrize(
    ("mode", "count"),
    [(UsageMode.NULL, 6), (UsageMode.EVERY, 6), (UsageMode.NEVER, 0), (UsageMode.ALWAYS, 1)],
)
async def test_usage_modes(client: httpx.AsyncClient, mode: UsageMode, count: int) -> None:
    asked = {"include_usage": mode is not UsageMode.ALWAYS}
    text = (await client.post(CHAT, json=body(Script(chunks=3, usage=mode), stream=True, stream_options=asked))).text
    assert text.count('"usage":') == count
    assert text.count('"usage":null') == (5 if mode is UsageMode.NULL else 0)


async def test_responses_and_messages_have_their_own_events(client: httpx.AsyncClient) -> None:
    for path, last in (("/v1/responses", "response.completed"), ("/v1/messages", "message_stop")):
        text = (await client.post(path, json=body(Script(chunks=2), path, stream=True))).text
        found = events(text)
        assert found[-1]["type"] == last
        assert f"event: {last}\n" in text
        assert sum(e["type"].endswith("delta") and "usage" not in e for e in found) == 2


@pytest.mark.parametrize("writes", list(Writes))
@pytest.mark.parametrize("framing", [Framing.CHUNKED, Framing.LENGTH, Framing.EOF, Framing.HTTP10])
async def test_every_layout_carries_the_same_events(
    client: httpx.AsyncClient, writes: Writes, framing: Framing
) -> None:
    script = Script(chunks=6, writes=writes, framing=framing, crlf=True, spaces=True, interim=True)
    answer = await client.post(CHAT, json=body(script, stream=True, stream_options={"include_usage": True}))
    found = events(answer.text)
    assert len(found) == 10
    assert '"usage": {' in answer.text
    assert "\r\n\r\n" in answer.text


async def test_the_token_limit_shortens_the_answer(client: httpx.AsyncClient) -> None:
    answer = (await client.post(CHAT, json=body(Script(chunks=9), max_tokens=4, n=2))).json()
    assert answer["choices"][1]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize("writes", [Writes.EVENT, Writes.RUSH, Writes.BURST, Writes.SPLIT])
async def test_a_cut_stream_delivers_exactly_so_many_chunks(
    upstream: Upstream, client: httpx.AsyncClient, writes: Writes
) -> None:
    parts: list[str] = []
    with pytest.raises(httpx.RemoteProtocolError):
        await read_into(parts, client, body(Script(die_after=3, writes=writes), stream=True))
    assert contents("".join(parts)) == 3
    assert [(s.outcome, s.delivered) for s in upstream.seen] == [("cut", 3)]


async def test_cuts_before_the_head_and_by_reset(upstream: Upstream, client: httpx.AsyncClient) -> None:
    for script in (Script(die_after=-1), Script(die_after=-1, die=Cut.RESET), Script(garbage=Garbage.HEAD)):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await client.post(CHAT, json=body(script))
    assert upstream.stats.cut == 3


async def test_garbage_in_a_stream(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(CHAT, json=body(Script(chunks=2, garbage=Garbage.CHUNK), stream=True))
    answer = await client.post(CHAT, json=body(Script(chunks=2, garbage=Garbage.JSON), stream=True))
    assert answer.text.count('data: {"not": json\n') == 2


async def test_an_error_event_ends_a_stream_regularly(client: httpx.AsyncClient) -> None:
    found = events((await client.post(CHAT, json=body(Script(error_after=2), stream=True))).text)
    assert "error" in found[-2]
    assert found[-1] == "[DONE]"


async def test_statuses_carry_retry_after(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, json=body(Script(status=503, retry_after=7), stream=True))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize(("position", "seen_before"), [(-1, 0), (0, 0), (2, 2)])
async def test_a_held_answer_goes_on_when_released(
    upstream: Upstream, client: httpx.AsyncClient, position: int, seen_before: int
) -> None:
    request = asyncio.ensure_future(client.post(CHAT, json=body(Script(chunks=4, hang_after=position), stream=True)))
    await upstream.until(lambda: bool(upstream.held))
    assert [exchange.delivered for exchange in upstream.held] == [seen_before]
    upstream.release()
    assert len(events((await request).text)) == 7


async def test_a_client_that_leaves_is_noted(upstream: Upstream, client: httpx.AsyncClient) -> None:
    request = asyncio.ensure_future(client.post(CHAT, json=body(Script(hang_after=2), stream=True)))
    await upstream.until(lambda: bool(upstream.held))
    request.cancel()
    await upstream.until(lambda: upstream.stats.client_gone == 1)
    assert upstream.seen[0].delivered == 2
    assert not upstream.held


async def test_the_journal_has_a_request_and_its_outcome(
    upstream: Upstream, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await client.post(CHAT, json=body(Script(chunks=5)), headers={"x-request-id": "one"})
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post(CHAT, json=body(Script(die_after=3), stream=True), headers={"x-request-id": "two"})
    first, done, second, cut = read_journal(tmp_path / "journal")
    assert (first.id, first.prompt_tokens, first.completion_tokens, first.usage_reported) == ("one", 11, 5, True)
    assert (done.id, done.event, done.delivered) == ("one", "done", 5)
    assert (second.id, second.stream, second.usage_reported) == ("two", True, False)
    assert (cut.id, cut.event, cut.delivered) == ("two", "cut", 3)


async def test_scripts_by_header_and_by_default(upstream: Upstream, client: httpx.AsyncClient) -> None:
    assert (await client.put("/_upstream/script", json={"chunks": 2, "health": 503})).status_code == 200
    assert (await client.get("/health")).status_code == 503
    assert (await client.post(CHAT, json=body())).json()["usage"]["completion_tokens"] == 2
    headers = {"x-upstream-script": '{"chunks":3}'}
    assert (await client.post(CHAT, json=body(), headers=headers)).json()["usage"]["completion_tokens"] == 3
    assert (await client.get("/_upstream/stats")).json()["requests"] == 2
    assert upstream.stats.done == 2


@pytest.mark.parametrize("bad", [{"user": '{"chunk":1}'}, {"messages": 3}])
async def test_a_mistyped_script_is_refused(client: httpx.AsyncClient, bad: dict[str, Any]) -> None:
    answer = await client.post(CHAT, json={"model": "m", "messages": [], **bad})
    assert answer.status_code == 400


async def test_connections_are_kept_or_closed_as_told(upstream: Upstream, client: httpx.AsyncClient) -> None:
    for _ in range(3):
        await client.post(CHAT, json=body(Script(chunks=1)))
    assert upstream.stats.connections == 1
    answer = await client.post(CHAT, json=body(Script(chunks=1, close=True)))
    assert answer.headers["connection"] == "close"
    await upstream.until(lambda: upstream.stats.open == 0)


async def test_pipelined_requests_are_answered_in_order(upstream: Upstream) -> None:
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    for chunks in (3, 1):
        data = json.dumps(body(Script(chunks=chunks), stream=chunks == 3)).encode()
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(data), data))
    text = await reader.readuntil(b"0\r\n\r\n")
    assert contents(text.decode()) == 3
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    await writer.wait_closed()
