"""Replicas that die, hang or refuse: retried before the first byte, told in the stream after it, recorded once."""

import asyncio
import socket

import pytest
from gateway_under_test import Gateway, StartGateway, content_events, error_codes
from http_client import CHAT, COMPLETIONS, LAST_CHUNK, MESSAGES, RESPONSES, STREAMED, body_for

from swell.state.worker import Bounds, Timeouts
from swell.testing.upstream_script import Cut, Framing, Garbage, Script, UsageMode, Writes

BEFORE_THE_HEAD = [
    Script(die_after=-1),
    Script(die_after=-1, die=Cut.RESET),
    Script(garbage=Garbage.HEAD),
    Script(status=502),
    Script(status=503),
]


async def two_replicas_the_first_bad(start_gateway: StartGateway, bad: Script) -> Gateway:
    """The next request goes to `m-1` first, which answers as `bad` says."""
    gateway = await start_gateway(replicas=2, routing="round_robin")
    gateway.upstreams[1].script = bad
    gateway.upstreams[0].script = Script(chunks=4)
    return gateway


@pytest.mark.parametrize("bad", BEFORE_THE_HEAD, ids=lambda s: f"{s.die_after}{s.die}{s.garbage}{s.status}")
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_before_the_first_byte_is_retried_on_another_replica(
    start_gateway: StartGateway, bad: Script, stream: bool
) -> None:
    gateway = await two_replicas_the_first_bad(start_gateway, bad)
    for _ in range(4):
        answer = await gateway.ask(CHAT, body_for(CHAT, stream=stream))
        assert answer.status == 200
    assert gateway.upstreams[1].stats.requests >= 1
    assert gateway.outcomes == [("settled", 11, 4, 200)] * 4
    assert {entry.settled.replica_id for entry in gateway.ledger.values() if entry.settled} == {"m-0"}
    assert gateway.service.counters.retries >= 1


async def test_half_a_json_answer_is_retried_as_well(start_gateway: StartGateway) -> None:
    gateway = await two_replicas_the_first_bad(start_gateway, Script(chunks=4, die_after=0))
    for _ in range(2):
        answer = await gateway.ask(CHAT, body_for(CHAT))
        assert (answer.status, answer.json["usage"]["completion_tokens"]) == (200, 4)
    assert gateway.upstreams[1].stats.cut >= 1
    assert gateway.outcomes == [("settled", 11, 4, 200)] * 2


