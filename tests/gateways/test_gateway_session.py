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
