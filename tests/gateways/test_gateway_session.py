"""What a gateway says of its server, where the server comes and goes."""

import asyncio
import logging
from pathlib import Path

import pytest
from test_gateway_listener import EAST, WAIT_SECONDS, Bench, until

from swell.server import gateway_session
from swell.server.gateway_session import GatewaySession
from swell.state.worker import ControlServer


def _control(bench: Bench) -> ControlServer:
    folder = bench.folder
    files = str(folder / "ca" / "ca.pem"), str(folder / "crt"), str(folder / "key")
    return ControlServer((("127.0.0.1", bench.port),), *files)


async def test_a_server_that_dies_is_told_of_in_one_line_of_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gateway_session, "RECONNECT_SECONDS", 0.0)
    attempts = 0
    connected = GatewaySession._connected

    async def counted(self: GatewaySession) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        nonlocal attempts
        attempts += 1
        return await connected(self)

    monkeypatch.setattr(GatewaySession, "_connected", counted)
    async with Bench(tmp_path) as bench:
        session = GatewaySession(
            _control(bench), EAST, living=lambda: ("w1",), told=lambda settings: None, wanted=lambda token: None
        )
        with caplog.at_level(logging.INFO, "swell.server.gateway_session"):
            task = asyncio.ensure_future(session.run())
            async with asyncio.timeout(WAIT_SECONDS):
                await until(lambda: bench.gateways.living() == {"w1"})
                bench.listener.close()
                await until(lambda: attempts > 3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    told = [record for record in caplog.records if record.name == gateway_session.__name__]
    (warning,) = [record for record in told if record.levelno >= logging.WARNING]
    assert warning.getMessage() == "the connection to the server has ended; it is asked again until it answers"
    assert (warning.exc_info, warning.__dict__["reason"]) == (None, "the server closed it")


async def test_a_server_that_closes_before_a_word_is_asked_ever_less_often_and_each_reason_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries, waits, done = 8, [], asyncio.Event()

    async def connected(self: GatewaySession) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*door.sockets[0].getsockname())
        if len(waits) % 2:
            reader.set_exception(ConnectionResetError("it was reset"))
        return reader, writer

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == tries:
            done.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(GatewaySession, "_connected", connected)
    control = ControlServer((("127.0.0.1", 1),), "", "", "")
    session = GatewaySession(
        control, EAST, living=lambda: (), told=lambda settings: None, wanted=lambda token: None
    )  # fmt: skip
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as door:
        monkeypatch.setattr(gateway_session.asyncio, "sleep", wait)
        task = asyncio.create_task(session.run())
        async with asyncio.timeout(WAIT_SECONDS):
            await done.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        monkeypatch.undo()
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]
    reasons = [record.__dict__["reason"] for record in caplog.records if record.name == gateway_session.__name__]
    assert len(reasons) == len(set(reasons))