async def test_retries_have_a_bound_and_leave_one_record(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(bounds=Bounds(retries=1))
    gateway.upstream.script = Script(die_after=-1)
    answer = await gateway.ask(CHAT, body_for(CHAT))
    assert (answer.status, answer.error) == (502, "replica_unavailable")
    assert gateway.upstream.stats.requests == 2
    assert gateway.outcomes == [("estimated", 0, 0, 502)]


async def test_a_status_that_stays_bad_is_passed_after_the_retries(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(bounds=Bounds(retries=1))
    gateway.upstream.script = Script(status=503, retry_after=3)
    answer = await gateway.ask(CHAT, body_for(CHAT))
    assert (answer.status, answer.headers["retry-after"]) == (503, "3")
    assert gateway.upstream.stats.requests == 2
    assert gateway.outcomes == [("settled", 0, 0, 503)]


@pytest.mark.parametrize("chunks", [0, 1, 3])
@pytest.mark.parametrize("writes", [Writes.EVENT, Writes.BURST, Writes.SPLIT, Writes.DRIBBLE])
@pytest.mark.parametrize("path", STREAMED)
async def test_a_cut_stream_ends_with_an_error_and_counts_what_was_delivered(
    gateway: Gateway, path: str, writes: Writes, chunks: int
) -> None:
    script = Script(chunks=9, die_after=chunks, writes=writes, split_bytes=40)
    answer = await gateway.ask(path, body_for(path, script, stream=True))
    assert answer.raw.endswith(LAST_CHUNK)
    assert answer.body.count(b"token" if path in (CHAT, COMPLETIONS) else b'" token"') == chunks
    if path == MESSAGES:
        assert b"event: error\ndata: " in answer.body
    else:
        assert error_codes(answer.body) == ["replica_lost"]
    status, prompt, completion, code = gateway.outcomes[0]
    assert (status, completion, code) == ("estimated", chunks, 502)
    assert 0 < prompt <= next(iter(gateway.ledger.values())).reserved.prompt_tokens
    assert gateway.upstream.stats.requests == 1  # not retried: the client has seen a part


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
async def test_the_client_may_go_on_after_a_cut_stream(gateway: Gateway, framing: Framing) -> None:
    connection = await gateway.connect()
    script = Script(die_after=2, framing=framing)
    assert error_codes((await connection.ask(CHAT, body_for(CHAT, script, stream=True))).body) == ["replica_lost"]
    assert (await connection.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200


async def test_running_counts_settle_a_cut_stream(gateway: Gateway) -> None:
    script = Script(chunks=9, die_after=3, usage=UsageMode.EVERY)
    await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
    assert gateway.outcomes == [("settled", 11, 3, 502)]


@pytest.mark.parametrize("path", [RESPONSES, MESSAGES, COMPLETIONS])
async def test_a_stream_cut_by_reset_is_told_too(gateway: Gateway, path: str) -> None:
    connection = await gateway.connect()
    connection.send(path, body_for(path, Script(chunks=9, hang_after=2), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    await connection.until(b'" token"')
    gateway.upstream.drop()
    rest = await connection.until(LAST_CHUNK)
    assert b"error" in rest
    assert gateway.outcomes[0][::2] == ("estimated", 2)


async def test_a_replica_that_never_answers_is_given_up(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(timeouts=Timeouts(first_byte_seconds=10.0, keep_alive_seconds=500.0))
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(hang_after=-1), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.pass_time(9.0)
    assert len(gateway.service.exchanges) == 1
    gateway.pass_time(2.0)
    answer = await connection.answer()
    assert (answer.status, answer.error) == (504, "replica_timeout")
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    assert gateway.outcomes == [("estimated", 0, 0, 504)]
    assert gateway.replica().health.failures == 1


@pytest.mark.parametrize("chunks", [0, 2])
async def test_a_stream_that_falls_silent_is_cut(start_gateway: StartGateway, chunks: int) -> None:
    gateway = await start_gateway(timeouts=Timeouts(idle_seconds=10.0, keep_alive_seconds=500.0))
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(hang_after=chunks), stream=True))
    await connection.until(b"\r\n\r\n")
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.pass_time(9.0)
    gateway.pass_time(9.0 - 8.5)
    assert len(gateway.service.exchanges) == 1
    gateway.pass_time(2.0)
    assert b"replica_lost" in await connection.until(LAST_CHUNK)
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    assert gateway.outcomes[0][::2] == ("estimated", chunks)
    assert gateway.outcomes[0][3] == 502


async def test_an_answer_that_falls_silent_is_a_timeout(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(timeouts=Timeouts(idle_seconds=10.0, keep_alive_seconds=500.0))
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(hang_after=0)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    await gateway.until(lambda: gateway.service.exchanges != set())
    gateway.pass_time(0.0)
    gateway.pass_time(11.0)
    answer = await connection.answer()
    assert (answer.status, answer.error) == (504, "replica_timeout")


async def test_a_whole_request_has_its_time(start_gateway: StartGateway) -> None:
    timeouts = Timeouts(first_byte_seconds=900.0, total_seconds=100.0, keep_alive_seconds=500.0)
    gateway = await start_gateway(timeouts=timeouts)
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.pass_time(101.0)
    assert (await connection.answer()).status == 504


async def test_a_refused_connection_is_retried_on_another_replica(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(replicas=2, routing="round_robin")
    await gateway.upstreams[1].close()
    for _ in range(4):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=2)))).status == 200
    assert gateway.outcomes == [("settled", 11, 2, 200)] * 4
    assert gateway.replica(1).health.failures >= 1


async def test_a_replica_that_accepts_nobody_in_time_is_no_replica(start_gateway: StartGateway) -> None:
    """A listener whose backlog is full neither accepts nor refuses."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        gateway = await start_gateway(timeouts=Timeouts(connect_seconds=0.05), bounds=Bounds(retries=0))
        gateway.upstream.port, port = full.getsockname()[1], gateway.upstream.port
        gateway.publish()
        answer = await gateway.ask(CHAT, body_for(CHAT))
        gateway.upstream.port = port
    assert (answer.status, answer.error) == (502, "replica_unavailable")
    assert gateway.outcomes == [("void", 0, 0, 502)]
    assert gateway.upstream.stats.requests == 0


async def test_a_kept_connection_that_was_closed_is_no_failure(gateway: Gateway) -> None:
    """The replica closes an idle connection at the moment a request goes out on it."""
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    connection = await gateway.connect()
    (kept,) = gateway.upstream.connections
    connection.send(CHAT, body_for(CHAT, Script(chunks=2)))
    kept.transport.close()
    answer = await connection.answer()
    assert answer.status == 200
    assert gateway.outcomes[-1] == ("settled", 11, 2, 200)
    assert gateway.replica().health.failures == 0
    assert gateway.service.counters.retries == 0


async def test_a_kept_connection_that_was_closed_keeps_its_place(start_gateway: StartGateway) -> None:
    """While one request finds its connection closed and connects anew, no other takes its place at the replica."""
    gateway = await start_gateway(max_in_flight=1)
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    (kept,) = gateway.upstream.connections
    first, second = await gateway.connect(), await gateway.connect()
    peak = 0
    kept.transport.close()
    for connection in (first, second):
        connection.send(CHAT, body_for(CHAT, Script(chunks=2)))
    answers = asyncio.gather(first.answer(), second.answer())
    while not answers.done():
        peak = max(peak, gateway.replica().in_flight)
        await asyncio.sleep(0)
    assert [answer.status for answer in await answers] == [200, 200]
    assert peak == 1
    assert gateway.upstream.stats.peak_in_flight == 1


@pytest.mark.parametrize("framing", [Framing.EOF, Framing.HTTP10, Framing.LENGTH])
async def test_a_replica_that_closes_without_saying_so(gateway: Gateway, framing: Framing) -> None:
    for _ in range(3):
        script = Script(chunks=2, framing=framing, silent_close=True)
        answer = await gateway.ask(CHAT, body_for(CHAT, script, stream=True))
        assert content_events(answer.body) == 2
    assert gateway.outcomes == [("settled", 11, 2, 200)] * 3
    assert gateway.replica().health.failures == 0


async def test_two_answers_to_one_request_reach_nobody(start_gateway: StartGateway) -> None:
    """A replica whose answers could be taken for those of the next request is cut off."""
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    requests = 0

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(answer + answer)
        assert await reader.read() != b""
        writer.close()

    gateway = await start_gateway(bounds=Bounds(retries=0))
    server = await asyncio.start_server(twice, "127.0.0.1", 0)
    gateway.upstream.port, port = server.sockets[0].getsockname()[1], gateway.upstream.port
    gateway.publish()
    result = await gateway.ask(CHAT, body_for(CHAT))
    gateway.upstream.port = port
    server.close()
    await server.wait_closed()
    assert (result.status, result.error, requests) == (502, "replica_unavailable", 1)


async def test_a_request_that_makes_the_replica_hang_up_does_not_go_round_its_kept_connections(
    gateway: Gateway,
) -> None:
    held = [await gateway.connect() for _ in range(8)]
    for connection in held:
        connection.send(CHAT, body_for(CHAT, Script(chunks=1)))
    for connection in held:
        assert (await connection.answer()).status == 200
    before = len(gateway.upstream.seen)
    asking = await gateway.connect()
    asking.send(CHAT, body_for(CHAT, Script(die_after=-1)))
    assert (await asking.answer()).status == 502
    assert len(gateway.upstream.seen) - before <= 2 + gateway.service.bounds.retries
