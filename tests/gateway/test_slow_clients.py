"""Clients that do not read: the replica waits, memory stays bounded, and after their time they are cut off."""

import asyncio
import json
import socket
from pathlib import Path

from gateway_under_test import Gateway, StartGateway, content_events
from http_client import CHAT, Connection, body_for, post
from memory_transport import MemoryGateway

from swell.state.worker import Bounds, Timeouts
from swell.testing.upstream_script import Script, Writes

BUFFER_BYTES = 64 * 1024
READ_BYTES = 256 * 1024  # the most that uvloop reads at once
LONG = Script(chunks=5_000, writes=Writes.EVENT)  # 800 kB, more than the sockets between hold
TIMES = Timeouts(slow_client_seconds=30.0, idle_seconds=5.0, keep_alive_seconds=75.0)
BOUNDS = Bounds(client_buffer_bytes=BUFFER_BYTES)


async def connect_lazily(gateway: Gateway) -> Connection:
    """A client with small buffers that reads only when asked."""
    endpoint = socket.socket()
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    endpoint.setblocking(False)
    await asyncio.get_running_loop().sock_connect(endpoint, ("127.0.0.1", gateway.port))
    connection = await gateway.connect_over(endpoint, limit=4096)
    shrink_send_buffers(gateway)
    return connection


def shrink_send_buffers(gateway: Gateway) -> None:
    for client in gateway.service.clients:
        client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)


def unread(gateway: Gateway) -> int:
    (client,) = gateway.service.clients
    return client.transport.get_write_buffer_size()


async def stall(gateway: Gateway) -> Connection:
    """A stream whose client has stopped reading, and whose replica is paused."""
    connection = await connect_lazily(gateway)
    connection.send(CHAT, body_for(CHAT, LONG, stream=True, max_tokens=5_000))
    await gateway.until(lambda: any(exchange.paused_since for exchange in gateway.service.exchanges))
    return connection


async def start(start_gateway: StartGateway) -> Gateway:
    return await start_gateway(timeouts=TIMES, bounds=BOUNDS, max_tokens_cap=30_000)


async def test_a_client_that_does_not_read_pauses_the_replica_in_bounded_memory(start_gateway: StartGateway) -> None:
    gateway = await start(start_gateway)
    connection = await stall(gateway)
    assert BUFFER_BYTES < unread(gateway) <= BUFFER_BYTES + READ_BYTES
    gateway.pass_time(29.0)  # the replica's silence is not its fault
    assert len(gateway.service.exchanges) == 1
    body = (await connection.answer()).body
    assert content_events(body) == 5_000
    assert gateway.outcomes == [("settled", 11, 5_000, 200)]


async def test_a_client_that_reads_nothing_for_its_time_is_cut_off(start_gateway: StartGateway) -> None:
    gateway = await start(start_gateway)
    await stall(gateway)
    gateway.pass_time(31.0)
    await gateway.upstream.until(lambda: gateway.upstream.stats.client_gone == 1)
    await gateway.until(lambda: not gateway.service.clients)
    status, _, completion, code = gateway.outcomes[0]
    assert (status, code) == ("estimated", 499)
    assert 0 < completion < 5_000


async def test_a_whole_answer_that_nobody_reads_is_dropped(start_gateway: StartGateway) -> None:
    gateway = await start(start_gateway)
    connection = await connect_lazily(gateway)
    connection.send(CHAT, body_for(CHAT, Script(chunks=80_000), max_tokens=30_000, n=3))
    await gateway.until(lambda: bool(gateway.ledger) and not gateway.service.exchanges)
    assert unread(gateway) > 0
    gateway.pass_time(1.0)
    gateway.pass_time(31.0)
    await gateway.until(lambda: not gateway.service.clients)


async def test_a_client_gets_no_other_answer_before_it_has_read_the_last(start_gateway: StartGateway) -> None:
    """Or it could fill the memory with answers."""
    gateway = await start(start_gateway)
    connection = await connect_lazily(gateway)
    big = post(CHAT, body_for(CHAT, Script(chunks=80_000), max_tokens=30_000, n=3), gateway.token)
    connection.writer.write(big * 4)
    await gateway.until(lambda: unread(gateway) > BUFFER_BYTES)
    for _ in range(100):
        await asyncio.sleep(0)
    assert gateway.upstream.stats.requests == 1
    sizes = [len((await connection.answer()).body) for _ in range(4)]
    assert len(set(sizes)) == 1
    assert gateway.upstream.stats.requests == 4


async def test_a_client_that_reads_slowly_but_steadily_is_not_cut_off(start_gateway: StartGateway) -> None:
    gateway = await start(start_gateway)
    connection = await connect_lazily(gateway)
    connection.send(CHAT, body_for(CHAT, Script(chunks=80_000), max_tokens=30_000, n=3), connection="close")
    await gateway.until(lambda: bool(gateway.ledger) and not gateway.service.exchanges)
    head = await connection.until(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    got = b""
    while len(got) < length:
        before = unread(gateway) if gateway.service.clients else 0  # none: the kernel has it all by now
        part = await connection.reader.read(64 * 1024)
        got += part
        while len(part) < 64 * 1024 and len(got) < length:
            more = await connection.reader.read(64 * 1024)
            part, got = part + more, got + more
        if before:
            await gateway.until(lambda before=before: not gateway.service.clients or unread(gateway) < before)
        gateway.pass_time(20.0)
    assert json.loads(got)["usage"]["completion_tokens"] == 90_000


def test_a_replica_connection_that_was_paused_at_the_end_serves_the_next_request(tmp_path: Path) -> None:
    gateway = MemoryGateway(tmp_path)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    event = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
    answer = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
    connection, transport = gateway.replica()
    gateway.client.data_received(post(CHAT, body_for(CHAT, stream=True), gateway.token))
    gateway.client_transport.on_write = gateway.client.pause_writing
    connection.data_received(answer)
    assert not gateway.service.exchanges
    assert transport.reading
    gateway.close()
