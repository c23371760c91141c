"""Budgets of single keys alert as any other: at the usual thresholds, once per period."""

import pytest
from alert_world import AlertWorld
from msgspec.structs import replace

from swell.server.budget_limits import key_thresholds
from swell.state.budgets import KeyBudget
from swell.state.records import KeyRecord
from swell.state.snapshot import Limits
from swell.testing.fake_alert_sink import FakeAlertSink
from swell.testing.store_suite import key_record
from swell.units import NANOS_PER_USD

TODAY, TOMORROW = "2023-11-14", "2023-11-15"
DAY = 86_400.0


def titles(sink: FakeAlertSink) -> list[str]:
    return [alert.title for alert in sink.delivered]


def a_key(key_id: str, *budgets: KeyBudget) -> KeyRecord:
    return key_record(key_id, expires_at_unix=None, limits=Limits(budgets=budgets))


async def test_a_keys_budget_alerts_at_the_usual_thresholds_once_over_restarts() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,), keys=[a_key("k1", KeyBudget(10 * NANOS_PER_USD, "day"))]) as world:
        for cents in (499, 1, 300, 200):
            assert world.spend(cents, world.limit_of("k1"))
            await world.turn()
        assert titles(pager) == [
            f"Key k1 has spent 50% of its budget of {TODAY}",
            f"Key k1 has spent 80% of its budget of {TODAY}",
            f"Key k1 has used up its budget of {TODAY}",
        ]
        assert pager.delivered[0].text.endswith(
            "Who spends it: swell usage --key k1. To allow more, make a key with a larger budget, or for a while: "
            "swell budget raise key:k1 --by USD --reason WHY"
        )
        await world.begin()
        world.spend(1000, world.limit_of("k1"))
        await world.turn(10.0)
        assert len(pager.delivered) == 3
        world.clock.advance(DAY)
        await world.budgets.refresh()
        world.spend(500, world.limit_of("k1"))
        await world.turn()
        assert (await world.fired())[3:] == [f"{TOMORROW} 50%"]


async def test_a_revoked_key_alerts_of_nothing_and_each_of_many_keys_of_its_own() -> None:
    keys = [a_key(f"k{number}", KeyBudget(10 * NANOS_PER_USD, "day")) for number in range(20)]
    async with AlertWorld(keys=keys) as world:
        for number in (3, 7):
            world.spend(500, world.limit_of(f"k{number}"))
        await world.turn()
        assert sorted(row["subject"] for row in await world.desk.rows(10)) == ["key k3", "key k7"]
        world.keys[5] = replace(keys[5], revoked_at_unix=world.clock.unix())
        await world.budgets.refresh()
        assert all(limit.owner != "k5" for limit in world.budgets.limits)


@pytest.mark.parametrize("period", ["once", "rolling 24h"])
async def test_a_keys_budget_without_an_end_has_nothing_to_forecast(period: str) -> None:
    async with AlertWorld(keys=[a_key("k1", KeyBudget(10 * NANOS_PER_USD, period))]) as world:
        assert [each.text for each in key_thresholds(world.limit_of("k1"))] == ["50%", "80%", "100%"]
        world.spend(800, world.limit_of("k1"))
        await world.turn()
        assert [row["threshold"] for row in await world.desk.rows(10)] == ["80%"]


async def test_a_keys_budget_is_forecast() -> None:
    async with AlertWorld(keys=[a_key("k1", KeyBudget(40 * NANOS_PER_USD, "day"))]) as world:
        for hour in range(1, 17):
            world.charge(200, hours_ago=hour - 0.5, key_id="k1")
        world.spend(1900, world.limit_of("k1"))
        await world.turn()
        (alert,) = await world.desk.rows(10)
        assert alert["title"] == f"Key k1 is forecast to spend 100% of its budget of {TODAY}"


async def test_a_keys_steps_and_its_grace_are_told_as_a_tenants_are() -> None:
    pager = FakeAlertSink("pager")
    budget = KeyBudget(10 * NANOS_PER_USD, "day", grace_usd_nanos=NANOS_PER_USD, at_limit=("shed_batch 85%",))
    async with AlertWorld(sinks=(pager,), keys=[a_key("k1", budget)]) as world:
        for cents in (500, 350, 150, 100):
            assert world.spend(cents, world.limit_of("k1"))
            await world.turn()
        assert sorted(await world.fired()) == [
            f"{TODAY} {text}" for text in ("100%", "50%", "80%", "step block", "step shed_batch")
        ]
        assert any("admitted until its grace of $1.00 is spent too" in alert.text for alert in pager.delivered)
