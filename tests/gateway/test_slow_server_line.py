"""A worker whose line to its server is slower than what it has to tell."""

import asyncio
from typing import Any, cast

from gateway_under_test import Gateway

from swell.gateway.control_link import ControlLink
from swell.state.messages import FrameBuffer, Load, decode_from_worker


class Wire:
    """A transport that keeps what it was given."""

    def __init__(self) -> None:
        self._frames = FrameBuffer()
        self.messages: list[Any] = []

    def write(self, data: bytes) -> None:
        self.messages += [decode_from_worker(frame) for frame in self._frames.feed(data)]

    def loads(self) -> int:
        return sum(isinstance(message, Load) for message in self.messages)


class NarrowWire(Wire):
    """A transport whose room a single report fills: as asyncio's, it pauses its protocol inside `write`."""

    def __init__(self, link: ControlLink) -> None:
        super().__init__()
        self._link = link
        self._is_full = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self._is_full:
            self._is_full = True
            self._link.pause_writing()

    def drain(self) -> None:
        """All is sent."""
        if self._is_full:
            self._is_full = False
            self._link.resume_writing()


async def test_reports_do_not_queue_and_the_next_one_tells_of_all_that_happened(gateway: Gateway) -> None:
    link, wire = ControlLink(gateway.service), Wire()
    link.connection_made(cast(asyncio.Transport, wire))
    before = wire.loads()
    link.pause_writing()
    for _ in range(100):
        link.send_load()
    assert wire.loads() == before
    link.resume_writing()
    assert wire.loads() == before + 1
    link.send_load()
    assert wire.loads() == before + 2


async def test_a_new_line_has_room(gateway: Gateway) -> None:
    link, wire = ControlLink(gateway.service), Wire()
    link.connection_made(cast(asyncio.Transport, wire))
    link.pause_writing()
    link.connection_lost(None)
    link.connection_made(cast(asyncio.Transport, wire))
    before = wire.loads()
    link.send_load()
    assert wire.loads() == before + 1


async def test_a_line_that_each_report_fills_is_not_filled_for_ever(gateway: Gateway) -> None:
    link = ControlLink(gateway.service)
    wire = NarrowWire(link)
    link.connection_made(cast(asyncio.Transport, wire))
    wire.drain()
    assert wire.loads() == 1  # the one that was left out, since the hello filled the line
    for _ in range(10):
        wire.drain()
    assert wire.loads() == 1
    link.send_load()
    link.send_load()
    assert wire.loads() == 2
    for _ in range(10):
        wire.drain()
    assert wire.loads() == 3


async def test_what_an_earlier_line_left_out_is_not_owed_to_the_next(gateway: Gateway) -> None:
    link, earlier, wire = ControlLink(gateway.service), Wire(), Wire()
    link.connection_made(cast(asyncio.Transport, earlier))
    link.pause_writing()
    link.send_load()
    link.connection_lost(None)
    link.connection_made(cast(asyncio.Transport, wire))
    before = wire.loads()
    link.pause_writing()
    link.resume_writing()
    assert wire.loads() == before
