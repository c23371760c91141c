"""Where gateways reach the server, spoken to in its own words and in others', over real TLS."""

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from swell.clock import ManualClock, SystemClock
from swell.metering.ingest import Ingested
from swell.metering.leases import LeaseBook
from swell.security.certificates import ensure_local_certificate, make_client_certificate
from swell.security.control_tls import (
    CONTROL,
    GATEWAY,
    SERVER_NAME,
    USAGE,
    control_client_context,
    control_server_context,
)
from swell.server import control_line, gateway_listener, gateway_session, tls_door
from swell.server.channel import ControlChannel
from swell.server.frames import read_frame
from swell.server.gateway_listener import GatewayListener
from swell.server.gateway_session import GatewaySession
from swell.server.publish import LOG_DELTAS, Picture, Publication
from swell.server.remote_gateways import SURELY_THERE_SECONDS, RemoteGateways
from swell.server.tls_door import MAX_HANDSHAKES
from swell.server.writer import Writer
from swell.state.gateway_messages import (
    Answer,
    ApplyUsage,
    AskPosition,
    FinaliseSpool,
    FromGateway,
    GatewayHello,
    GatewayReport,
    GatewaySettings,
    ReportHeard,
    ToGateway,
    TurnedAway,
    UsageWanted,
    decode_to_gateway,
    encode_gateway_message,
)
from swell.state.messages import LENGTH, Hello, decode_from_server, encode_message
from swell.state.records import SpoolPosition
from swell.state.snapshot import Delta, KeyDigest, KeyEntry, Snapshot
from swell.state.worker import Bounds, ControlServer, Timeouts
from swell.testing.memory_store import MemoryStore

WAIT_SECONDS = 30.0  # so long only where something hangs: no test is about time
SILENCE_SECONDS = 900.0
SETTINGS = GatewaySettings(b"p" * 32, 8080, 1, 0.1, {}, Timeouts(), Bounds())
EAST, COPY = GatewayHello("id-1", "east", "1", "run-1"), GatewayHello("id-1", "copy", "1", "run-2")
WEST = GatewayHello("id-2", "west", "1", "run-3")


