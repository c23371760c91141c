"""Rates that change at a moment: which a request is charged is decided when it is admitted."""

import pytest
from gateway_under_test import StartGateway
from http_client import CHAT, body_for
from msgspec.structs import replace

from swell.state.snapshot import Limits, NextRates
from swell.testing.upstream_script import Script
from swell.units import charge_usd_nanos

OLD, NEW = (10**9, 2 * 10**9), (3 * 10**9, 4 * 10**9)


@pytest.mark.parametrize("limits", [Limits(), Limits(requests_per_minute=100)])
async def test_a_request_is_charged_the_rates_of_its_admission_however_long_it_waits(
    start_gateway: StartGateway, limits: Limits
) -> None:
    """It comes before the change, waits for a replica, and goes out after it."""
    gateway = await start_gateway(max_in_flight=1, prompt_rate=OLD[0], completion_rate=OLD[1], limits=limits)
    change_ms = gateway.service.unix_ms() + 1000
    gateway.model = replace(gateway.model, next_rates=NextRates(change_ms, *NEW))
    gateway.publish()
    running, waiting, late = [await gateway.connect() for _ in range(3)]
    running.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    gateway.clock.advance(0.75)
    waiting.send(CHAT, body_for(CHAT, Script(chunks=2)))
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.clock.advance(0.25)
    late.send(CHAT, body_for(CHAT, Script(chunks=3)))
    await gateway.until(lambda: gateway.route.queued == 2)
    gateway.clock.advance(0.5)
    gateway.upstream.release()
    for connection in (running, waiting, late):
        assert (await connection.answer()).status == 200
    await gateway.settled(3)
    entries = [(entry.reserved, entry.settled) for entry in gateway.ledger.values()]
    assert [(reserved.prompt_rate, reserved.completion_rate) for reserved, _ in entries] == [OLD, OLD, NEW]
    assert [reserved.at_unix_ms - change_ms for reserved, _ in entries] == [-1000, -250, 0]
    for (_, settled), rates in zip(entries, (OLD, OLD, NEW), strict=True):
        assert settled is not None
        assert settled.charge_usd_nanos == charge_usd_nanos(settled.prompt_tokens, settled.completion_tokens, *rates)
