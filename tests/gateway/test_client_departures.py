"""Clients that leave: the replica is told, what was delivered counts, and every place is free again."""

import asyncio
import socket
import struct

import pytest
from gateway_under_test import Gateway, StartGateway
from http_client import CHAT, COMPLETIONS, MESSAGES, RESPONSES, STREAMED, Connection, body_for, post

from swell.state.snapshot import Limits
from swell.state.worker import Bounds
from swell.testing.upstream_script import Script, UsageMode, Writes


def leave(connection: Connection, how: str) -> None:
    """By closing, or by a reset."""
    if how == "reset":
        endpoint = connection.writer.get_extra_info("socket")
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()


async def hold(gateway: Gateway, path: str, script: Script, **more: object) -> Connection:
    """A request whose answer the replica holds back."""
    connection = await gateway.connect()
    held = len(gateway.upstream.held)
    connection.send(path, body_for(path, script, **more))
    await gateway.upstream.until(lambda: len(gateway.upstream.held) > held)
    return connection


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("chunks", [1, 3])
@pytest.mark.parametrize("writes", [Writes.EVENT, Writes.MERGED])
@pytest.mark.parametrize("path", STREAMED)
async def test_a_client_that_leaves_in_mid_stream_pays_for_what_it_got(
    gateway: Gateway, path: str, writes: Writes, chunks: int, how: str
) -> None:
    connection = await hold(gateway, path, Script(chunks=9, hang_after=chunks, writes=writes), stream=True)
    for _ in range(chunks):
        await connection.until(b'" token"')
    leave(connection, how)
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    await gateway.settled()
    status, prompt, completion, code = gateway.outcomes[0]
    assert (status, completion, code) == ("estimated", chunks, 499)
    assert 0 < prompt <= next(iter(gateway.ledger.values())).reserved.prompt_tokens
    gateway.assert_idle()
    assert gateway.replica().health.failures == 0


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_end_of_a_choice_is_no_token_of_a_client_that_leaves_after_it(gateway: Gateway, path: str) -> None:
    """The last content, the finish, and only then the end."""
    script = Script(chunks=3, usage=UsageMode.NEVER, writes=Writes.EVENT, delay_ms=0)
    connection = await gateway.connect()
    connection.send(path, body_for(path, script, stream=True))
    await connection.until(b'"finish_reason":"stop"')
    leave(connection, "reset")
    await gateway.settled()
    assert gateway.outcomes[0][2] == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES, MESSAGES])
async def test_a_client_that_leaves_before_the_answer_pays_for_its_prompt(
    gateway: Gateway, path: str, stream: bool
) -> None:
    connection = await hold(gateway, path, Script(hang_after=-1), stream=stream)
    leave(connection, "close")
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    await gateway.settled()
    (entry,) = gateway.ledger.values()
    assert entry.outcome[::3] == ("estimated", 499)
    assert 0 < entry.outcome[1] <= entry.reserved.prompt_tokens
    assert entry.outcome[2] == 0


async def test_a_client_that_leaves_in_the_middle_of_a_whole_answer(gateway: Gateway) -> None:
    connection = await hold(gateway, CHAT, Script(hang_after=0))
    leave(connection, "close")
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    await gateway.settled()
    assert gateway.outcomes[0][2:] == (0, 499)


async def test_a_client_that_leaves_the_queue_is_void_and_delays_nobody(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1)
    first = await hold(gateway, CHAT, Script(chunks=2, hang_after=-1))
    waiting = [await gateway.connect() for _ in range(3)]
    for number, connection in enumerate(waiting, 1):
        connection.send(CHAT, body_for(CHAT, Script(chunks=number)))
        await gateway.until(lambda number=number: gateway.route.queued == number)
    leave(waiting[1], "close")
    await gateway.until(lambda: gateway.route.queued == 2)
    gateway.upstream.release()
    for connection in (first, waiting[0], waiting[2]):
        assert (await connection.answer()).status == 200
    assert [outcome[0] for outcome in gateway.outcomes] == ["settled", "settled", "void", "settled"]
    assert gateway.outcomes[2] == ("void", 0, 0, 499)
    assert len(gateway.upstream.seen) == 3


async def test_a_client_that_leaves_while_connecting_is_void(start_gateway: StartGateway) -> None:
    """A listener whose backlog is full neither accepts nor refuses."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        gateway = await start_gateway()
        gateway.upstream.port, port = full.getsockname()[1], gateway.upstream.port
        gateway.publish()
        connection = await gateway.connect()
        connection.send(CHAT, body_for(CHAT))
        await gateway.until(lambda: gateway.replica().in_flight == 1)
        leave(connection, "close")
        await gateway.until(lambda: not gateway.service.exchanges)
        gateway.upstream.port = port
    assert gateway.outcomes == [("void", 0, 0, 499)]


async def test_a_client_that_leaves_while_it_waits_for_its_share_leaves_no_record(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(concurrent_requests=1, requests_per_minute=10))
    first = await hold(gateway, CHAT, Script(chunks=1, hang_after=-1))
    second = await gateway.connect()
    second.send(CHAT, body_for(CHAT))
    await gateway.until(lambda: len(gateway.service.exchanges) == 2)
    leave(second, "close")
    await gateway.until(lambda: len(gateway.service.exchanges) == 1)
    gateway.upstream.release()
    assert (await first.answer()).status == 200
    assert len(gateway.ledger) == 1
    share = gateway.service.shares.find(f"key:{gateway.key_id}:requests_per_minute")
    assert share is not None
    assert share.used == 1


async def test_a_client_that_leaves_frees_its_concurrency(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(limits=Limits(concurrent_requests=1))
    for _ in range(3):
        connection = await hold(gateway, CHAT, Script(chunks=5, hang_after=2), stream=True)
        leave(connection, "reset")
        await gateway.until(lambda: not gateway.service.exchanges)
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200


async def test_pipelined_requests_of_a_client_that_left_never_go_out(gateway: Gateway) -> None:
    connection = await hold(gateway, CHAT, Script(hang_after=-1))
    connection.writer.write(post(CHAT, body_for(CHAT), gateway.token) * 3)
    await connection.writer.drain()
    for _ in range(20):
        await asyncio.sleep(0)
    leave(connection, "close")
    await gateway.until(lambda: not gateway.service.clients)
    gateway.upstream.release()
    assert gateway.upstream.stats.requests == 1


async def test_a_probe_whose_client_leaves_is_followed_by_another(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(bounds=Bounds(retries=0))
    for _ in range(3):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(die_after=-1)))).status == 502
    assert gateway.replica().health.is_ejected
    gateway.clock.advance(1.0)
    probe = await hold(gateway, CHAT, Script(hang_after=-1))
    assert not gateway.replica().has_room
    leave(probe, "close")
    await gateway.until(lambda: not gateway.service.exchanges)
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert not gateway.replica().health.is_ejected
