"""A model without replicas: requests are held, streaming clients hear of it, the server at once, and usage is exact."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_under_test import Gateway, StartGateway, content_events, error_codes
from http_client import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Connection, body_for

from swell.gateway.held import COMMENT, COMMENT_SECONDS
from swell.gateway.responses import chunk
from swell.state.messages import Load
from swell.state.worker import Timeouts
from swell.testing.upstream_script import Script

LONG_KEPT = Timeouts(keep_alive_seconds=5000.0, body_seconds=5000.0, header_seconds=5000.0)
HOLD_SECONDS = 100.0
QUEUE_SECONDS = {"interactive": 30.0, "standard": 60.0, "batch": 600.0}


class Link:
    """The worker's link to its server, as far as holding uses it."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.loads: list[Load] = []

    def send_load(self) -> None:
        self.loads.append(self._gateway.service.load())

    def is_outdated(self, now: float) -> bool:
        return False

    def check(self, now: float) -> None:
        """Nobody waits for metrics."""


class Zero:
    """A gateway whose model has no replica until `arrive`."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._upstreams, gateway.upstreams = gateway.upstreams, []
        self.link = Link(gateway)
        gateway.service.link = self.link  # type: ignore[assignment]
        gateway.publish()

    def arrive(self) -> None:
        self.gateway.upstreams = self._upstreams
        self.gateway.publish()

    async def ask(self, path: str = CHAT, script: Script | None = None, **fields: Any) -> Connection:
        connection = await self.gateway.connect()
        before = self.gateway.route.queued
        connection.send(path, body_for(path, script or Script(chunks=3), **fields))
        await self.gateway.until(lambda: self.gateway.route.queued == before + 1)
        return connection


@pytest.fixture
async def zero(start_gateway: StartGateway) -> AsyncIterator[Zero]:
    gateway = await start_gateway(hold_seconds=HOLD_SECONDS, timeouts=LONG_KEPT, queue_seconds=QUEUE_SECONDS)
    world = Zero(gateway)
    yield world
    world.arrive()


def pass_time(zero: Zero, seconds: float) -> None:
    """In turns of upkeep."""
    zero.gateway.service.check()
    for _ in range(int(seconds * 4)):
        zero.gateway.clock.advance(0.25)
        zero.gateway.service.check()


async def test_the_server_is_told_at_once_and_once(zero: Zero) -> None:
    first = await zero.ask()
    assert [(m.name, m.queued, m.arrivals) for load in zero.link.loads for m in load.models] == [("m", 1, 1)]
    second = await zero.ask()
    assert len(zero.link.loads) == 1
    zero.arrive()
    for connection in (first, second):
        assert (await connection.answer()).status == 200


async def test_it_is_told_again_after_the_replicas_went(zero: Zero) -> None:
    first = await zero.ask()
    zero.arrive()
    assert (await first.answer()).status == 200
    zero.gateway.upstreams = []
    zero.gateway.publish()
    second = await zero.ask()
    assert len(zero.link.loads) == 2
    zero.arrive()
    assert (await second.answer()).status == 200


async def test_a_held_request_gets_the_time_of_a_start_before_its_own(zero: Zero) -> None:
    waiting = await zero.ask()
    pass_time(zero, HOLD_SECONDS + QUEUE_SECONDS["interactive"] - 1)
    assert zero.gateway.route.queued == 1
    pass_time(zero, 2)
    answer = await waiting.answer()
    assert (answer.status, answer.error) == (503, "queue_timeout")
    assert zero.gateway.outcomes == [("void", 0, 0, 503)]


async def test_one_that_waits_for_room_gets_its_own_time_alone(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(
        hold_seconds=HOLD_SECONDS, max_in_flight=1, timeouts=LONG_KEPT, queue_seconds=QUEUE_SECONDS
    )
    first = await gateway.connect()
    first.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    waiting = await gateway.connect()
    waiting.send(CHAT, body_for(CHAT, Script(chunks=1)))
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.pass_time(QUEUE_SECONDS["interactive"] + 1)
    assert (await waiting.answer()).error == "queue_timeout"
    gateway.upstream.release()
    assert (await first.answer()).status == 200


async def test_without_a_stream_nothing_is_said_until_the_answer(zero: Zero) -> None:
    waiting = await zero.ask()
    pass_time(zero, 20)
    zero.arrive()
    answer = await waiting.answer()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert zero.gateway.outcomes == [("settled", 11, 3, 200)]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
async def test_a_stream_begins_with_comments_and_goes_on_as_ever(zero: Zero, path: str) -> None:
    waiting = await zero.ask(path, stream=True)
    pass_time(zero, 1.5 + 2 * COMMENT_SECONDS)
    head = await waiting.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"content-type: text/event-stream" in head
    assert b"x-request-id: " in head
    assert await waiting.until(chunk(COMMENT) * 3) == chunk(COMMENT) * 3
    zero.arrive()
    rest = await waiting._chunks()
    assert b"HTTP/1.1" not in rest
    assert rest.count(b" token") >= 3
    assert [outcome[0] for outcome in zero.gateway.outcomes] == ["settled"]
    assert zero.gateway.outcomes[0][2] == 3
    again = await waiting.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert again.status == 200, "the connection goes on"


async def test_a_replica_that_is_there_at_once_needs_no_comment(zero: Zero) -> None:
    waiting = await zero.ask(stream=True)
    pass_time(zero, 0.5)
    zero.arrive()
    answer = await waiting.answer()
    assert content_events(answer.body) == 3
    assert b"warming" not in answer.body


async def test_an_old_client_gets_its_comments_unframed(zero: Zero) -> None:
    connection = await zero.gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=2), stream=True), version="1.0")
    await zero.gateway.until(lambda: zero.gateway.route.queued == 1)
    pass_time(zero, 2)
    zero.arrive()
    answer = await connection.answer()
    assert answer.raw.startswith(COMMENT)
    assert content_events(answer.raw) == 2


async def test_after_the_head_a_timeout_is_an_event(zero: Zero) -> None:
    waiting = await zero.ask(stream=True)
    pass_time(zero, HOLD_SECONDS + QUEUE_SECONDS["interactive"] + 1)
    answer = await waiting.answer()
    assert answer.status == 200
    assert error_codes(answer.body) == ["queue_timeout"]
    assert answer.body.startswith(COMMENT)
    assert zero.gateway.outcomes == [("void", 0, 0, 503)]


async def test_after_the_head_an_anthropic_client_gets_its_own_error_event(zero: Zero) -> None:
    waiting = await zero.ask(MESSAGES, stream=True, max_tokens=5)
    pass_time(zero, HOLD_SECONDS + QUEUE_SECONDS["interactive"] + 1)
    answer = await waiting.answer()
    assert b'event: error\ndata: {"type":"error"' in answer.body


@pytest.mark.parametrize(("status", "settled"), [(400, "settled"), (500, "settled")])
async def test_after_the_head_an_engines_error_is_an_event(zero: Zero, status: int, settled: str) -> None:
    waiting = await zero.ask(script=Script(status=status), stream=True)
    pass_time(zero, 2)
    zero.arrive()
    answer = await waiting.answer()
    assert answer.status == 200
    assert b'data: {"error"' in answer.body
    assert [(outcome[0], outcome[3]) for outcome in zero.gateway.outcomes] == [(settled, status)]


async def test_after_the_head_a_lost_replica_is_an_event_and_is_counted(zero: Zero) -> None:
    waiting = await zero.ask(script=Script(chunks=5, die_after=2), stream=True)
    pass_time(zero, 2)
    zero.arrive()
    answer = await waiting.answer()
    assert error_codes(answer.body) == ["replica_lost"]
    [(outcome, _, delivered, http_status)] = zero.gateway.outcomes
    assert (outcome, delivered, http_status) == ("estimated", 2, 502)


@pytest.mark.parametrize("seconds", [0.5, 3.0])
async def test_a_client_that_leaves_while_it_is_held_costs_nothing(zero: Zero, seconds: float) -> None:
    waiting = await zero.ask(stream=True)
    pass_time(zero, seconds)
    waiting.writer.transport.abort()
    await zero.gateway.settled()
    assert zero.gateway.outcomes == [("void", 0, 0, 499)]
    assert zero.gateway.route.queued == 0


async def test_models_that_do_not_scale_from_zero_hold_as_ever(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(timeouts=LONG_KEPT, queue_seconds=QUEUE_SECONDS)
    zero = Zero(gateway)
    waiting = await zero.ask(stream=True)
    assert zero.link.loads == []
    pass_time(zero, QUEUE_SECONDS["interactive"] + 1)
    assert (await waiting.answer()).status == 503
    zero.arrive()
