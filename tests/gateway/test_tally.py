"""What a worker reports of a model: exact sums, judged against the objectives, for open requests too."""

from typing import Any

import pytest
from gateway_under_test import Gateway, StartGateway
from http_client import CHAT, body_for

from swell.gateway.tally import Tally
from swell.state.messages import ModelLoad
from swell.state.snapshot import ModelEntry
from swell.testing.upstream_script import Script

MODEL = ModelEntry("m", "m", (), ttft_ms=1000.0, ttft_ms_per_1k_prompt_tokens=500.0, itl_ms=50.0)


def report(tally: Tally) -> ModelLoad:
    return tally.report("m", decoded=0, open_seconds=0.0, in_flight=0, queued=0, oldest_seconds=0.0)


def model_load(gateway: Gateway) -> ModelLoad:
    [found] = gateway.service.load().models
    return found


@pytest.mark.parametrize(
    ("status", "n", "o", "seconds", "first", "judged", "attained"),
    [
        (200, 100, 11, 1.5, 1.0, 1, 1),  # TTFT 1000 ms of 1050, gaps of 50 ms
        (200, 100, 11, 1.5, 1.1, 1, 0),  # the first token was late
        (200, 2000, 11, 2.3, 2.0, 1, 1),  # a long prompt has an allowance
        (200, 100, 11, 2.0, 1.0, 1, 0),  # gaps of 100 ms
        (200, 100, 1, 1.0, 1.0, 1, 1),  # one token has no gap
        (200, 100, 0, 0.9, -1.0, 1, 1),  # nothing was generated, such as embeddings
        (200, 100, 20, 1.2, -1.0, 1, 1),  # no stream: 20 tokens in a second, after 0.2 s
        (200, 100, 20, 1.4, -1.0, 1, 0),  # 60 ms each
        (502, 100, 0, 0.1, -1.0, 1, 0),
        (429, 100, 0, 5.1, -1.0, 1, 0),  # refused because it waited too long
        (400, 0, 0, 0.1, -1.0, 0, 0),  # the client's own fault
        (499, 100, 0, 0.5, -1.0, 0, 0),  # left before anything was late
        (499, 100, 0, 1.5, -1.0, 1, 0),  # left after it was
        (499, 100, 3, 9.0, 0.5, 0, 0),
    ],
)
def test_a_request_is_judged_by_its_end(
    status: int, n: int, o: int, seconds: float, first: float, judged: int, attained: int
) -> None:
    tally = Tally()
    tally.ends(MODEL, status, n, o, seconds, first, 0.2)
    seen = report(tally)
    assert (seen.judged, seen.attained) == (judged, attained)
    assert seen.completed == (status == 200)
    assert seen.open_seconds == seconds
    assert seen.decoded_tokens == o


def test_sums_are_over_the_answered_alone() -> None:
    tally = Tally()
    tally.ends(MODEL, 200, 10, 5, 1.0, 0.6, 0.1)
    tally.ends(MODEL, 200, 20, 1, 2.0, 0.5, 0.1)
    tally.ends(MODEL, 499, 1000, 7, 2.0, 0.5, 0.1)
    seen = report(tally)
    assert (seen.completed, seen.n_sum, seen.n2_sum, seen.o_sum, seen.o2_sum, seen.no_sum) == (2, 30, 500, 6, 26, 70)
    assert seen.ttft_ms_sum == pytest.approx(1100.0)
    assert seen.itl_ms_sum == pytest.approx(100.0)


async def test_requests_are_counted_when_they_arrive_and_when_they_end(gateway: Gateway) -> None:
    assert gateway.service.load().models == ()
    answer = await gateway.ask(CHAT, body_for(CHAT, Script(chunks=4)))
    assert answer.status == 200
    seen = model_load(gateway)
    assert (seen.arrivals, seen.completed, seen.n_sum, seen.o_sum, seen.in_flight) == (1, 1, 11, 4, 0)
    assert seen.judged == 1


async def test_open_requests_count_as_they_are(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1)
    first = await gateway.connect()
    first.send(CHAT, body_for(CHAT, Script(chunks=6, hang_after=3), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    second = await gateway.connect()
    second.send(CHAT, body_for(CHAT, Script(chunks=2)))
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.clock.advance(2.0)
    await gateway.until(lambda: model_load(gateway).decoded_tokens == 3)
    seen = model_load(gateway)
    assert (seen.arrivals, seen.in_flight, seen.queued, seen.completed) == (2, 1, 1, 0)
    assert seen.oldest_queued_seconds == pytest.approx(2.0)
    assert seen.open_seconds == pytest.approx(4.0)
    gateway.upstream.release()
    for connection in (first, second):
        assert (await connection.answer()).status == 200
    seen = model_load(gateway)
    assert (seen.completed, seen.decoded_tokens, seen.queued, seen.oldest_queued_seconds) == (2, 8, 0, 0.0)


@pytest.mark.parametrize(
    "options", [{"queue_seconds": {"interactive": 3.0}}, {"queue_seconds": {"interactive": 3.0}, "hold_seconds": 1.0}]
)
async def test_what_is_refused_for_want_of_room_was_not_served_well(
    start_gateway: StartGateway, options: dict[str, Any]
) -> None:
    gateway = await start_gateway(replicas=0, **options)
    waiting = await gateway.connect()
    waiting.send(CHAT, body_for(CHAT))
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.pass_time(5.0)
    assert (await waiting.answer()).status == 503
    seen = model_load(gateway)
    assert (seen.arrivals, seen.judged, seen.attained, seen.completed) == (1, 1, 0, 0)


async def test_a_replica_that_is_let_go_is_reported_until_its_last_request_ends(gateway: Gateway) -> None:
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=6, hang_after=3), stream=True))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    upstreams, gateway.upstreams = gateway.upstreams, []
    gateway.publish()
    assert [(r.replica_id, r.in_flight) for r in gateway.service.load().replicas] == [("m-0", 1)]
    for upstream in upstreams:
        upstream.release()
    assert (await connection.answer()).status == 200
    assert gateway.service.load().replicas == ()
    gateway.upstreams = upstreams
    gateway.publish()


async def test_batch_is_reported_as_a_part_of_all(gateway: Gateway) -> None:
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=4)), x_swell_priority="batch")
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=6)), x_swell_priority="standard")
    seen = model_load(gateway)
    assert seen.batch is not None
    assert (seen.arrivals, seen.completed, seen.o_sum, seen.judged) == (2, 2, 10, 2)
    assert (seen.batch.arrivals, seen.batch.completed, seen.batch.o_sum, seen.batch.judged) == (1, 1, 4, 1)
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    assert (model_load(gateway).arrivals, model_load(gateway).batch) == (3, seen.batch)
