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
