"""How often a server is asked again that is away, or does not let somebody in."""

import asyncio
import ssl
from typing import cast

import pytest
from gateway_under_test import Gateway
from test_slow_server_line import Wire

from swell.gateway import control_link
from swell.gateway.control_link import ControlLink
from swell.gateway.reconnection import LONGEST_SECONDS, Reconnection
from swell.state.messages import Heard, encode_message
from swell.state.worker import ControlServer

TRIES = 8


def test_one_that_is_away_is_asked_often() -> None:
    again = Reconnection(0.5)
    for error in (ConnectionRefusedError(), TimeoutError(), OSError("no route")):
        again.failed(error)
        assert again.wait_seconds() == 0.5


@pytest.mark.parametrize("error", [ConnectionResetError(), ssl.SSLEOFError()])
def test_one_that_cuts_the_handshake_short_is_asked_ever_less_often(error: OSError) -> None:
    again = Reconnection(4.0)
    waits = []
    for _ in range(3):
        again.failed(error)
        waits.append(again.wait_seconds())
    assert waits == [4.0, 8.0, LONGEST_SECONDS]


@pytest.mark.parametrize("is_elsewhere", [True, False])
async def test_a_worker_whose_connection_is_closed_before_a_word_asks_ever_less_often_until_there_is_one(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, is_elsewhere: bool
) -> None:
    link = ControlLink(gateway.service)
    link._control = ControlServer((("127.0.0.1", 1),), "", "", "") if is_elsewhere else None
    waits: list[float] = []
    done = asyncio.Event()

    async def connect(loop: asyncio.AbstractEventLoop) -> bool:
        link.connection_made(cast(asyncio.Transport, Wire()))
        if len(waits) == TRIES:
            link.data_received(encode_message(Heard()))
        link.connection_lost(None)
        return True

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > TRIES + 1:
            done.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(link, "_connect", connect)
    monkeypatch.setattr(control_link.asyncio, "sleep", wait)
    task = asyncio.create_task(link.run())
    async with asyncio.timeout(5.0):
        await done.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    monkeypatch.undo()
    doubled = [min(0.2 * 2**number, LONGEST_SECONDS) for number in range(TRIES)]
    assert waits == pytest.approx([*(doubled if is_elsewhere else [0.2] * TRIES), 0.2, 0.2])
