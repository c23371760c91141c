"""Answers that are no streams: every endpoint, every way to end a body, errors in a common shape."""

import msgspec
import pytest
from gateway_under_test import Gateway, StartGateway
from http_client import CHAT, EMBEDDINGS, MESSAGES, STREAMED, body_for, post

from swell.state.worker import Bounds
from swell.testing.upstream_script import Framing, Garbage, Script, UsageMode, Writes

ENDPOINTS = (*STREAMED, EMBEDDINGS)


def engine_body(gateway: Gateway) -> bytes:
    """The last answer's payload as the upstream wrote it, where it is framed by its length."""
    data = b"".join(data for data, _ in gateway.upstream.seen[-1].answer.steps)
    return data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_an_answer_passes_verbatim_and_its_usage_is_settled(gateway: Gateway, path: str) -> None:
    answer = await gateway.ask(path, body_for(path, Script(chunks=5)))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == engine_body(gateway)
    (entry,) = gateway.ledger.values()
    assert entry.outcome == ("settled", 11, 0 if path == EMBEDDINGS else 5, 200)
    reserved = entry.reserved
    assert reserved.prompt_tokens >= 11
    assert reserved.completion_tokens >= entry.outcome[2]
    assert (reserved.endpoint, reserved.model, reserved.tenant, reserved.key_id) == (path, "m", "t", gateway.key_id)
    assert entry.settled is not None
    assert entry.settled.replica_id == "m-0"
    assert answer.headers["x-request-id"] == reserved.request_id == gateway.upstream.seen[0].request_id


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "script",
    [
        Script(framing=Framing.CHUNKED),
        Script(framing=Framing.CHUNKED, writes=Writes.SPLIT, split_bytes=50),
        Script(framing=Framing.CHUNKED, writes=Writes.DRIBBLE, split_bytes=50),
        Script(framing=Framing.LENGTH, writes=Writes.DRIBBLE, split_bytes=50),
        Script(framing=Framing.EOF),
        Script(framing=Framing.HTTP10),
        Script(close=True),
        Script(silent_close=True),
        Script(interim=True),
        Script(interim=True, framing=Framing.CHUNKED, writes=Writes.DRIBBLE, split_bytes=50),
        Script(spaces=True),
        Script(prompt_tokens=0, completion_tokens=0),
    ],
    ids=lambda script: msgspec.json.encode(script).decode(),
)
async def test_the_client_gets_the_same_however_the_replica_frames_it(
    gateway: Gateway, path: str, script: Script
) -> None:
    connection = await gateway.connect()
    script = msgspec.structs.replace(script, chunks=4)
    plain = msgspec.structs.replace(script, framing=Framing.LENGTH, writes=Writes.EVENT, interim=False)
    plain = msgspec.structs.replace(plain, close=False, silent_close=False)
    expected = await connection.ask(path, body_for(path, plain))
    for _ in range(2):
        answer = await connection.ask(path, body_for(path, script))
        assert (answer.status, answer.body) == (200, expected.body)
        assert answer.headers["content-length"] == str(len(answer.body))
        assert "connection" not in answer.headers
    assert len(set(gateway.outcomes)) == 1
    assert gateway.outcomes[0][0] == "settled"


async def test_an_explicit_zero_is_settled_and_no_usage_is_an_estimate(gateway: Gateway) -> None:
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=8, prompt_tokens=0, completion_tokens=0)))
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=8, usage=UsageMode.NEVER), max_tokens=8))
    settled, estimated = gateway.ledger.values()
    assert settled.outcome == ("settled", 0, 0, 200)
    assert estimated.outcome[0] == "estimated"
    assert 0 < estimated.outcome[1] <= estimated.reserved.prompt_tokens
    assert 0 < estimated.outcome[2] <= estimated.reserved.completion_tokens


async def test_an_answer_that_is_not_json_passes_as_an_estimate(gateway: Gateway) -> None:
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(garbage=Garbage.JSON)))
    assert (answer.status, answer.body) == (200, engine_body(gateway))
    assert gateway.outcomes[0][0] == "estimated"


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500])
async def test_an_engines_own_error_passes_with_its_status(gateway: Gateway, status: int) -> None:
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(status=status, retry_after=7)))
    assert (answer.status, answer.body) == (status, engine_body(gateway))
    assert answer.headers["retry-after"] == "7"
    assert gateway.outcomes == [("settled", 0, 0, status)]


async def test_an_engines_error_in_another_shape_is_put_into_the_common_one(gateway: Gateway) -> None:
    gateway.upstream.script = Script(status=500)
    path = "/v1/chat/completions"
    for framing in (Framing.AUTO, Framing.CHUNKED, Framing.EOF):
        script = Script(status=500, garbage=Garbage.JSON, framing=framing)
        answer = await gateway.ask(path, body_for(path, script))
        assert answer.status == 500
        assert answer.json["error"]["message"]
    answer = await gateway.ask(MESSAGES, body_for(MESSAGES, Script(status=500, garbage=Garbage.JSON)))
    assert answer.status == 500


async def test_a_whole_answer_to_a_stream_request_is_passed_as_it_is(gateway: Gateway) -> None:
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(status=400), stream=True))
    assert (answer.status, answer.body) == (400, engine_body(gateway))


async def test_stream_false_and_null_are_no_streams(gateway: Gateway) -> None:
    for more in ({"stream": False}, {"stream": None}, {"stream": False, "stream_options": None}):
        answer = await gateway.ask(CHAT, body_for(CHAT, Script(chunks=2), **more))
        assert answer.json["usage"]["completion_tokens"] == 2
    assert gateway.outcomes == [("settled", 11, 2, 200)] * 3


async def test_a_client_of_http_1_0_gets_its_answer_and_the_connection_is_closed(gateway: Gateway) -> None:
    connection = await gateway.connect()
    answer = await connection.ask(CHAT, body_for(CHAT, Script(chunks=2)), version="1.0")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await connection.ended()


async def test_pipelined_requests_are_answered_in_their_order(gateway: Gateway) -> None:
    connection = await gateway.connect()
    wanted = [3, 1, 4, 1, 5]
    data = [post(CHAT, body_for(CHAT, Script(chunks=chunks)), gateway.token) for chunks in wanted]
    connection.writer.write(b"".join(data))
    got = [(await connection.answer()).json["usage"]["completion_tokens"] for _ in wanted]
    assert got == wanted


async def test_replica_connections_are_reused_over_clients(gateway: Gateway) -> None:
    for _ in range(4):
        await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert gateway.upstream.stats.connections == 1


async def test_an_answer_over_the_bound_is_refused(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(bounds=Bounds(response_bytes=1000))
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(chunks=600)))
    assert (answer.status, answer.error) == (502, "bad_answer")
    assert gateway.outcomes == [("estimated", 0, 0, 502)]
    await gateway.upstream.until(lambda: gateway.upstream.stats.open == 0)
