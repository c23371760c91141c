"""Metrics come from the server, over the control channel; a client never waits for them without end."""

import asyncio
from typing import cast

from gateway_under_test import Gateway

from swell.gateway.control_link import METRICS_SECONDS, ControlLink
from swell.gateway.responses import Refusal
from swell.state.messages import MetricsResponse, encode_message


class Silent(asyncio.Transport):
    """A server that reads and never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)


class Asking:
    """A client that asked for metrics."""

    def __init__(self) -> None:
        self.answers: list[int] = []

    def respond(self, status: int, headers: bytes, content_type: bytes, body: bytes) -> None:
        self.answers.append(status)

    def refuse(self, refusal: Refusal, headers: bytes = b"") -> None:
        self.answers.append(refusal.status)


def linked(gateway: Gateway) -> tuple[ControlLink, Asking]:
    link = ControlLink(gateway.service)
    link.connection_made(cast(asyncio.Transport, Silent()))
    client = Asking()
    assert link.ask_for_metrics(client)
    return link, client


async def test_a_server_that_does_not_answer_is_not_waited_for(gateway: Gateway) -> None:
    link, client = linked(gateway)
    now = gateway.service.now()
    link.check(now + METRICS_SECONDS - 0.01)
    assert client.answers == []
    link.check(now + METRICS_SECONDS + 0.01)
    assert client.answers == [503]
    link.data_received(encode_message(MetricsResponse(1, b"late")))
    assert client.answers == [503]


async def test_a_server_that_is_lost_is_not_waited_for(gateway: Gateway) -> None:
    link, client = linked(gateway)
    link.connection_lost(None)
    assert client.answers == [503]


async def test_an_answer_in_time_is_handed_on(gateway: Gateway) -> None:
    link, client = linked(gateway)
    link.data_received(encode_message(MetricsResponse(1, b"up 1\n")))
    link.check(gateway.service.now() + METRICS_SECONDS + 1)
    assert client.answers == [200]
