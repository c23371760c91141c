"""Who may knock at a door that asks for certificates: nobody who proves nothing keeps others out."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from pod_under_test import CHAT_PODS, Pod, bare_context, identity
from swell.security.replica_tls import client_context, replica_context
from swell.server.tls_door import LOOK_SECONDS, MAX_HANDSHAKES, TlsDoor, Waited
from swell.server.unproven import MAX_ADDRESSES, UNPROVEN_CONNECTIONS, UNPROVEN_PER_SECOND, Unproven, source

KNOCKS = 800  # at once; of a door that waits for each of them a second, six seconds' worth
AT_ONCE = 32
WAIT_SECONDS = 4.0
STRANGER, GATEWAY = "127.0.0.1", "127.0.0.2"


class Greeted(asyncio.Protocol):
    """Says one byte to whoever has proved who it is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(b"+")


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[TlsDoor]:
    Pod(tmp_path, 0).mount()
    context = replica_context(tmp_path)
    made = TlsDoor(Greeted)
    await made.open("127.0.0.1", 0, lambda: context)
    yield made
    made.close()


async def knock(door: TlsDoor, address: str) -> asyncio.StreamWriter:
    """A connection from that address that says nothing."""
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, local_addr=(address, 0))
    return writer


async def come_in(door: TlsDoor, address: str, context: ssl.SSLContext | None = None) -> bytes:
    """What somebody is greeted with, who shows a certificate but for another context; nothing where it is refused."""
    context = context or client_context(identity())
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", door.port, ssl=context, server_hostname=CHAT_PODS, local_addr=(address, 0)
        )
    except OSError:
        return b""
    try:
        return await reader.read(1)
    except OSError:
        return b""
    finally:
        writer.transport.abort()


async def test_an_address_that_opens_hundreds_of_connections_and_says_nothing_keeps_no_gateway_out(
    door: TlsDoor,
) -> None:
    silent = [await knock(door, STRANGER) for _ in range(KNOCKS)]
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            assert await come_in(door, GATEWAY) == b"+"
    finally:
        for writer in silent:
            writer.transport.abort()
    assert door.refused > KNOCKS / 2


async def test_who_shows_no_certificate_is_soon_refused_before_keys_are_exchanged(door: TlsDoor) -> None:
    tries, context = 2 * UNPROVEN_CONNECTIONS, bare_context()
    told = await asyncio.gather(*(come_in(door, STRANGER, context) for _ in range(tries)))
    assert told == [b""] * tries
    assert 0 < door.refused <= UNPROVEN_CONNECTIONS
    assert await come_in(door, GATEWAY) == b"+"


async def test_gateways_of_one_address_are_let_in_however_many_they_are(door: TlsDoor) -> None:
    context = client_context(identity())
    for _ in range(UNPROVEN_CONNECTIONS // AT_ONCE + 2):
        told = await asyncio.gather(*(come_in(door, GATEWAY, context) for _ in range(AT_ONCE)))
        assert told == [b"+"] * AT_ONCE
    assert door.refused == 0


async def test_one_that_is_gone_before_it_is_refused_is_refused_all_the_same(door: TlsDoor) -> None:
    gone = socket.socket()
    gone.close()  # so that setting anything of it fails, as some systems say of a connection that was reset
    door.refuse(gone, STRANGER)
    assert door.refused == 1


def test_what_two_sockets_wait_for_at_once_counts_once() -> None:
    waited = Waited()
    for tenth in range(10):
        since = tenth / 10
        waited.add(since, since + 0.1)
        waited.add(since + 0.02, since + 0.1)
    assert waited.seconds == pytest.approx(1.0)
    waited.add(5.0, 8.0)
    assert waited.seconds == pytest.approx(1.0 + LOOK_SECONDS), "while the server was behind, little"


def test_an_address_may_try_again_as_time_goes_on() -> None:
    unproven = Unproven()
    tries = [unproven.admits("a", 0.0) for _ in range(2 * UNPROVEN_CONNECTIONS)]
    assert tries == [True] * UNPROVEN_CONNECTIONS + [False] * UNPROVEN_CONNECTIONS
    assert unproven.admits("b", 0.0)
    assert sum(unproven.admits("a", 1.0) for _ in range(100)) == UNPROVEN_PER_SECOND
    unproven.proved("a", 1.0)
    assert [unproven.admits("a", 1.0), unproven.admits("a", 1.0)] == [True, False]
    assert sum(unproven.admits("a", 1e6) for _ in range(1000)) == UNPROVEN_CONNECTIONS


def test_more_of_them_wait_than_a_door_takes_at_once_before_one_is_refused() -> None:
    assert UNPROVEN_CONNECTIONS > MAX_HANDSHAKES


def test_no_more_addresses_are_remembered_than_promised() -> None:
    unproven = Unproven()
    for _ in range(UNPROVEN_CONNECTIONS):
        unproven.admits("first", 0.0)
    for number in range(MAX_ADDRESSES - 1):
        unproven.admits(str(number), 0.0)
    assert (len(unproven), unproven.admits("first", 0.0)) == (MAX_ADDRESSES, False)
    for number in range(MAX_ADDRESSES):
        unproven.admits(str(number), 0.0)
    assert (len(unproven), unproven.admits("first", 0.0)) == (MAX_ADDRESSES, True)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 4711), "192.0.2.7"),
        (("::ffff:192.0.2.7", 4711, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4711, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 4711, 0, 2), "fe80::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_an_address(peer: object, address: str) -> None:
    assert source(peer) == address
