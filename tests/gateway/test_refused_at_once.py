"""Requests that no replica will serve are told at once: why, and when to come back."""

from typing import Any

import msgspec
import pytest
from gateway_under_test import Gateway, StartGateway, error_codes
from http_client import CHAT, COMPLETIONS, LAST_CHUNK, MESSAGES, RESPONSES, Connection, body_for

from swell.gateway.unserved import STOPPING_RETRY_SECONDS
from swell.gateway.worker import end
from swell.state.budgets import BudgetLimit, Scope
from swell.state.snapshot import Limits, Unserved
from swell.state.worker import Timeouts
from swell.testing.upstream_script import Script
from swell.units import NANOS_PER_USD

LONG_KEPT = Timeouts(keep_alive_seconds=5000.0, body_seconds=5000.0, header_seconds=5000.0)
CENT = NANOS_PER_USD // 100
HOUR_MS = 3_600_000


def out_of_money(gateway: Gateway, owner: str = "m", cap: int = 500 * CENT, need: int = 20 * CENT) -> Unserved:
    """The hour began ten minutes ago by the worker's clock."""
    start = gateway.service.unix_ms() - 600_000
    limit = BudgetLimit(
        name="infrastructure:x:1", budget_id="infrastructure:x", scope=Scope.INFRASTRUCTURE.value, owner=owner,
        cap_usd_nanos=cap, label="2026-11-29 21:00", start_unix_ms=start, end_unix_ms=start + HOUR_MS,
    )  # fmt: skip
    return Unserved(limit, need)


def tell(gateway: Gateway, unserved: Unserved | None) -> None:
    gateway.model = msgspec.structs.replace(gateway.model, unserved=unserved)
    gateway.publish()


async def start_empty(start_gateway: StartGateway, **options: Any) -> Gateway:
    return await start_gateway(replicas=0, hold_seconds=100.0, timeouts=LONG_KEPT, **options)


async def wait(gateway: Gateway, path: str = CHAT, **fields: Any) -> Connection:
    connection = await gateway.connect()
    before = gateway.route.queued
    connection.send(path, body_for(path, Script(chunks=1), **fields))
    await gateway.until(lambda: gateway.route.queued == before + 1)
    return connection


async def test_where_no_replica_can_be_paid_for_the_answer_comes_at_once(start_gateway: StartGateway) -> None:
    gateway = await start_empty(start_gateway)
    tell(gateway, out_of_money(gateway))
    answer = await gateway.ask(CHAT, body_for(CHAT))
    assert (answer.status, answer.error) == (429, "infrastructure_budget_exhausted")
    assert answer.headers["retry-after"] == "3000"
    message = answer.json["error"]["message"]
    assert "the infrastructure budget of $5.00 for model 'm' in 2026-11-29 21:00" in message
    assert "what is left of" in message
    assert "$0.20 that one takes to start" in message
    assert "begins anew in 50 min" in message
    assert gateway.ledger == {}, "nothing went out and nothing is charged"
    assert gateway.route.tally.arrivals == 1, "what is asked for is known all the same"


async def test_a_budget_that_is_too_small_for_any_replica_is_named_as_such(start_gateway: StartGateway) -> None:
    gateway = await start_empty(start_gateway)
    tell(gateway, out_of_money(gateway, owner="", cap=5 * CENT))
    message = (await gateway.ask(CHAT, body_for(CHAT))).json["error"]["message"]
    assert "the whole of the infrastructure budget of $0.05 for the organisation in 2026-11-29 21:00 is less" in message


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES, MESSAGES])
async def test_who_waits_when_the_money_ends_is_answered(start_gateway: StartGateway, path: str) -> None:
    gateway = await start_empty(start_gateway)
    plain, stream = await wait(gateway, path), await wait(gateway, path, stream=True)
    gateway.pass_time(2.0)
    await stream.until(b"warming up")
    tell(gateway, out_of_money(gateway))
    gateway.service.check()
    answer = await plain.answer()
    assert answer.status == 429
    assert answer.headers["retry-after"] == "3000"
    rest = await stream.until(LAST_CHUNK)
    assert b"2026-11-29 21:00" in rest
    assert (b"event: error" in rest) == (path == MESSAGES)
    assert [outcome[0] for outcome in gateway.outcomes] == ["void", "void"]


async def test_who_waits_for_a_share_is_answered_when_it_is_there(start_gateway: StartGateway) -> None:
    gateway = await start_empty(start_gateway, limits=Limits(concurrent_requests=1))
    first = await wait(gateway)
    second = await gateway.connect()
    second.send(CHAT, body_for(CHAT))
    await gateway.until(lambda: len(gateway.service.exchanges) == 2)
    tell(gateway, out_of_money(gateway))
    gateway.service.check()
    assert (await first.answer()).status == 429
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.service.check()
    assert (await second.answer()).error == "infrastructure_budget_exhausted"


async def test_a_replica_that_is_there_serves_whatever_is_left(gateway: Gateway) -> None:
    tell(gateway, out_of_money(gateway))
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200


async def test_when_the_period_ends_requests_are_held_again_without_word_of_the_server(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_empty(start_gateway)
    tell(gateway, out_of_money(gateway))
    gateway.clock.advance(3001.0)
    waiting = await wait(gateway)
    gateway.service.check()
    assert gateway.route.queued == 1
    tell(gateway, Unserved())
    gateway.service.check()
    assert (await waiting.answer()).status == 503


async def test_who_is_held_while_the_server_stops_is_told_so(start_gateway: StartGateway) -> None:
    gateway = await start_empty(start_gateway)
    plain, stream = await wait(gateway), await wait(gateway, stream=True)
    gateway.pass_time(2.0)
    await stream.until(b"warming up")
    tell(gateway, Unserved())
    gateway.service.check()
    answer = await plain.answer()
    assert (answer.status, answer.error) == (503, "server_stopping")
    assert answer.headers["retry-after"] == str(int(STOPPING_RETRY_SECONDS))
    assert error_codes(await stream.until(LAST_CHUNK)) == ["server_stopping"]


async def test_at_the_end_of_a_drain_nobody_gets_an_empty_answer(start_gateway: StartGateway) -> None:
    gateway = await start_empty(start_gateway)
    waiting = [await wait(gateway), await wait(gateway, stream=True)]
    for exchange in list(gateway.service.exchanges):
        end(exchange)
    for connection in waiting:
        answer = await connection.answer()
        assert (answer.status, answer.error) == (503, "server_stopping")
    assert [outcome[0] for outcome in gateway.outcomes] == ["void", "void"]