class Line:
    """A connection as a gateway makes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, message: FromGateway) -> None:
        self.send_raw(encode_gateway_message(message))

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    async def receive(self) -> ToGateway | None:
        """The next message, None at the end of the connection."""
        try:
            message: ToGateway = decode_to_gateway(await read_frame(self._reader, WAIT_SECONDS))
        except (EOFError, ConnectionError):
            return None
        return message

    async def ask(self, message: FromGateway) -> ToGateway | None:
        self.send(message)
        return await self.receive()

    @property
    def shown(self) -> dict[str, Any]:
        """The server's certificate."""
        shown: dict[str, Any] = self._writer.get_extra_info("peercert")
        return shown

    def pause(self) -> None:
        """Read nothing more."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is one that reads

    def resume(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # it is one that reads

    async def receive_raw(self) -> bytes:
        """The next frame, of whatever protocol."""
        return await read_frame(self._reader, WAIT_SECONDS)

    def close(self) -> None:
        self._writer.transport.abort()


class Bench:
    """A listener over a store in memory."""

    def __init__(self, folder: Path) -> None:
        self.store, self.clock, self.writer = MemoryStore(), ManualClock(), Writer()
        self.ingested: list[Ingested] = []
        self.gateways = self.successor()
        publication = Publication(1, Picture(1, (), (), ()))
        self.channel = ControlChannel(
            publication=publication, leases=LeaseBook(), clock=self.clock, is_known=lambda _: True
        )
        self.listener = GatewayListener(self.gateways, self.channel, SETTINGS)
        self.folder = folder
        self._lines: list[Line] = []
        self.port = 0

    def successor(self) -> RemoteGateways:
        """What a server knows that begins with the store as it is."""
        return RemoteGateways(
            self.store,
            self.writer,
            self.clock,
            max_silence_seconds=SILENCE_SECONDS,
            changed=lambda: None,
            ingested=self._take,
        )

    async def __aenter__(self) -> Self:
        files = ensure_local_certificate(self.folder / "ca", [SERVER_NAME], SystemClock().unix())
        made = make_client_certificate(self.folder / "ca", "east", SystemClock().unix())
        (self.folder / "crt").write_bytes(made.certificate)
        (self.folder / "key").write_bytes(made.private_key)
        assert files.ca is not None
        self.shown = control_server_context(files.ca, files.certificate, files.private_key)
        await self.listener.open("127.0.0.1", 0, lambda: self.shown)
        self.port = self.listener.port
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        self.channel.close()
        for line in self._lines:
            line.close()
        self.writer.close()

    async def _take(self, done: Ingested) -> None:
        self.ingested.append(done)

    def context(self, protocol: str) -> ssl.SSLContext:
        """What a gateway shows."""
        folder = self.folder
        control = ControlServer((), str(folder / "ca" / "ca.pem"), str(folder / "crt"), str(folder / "key"))
        return control_client_context(control, protocol)

    async def line(self, protocol: str, hello: GatewayHello | None = None, address: str = "127.0.0.1") -> Line:
        """A connection from that address that has said `hello`."""
        streams = await asyncio.open_connection(
            "127.0.0.1",
            self.port,
            ssl=self.context(protocol),
            server_hostname=SERVER_NAME,
            local_addr=(address, 0),
        )
        line = Line(*streams)
        self._lines.append(line)
        if hello is not None:
            line.send(hello)
        return line

    async def reporting(self, hello: GatewayHello, *workers: str, address: str = "127.0.0.1") -> Line:
        """A gateway that has said which workers it has."""
        line = await self.line(GATEWAY, hello, address)
        assert await line.receive() == SETTINGS
        assert await line.ask(GatewayReport(workers)) == ReportHeard(workers)
        return line


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path) as bench:
        yield bench


async def test_a_copy_of_a_gateways_state_is_turned_away_and_the_first_goes_on(bench: Bench) -> None:
    east = await bench.reporting(EAST, "w1")
    copy = await bench.line(GATEWAY, COPY)
    refused = await copy.receive()
    assert isinstance(refused, TurnedAway)
    assert "the gateway east runs with a state directory of the same id as copy" in refused.problem
    assert await copy.receive() is None
    usage = await bench.line(USAGE, COPY)
    answer = await usage.ask(FinaliseSpool("w1", damaged=False))
    assert isinstance(answer, Answer)
    assert answer.retry_after_seconds is not None
    assert bench.ingested == [], "a worker that lives was not ended"
    assert await east.ask(GatewayReport(("w1", "w2"))) == ReportHeard(("w1", "w2"))
    assert bench.gateways.living() == {"w1", "w2"}


async def test_a_gateway_that_is_started_again_needs_not_wait(bench: Bench) -> None:
    (await bench.reporting(EAST, "w1")).close()
    await until(lambda: not bench.gateways._gateways["id-1"].connections)
    await bench.reporting(COPY, "w2")
    assert bench.gateways.living() == {"w2"}


async def test_one_whose_connection_is_dead_is_followed_and_then_not_heard_any_more(bench: Bench) -> None:
    stopped = await bench.reporting(EAST, "w1")
    bench.clock.advance(SURELY_THERE_SECONDS + 1)
    await bench.reporting(COPY, "w2")
    stopped.send(GatewayReport(("w1",)))
    again = await bench.line(GATEWAY, EAST)
    assert isinstance(await again.receive(), TurnedAway)
    assert bench.gateways.living() == {"w2"}


async def test_a_renewed_certificate_is_shown_to_who_comes_next_and_who_is_there_goes_on(bench: Bench) -> None:
    east = await bench.reporting(EAST, "w1")
    ca = bench.folder / "ca"
    before = (ca / "server.pem").read_bytes()
    files = ensure_local_certificate(ca, [SERVER_NAME, "renewed.example"], SystemClock().unix())
    bench.shown = control_server_context(ca / "ca.pem", files.certificate, files.private_key)
    assert files.certificate.read_bytes() != before
    west = await bench.reporting(WEST, "w2")
    assert ("DNS", "renewed.example") in west.shown["subjectAltName"]
    assert ("DNS", "renewed.example") not in east.shown["subjectAltName"]
    assert await east.ask(GatewayReport(("w1",))) == ReportHeard(("w1",))


async def test_nobodys_spool_is_entered_or_ended_by_another_gateway_or_for_the_server(bench: Bench) -> None:
    await bench.reporting(EAST, "w1")
    bench.store.apply_usage([], SpoolPosition("here", 1, 8))  # of a worker beside the server
    usage = await bench.line(USAGE, WEST)
    for spool in ("w1", "here"):
        for call in (ApplyUsage([], SpoolPosition(spool, 1, 16)), FinaliseSpool(spool, damaged=False)):
            answer = await usage.ask(call)
            assert isinstance(answer, Answer)
            assert "is not this gateway's; bring its folder back" in answer.problem
    await bench.reporting(WEST, "w1", "here", "w3")
    assert bench.gateways.unfinished() == {"w1", "w3"}
    assert bench.store.spool_position("here") == SpoolPosition("here", 1, 8)
    assert bench.ingested == []


async def test_a_spool_may_be_ended_a_second_time_where_the_answer_was_lost(bench: Bench) -> None:
    report = await bench.reporting(EAST, "w1")
    await report.ask(GatewayReport(()))
    for _ in range(2):
        usage = await bench.line(USAGE, EAST)
        answer = await usage.ask(FinaliseSpool("w1", damaged=False))
        assert isinstance(answer, Answer)
        assert not answer.problem
        usage.close()


@pytest.mark.parametrize("protocol", [CONTROL, GATEWAY, USAGE])
@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, LENGTH.pack(4) + b"junk", LENGTH.pack(0), LENGTH.pack(2**31)],
)
async def test_what_is_no_message_ends_the_connection_alone(bench: Bench, protocol: str, sent: bytes) -> None:
    east = await bench.reporting(EAST, "w1")
    line = await bench.line(protocol)
    line.send_raw(sent)
    assert await line.receive() is None
    assert await east.ask(GatewayReport(("w1",))) == ReportHeard(("w1",))


@pytest.mark.parametrize("protocol", [GATEWAY, USAGE])
async def test_half_a_message_is_waited_for_no_longer_than_promised(
    bench: Bench, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_listener, "HELLO_SECONDS", 0.1)
    line = await bench.line(protocol)
    line.send_raw(encode_gateway_message(EAST)[:-1])
    assert await line.receive() is None


async def test_who_asks_and_reads_no_answer_is_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_listener, "UNREAD_SECONDS", 0.1)
    line = await bench.line(USAGE, EAST)
    line.pause()
    line.send_raw(encode_gateway_message(AskPosition("w")) * 100_000)
    await until(lambda: not bench.listener._streams)
    assert await (await bench.line(USAGE, WEST)).ask(AskPosition("w")) == Answer(), "others are answered"


async def test_a_worker_on_a_slow_line_is_sent_what_it_missed_and_not_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_line, "WRITE_BUFFER_BYTES", 100_000)
    line = await bench.line(CONTROL)
    line.send_raw(encode_message(Hello(0, "w1", 1, 0, 0, ())))
    await until(lambda: "w1" in bench.channel.connected())
    line.pause()
    count = 2 * LOG_DELTAS
    for number in range(count):
        key = KeyEntry(str(number), "t", (KeyDigest(b"d" * 100_000),))
        bench.channel.publish(Picture(1, (), (key,), ()))
    line.resume()
    got = 0
    while True:
        message = decode_from_server(await line.receive_raw())
        got += 1
        if isinstance(message, Snapshot | Delta) and message.sequence == count + 1:
            break
    assert got < count, "most of them waited elsewhere"
    assert [entry.key_id for entry in message.keys] == [str(count - 1)]
    assert "w1" in bench.channel.connected()


async def test_a_connection_that_was_being_made_when_the_server_ended_is_closed(bench: Bench) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = bench.context(CONTROL).wrap_bio(coming, going, server_hostname=SERVER_NAME)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    writer.write(going.read())
    async with asyncio.timeout(WAIT_SECONDS):
        coming.write(await reader.read(65_536))  # so the server has accepted it
        bench.listener.close()
        bench.channel.close()
        await _finish(tls, coming, reader)
        tls.write(encode_message(Hello(0, "w1", 1, 0, 0)))
        writer.write(going.read())
        with suppress(ConnectionError):
            while await reader.read(65_536):
                pass  # what TLS says at its end
    assert bench.channel.connected() == {}
    writer.close()


async def _finish(tls: ssl.SSLObject, coming: ssl.MemoryBIO, reader: asyncio.StreamReader) -> None:
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            coming.write(await reader.read(65_536))
        else:
            return


async def test_an_address_of_the_servers_name_that_says_nothing_is_passed_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()
    folder = bench.folder
    control = ControlServer(
        (("servers.example", 7443),), str(folder / "ca" / "ca.pem"), str(folder / "crt"), str(folder / "key")
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never says a word
        addresses = [silent.getsockname(), ("127.0.0.1", bench.port)]

        async def resolved(name: str, port: int, **_: object) -> list[tuple[object, ...]]:
            assert (name, port) == ("servers.example", 7443)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolved)
        monkeypatch.setattr(gateway_session, "CONNECT_SECONDS", 0.2)
        session = GatewaySession(
            control, EAST, living=lambda: ("w1",), told=lambda settings: told.set(), wanted=lambda token: None
        )
        task = asyncio.ensure_future(session.run())
        async with asyncio.timeout(WAIT_SECONDS):
            await told.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert told.is_set()


async def test_who_says_nothing_takes_no_more_than_a_few_descriptors_and_nobodys_place(bench: Bench) -> None:
    east = await bench.reporting(EAST, "w1")
    before = descriptors()
    silent = [await asyncio.open_connection("127.0.0.1", bench.port) for _ in range(3 * MAX_HANDSHAKES)]
    try:
        assert descriptors() <= before + len(silent) + MAX_HANDSHAKES + 1
        await bench.reporting(WEST, "w2", address="127.0.0.2")
        assert await east.ask(GatewayReport(("w1",))) == ReportHeard(("w1",))
        assert bench.listener.refused > 0
    finally:
        for _, writer in silent:
            writer.transport.abort()


async def test_three_hundred_gateways_that_come_at_once_from_one_address_are_all_heard(bench: Bench) -> None:
    hellos = [GatewayHello(f"id-{number}", f"gateway {number}", "1", "run") for number in range(300)]
    await asyncio.gather(*(bench.reporting(hello, f"w-{hello.gateway}") for hello in hellos))
    assert len(bench.gateways.living()) == len(hellos)
    assert len(bench.gateways.rows({}, {})) == len(hellos)
    assert bench.listener.refused == 0


async def test_a_server_that_is_behind_cuts_no_gateway_for_being_slow(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, or with many at once, a turn of its loop takes as long as a silent one is left at most."""
    loop, turns = asyncio.get_running_loop(), 0
    real = loop.time

    def turn() -> None:
        nonlocal turns, ticking
        turns += 1
        ticking = loop.call_soon(turn)

    ticking = loop.call_soon(turn)
    monkeypatch.setattr(loop, "time", lambda: real() + turns * tls_door.SLOW_SECONDS)
    monkeypatch.setattr(tls_door, "MAX_HANDSHAKES", 2)
    for module, name in (
        (tls_door, "HANDSHAKE_SECONDS"), (gateway_listener, "HELLO_SECONDS"), (sys.modules[__name__], "WAIT_SECONDS"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, 3600.0)
    hellos = [GatewayHello(f"id-{number}", f"gateway {number}", "1", "run") for number in range(12)]
    await asyncio.gather(*(bench.reporting(hello, f"w-{hello.gateway}") for hello in hellos))
    ticking.cancel()
    assert len(bench.gateways.living()) == len(hellos)


async def test_of_gateways_that_are_gone_for_good_nothing_is_kept(bench: Bench) -> None:
    await bench.reporting(EAST, "w1")
    ended = await bench.reporting(WEST, "w2")
    await ended.ask(GatewayReport(()))
    usage = await bench.line(USAGE, WEST)
    assert isinstance(await usage.ask(FinaliseSpool("w2", damaged=False)), Answer)
    ended.close()
    await until(lambda: not bench.gateways._gateways["id-2"].connections)
    await bench.gateways.look()
    assert set(bench.gateways._gateways) == {"id-1", "id-2"}, "it may come back"
    bench.clock.advance(SILENCE_SECONDS + 1)
    await bench.gateways.look()
    assert set(bench.gateways._gateways) == {"id-1"}, "whose spool the ledger does not have in full"
    assert bench.gateways.living() == set()


async def test_who_was_given_up_is_not_expected_by_the_next_server_until_it_speaks(bench: Bench) -> None:
    east = await bench.reporting(EAST, "w1")
    bench.clock.advance(SILENCE_SECONDS + 1)
    await bench.reporting(WEST, "w2")
    await bench.gateways.look()
    following = bench.successor()
    await following.begin()
    assert (following.living(), following.unfinished()) == ({"w2"}, {"w1", "w2"})
    assert await east.ask(GatewayReport(("w1",))) == ReportHeard(("w1",))
    following = bench.successor()
    await following.begin()
    assert following.living() == {"w1", "w2"}


async def test_asking_for_usage_that_is_given_up_leaves_nothing(bench: Bench) -> None:
    east = await bench.reporting(EAST, "w1")
    asked = asyncio.ensure_future(bench.listener.collect())
    assert isinstance(await east.receive(), UsageWanted)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert not bench.listener._waiting


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - turns of the loop are cheap
            await asyncio.sleep(0)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
