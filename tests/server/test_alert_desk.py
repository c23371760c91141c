"""Alerts fire once per threshold and period, whatever restarts, clocks, stores and sinks do."""

from itertools import pairwise

import pytest
from alert_world import AlertWorld

from swell.errors import AtCapacity, RetryLater, SwellError, UserError
from swell.ports.alert_sink import SinkRefusedError
from swell.server import alert_deliveries
from swell.server.alert_deliveries import MAX_AT_ONCE
from swell.server.alerts import FORECAST_SECONDS, FORGET_SECONDS
from swell.server.budgets import KEPT_SECONDS
from swell.state.budgets import BudgetLimit
from swell.testing.alert_suite import alert_record
from swell.testing.fake_alert_sink import FakeAlertSink
from swell.testing.memory_store import MemoryStore

DAY = 86_400.0
TODAY, TOMORROW = "2023-11-14", "2023-11-15"


def titles(sink: FakeAlertSink) -> list[str]:
    return [alert.title for alert in sink.delivered]


def busy() -> SwellError:
    return RetryLater("alert sink pager is busy", retry_after_seconds=5.0)


async def test_each_threshold_fires_when_it_is_reached_and_goes_to_every_sink() -> None:
    pager, mail = FakeAlertSink("pager"), FakeAlertSink("mail")
    async with AlertWorld(sinks=(pager, mail)) as world:
        reached = []
        for cents in (499, 1, 299, 1, 199, 1):
            assert world.spend(cents)
            await world.turn()
            await world.turn()
            reached.append(len(pager.delivered))
        assert reached == [0, 1, 1, 2, 2, 3]
        assert (
            titles(pager)
            == titles(mail)
            == [
                f"Tenant search has spent 50% of its budget of {TODAY}",
                f"Tenant search has spent 80% of its budget of {TODAY}",
                f"Tenant search has used up its budget of {TODAY}",
            ]
        )
        assert [alert.severity for alert in pager.delivered] == ["info", "warning", "critical"]
        assert pager.delivered[1].text == (
            "$8.00 of $10.00 is spent (80%). Requests are refused once it is used up.\n"
            "Who spends it: swell usage --tenant search. To allow more, raise the budget in swell.yaml, or for a "
            "while: swell budget raise tenant:search --by USD --reason WHY"
        )
        assert pager.delivered[2].values["spent_usd_nanos"] == 10_000_000_000
        assert {alert.alert_id for alert in pager.delivered} == {alert.alert_id for alert in mail.delivered}
        assert await world.states() == ["mail delivered", "pager delivered"] * 3


async def test_of_thresholds_that_are_passed_together_the_highest_is_told_and_names_the_others() -> None:
    async with AlertWorld() as world:
        world.spend(850)
        await world.turn()
        assert await world.fired() == [f"{TODAY} 80%"]
        [alert] = await world.desk.rows(10)
        assert alert["text"].startswith("$8.50 of $10.00 is spent (85%). It passed 50% and 80% since one last looked.")
        assert alert["values"]["passed"] == "50%"
        for _ in range(2):
            await world.begin()  # nothing of what was passed is told later, by no restarted server either
            world.spend(850)
            await world.turn()
        assert await world.fired() == [f"{TODAY} 80%"]
        world.spend(150)
        await world.turn()
        last, _ = await world.desk.rows(10)
        assert last["threshold"] == "100%"
        assert "passed" not in last["text"]


async def test_what_was_told_already_is_not_said_to_be_passed_again() -> None:
    async with AlertWorld() as world:
        for cents in (500, 500):
            world.spend(cents)
            await world.turn()
        assert await world.fired() == [f"{TODAY} 50%", f"{TODAY} 100%"]
        last, _ = await world.desk.rows(10)
        assert "It passed 80% and 100% since one last looked." in last["text"]


async def test_without_a_sink_alerts_are_told_and_listed() -> None:
    async with AlertWorld() as world:
        world.spend(500)
        await world.turn()
        assert world.said == [f"Alert (info): Tenant search has spent 50% of its budget of {TODAY} (see: swell alerts)"]
        assert await world.states() == []
        assert await world.fired() == [f"{TODAY} 50%"]


async def test_a_restarted_server_fires_nothing_twice_and_delivers_what_waits() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        pager.fail_next.append(busy())
        world.spend(500)
        await world.turn()
        assert (await world.states(), len(pager.delivered)) == (["pager waiting"], 0)
        for _ in range(3):
            await world.begin()
            world.spend(500)  # the new server's book begins without what the old one knew
            await world.turn(10.0)
        assert await world.fired() == [f"{TODAY} 50%"]
        assert (await world.states(), len(pager.delivered)) == (["pager delivered"], 1)


async def test_a_new_period_fires_anew_and_a_clock_set_back_into_the_old_one_does_not() -> None:
    async with AlertWorld() as world:
        world.spend(500)
        await world.turn()
        for jump in (DAY, -DAY, DAY):
            world.clock.jump_unix(jump)
            await world.budgets.refresh()
            world.spend(500 if jump > 0 else 0)
            await world.turn()
        assert await world.fired() == [f"{TODAY} 50%", f"{TOMORROW} 50%", f"{TOMORROW} 100%"]


async def test_what_is_charged_after_a_period_has_ended_still_counts_for_it() -> None:
    async with AlertWorld() as world:
        last = world.limit
        world.spend(100)
        world.clock.advance(14 * 3600.0)  # midnight
        await world.budgets.refresh()
        assert world.limit.label == TOMORROW
        assert world.spend(400, last)
        await world.turn()
        assert await world.fired() == [f"{TODAY} 50%"]


async def test_refusals_say_that_a_budget_is_used_up_before_the_last_nano_dollar() -> None:
    async with AlertWorld() as world:
        world.spend(850)
        assert not world.spend(600)  # one large request, while there is a lot left for ordinary ones
        await world.turn()
        assert await world.fired() == [f"{TODAY} 80%"]
        world.spend(140)
        assert not world.spend(20)
        await world.turn()
        (last, *_) = await world.desk.rows(1)
        assert (last["threshold"], last["severity"]) == ("100%", "critical")
        assert last["text"].startswith(
            "$9.90 of $10.00 is spent (99%). What is left is less than the next requests may cost. "
            f"Requests are refused until the period ends at {TOMORROW} 00:00 UTC."
        )


async def test_a_large_request_that_was_refused_early_says_nothing_when_most_is_spent_later() -> None:
    async with AlertWorld() as world:
        world.spend(100)
        assert not world.spend(950)  # with nine tenths of it left
        world.spend(810)  # whatever was asked for since was admitted
        await world.turn()
        assert await world.fired() == [f"{TODAY} 80%"]
        assert not world.spend(100)  # and this is the one that says it
        await world.turn()
        assert await world.fired() == [f"{TODAY} 80%", f"{TODAY} 100%"]


async def test_the_alert_at_the_whole_amount_says_that_the_grace_is_being_spent() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, grace: 5%, alerts: [100%, 105%]}") as world:
        world.spend(1010)
        await world.turn()
        (alert,) = await world.desk.rows(1)
        assert alert["title"] == f"Tenant search has used up its budget of {TODAY} and spends its grace"
        assert alert["text"].startswith(
            "$10.10 of $10.00 is spent (101%). Requests are admitted until its grace of $0.50 is spent too, and refused"
        )
        assert not world.spend(41)
        assert world.spend(40)
        await world.turn()
        last, before, _ = await world.desk.rows(3)
        assert (before["threshold"], last["threshold"], last["severity"]) == ("105%", "step block", "critical")
        assert last["title"] == f"Tenant search has used up its budget and its grace of {TODAY}"
        assert "Requests are refused until the period ends" in before["text"]
        assert "Requests are refused until the period ends" in last["text"]


async def test_what_is_refused_in_the_grace_is_told_as_used_up_at_once() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, grace_usd: 0.50, alerts: [100%]}") as world:
        world.spend(990)
        assert not world.spend(100)
        await world.turn()
        _, alert = await world.desk.rows(2)
        assert alert["title"] == f"Tenant search has used up its budget of {TODAY}"
        assert "What is left is less than the next requests may cost." in alert["text"]


async def test_each_step_that_begins_is_told_once_in_a_period_over_restarts() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, alerts: [100%], at_limit: [shed_batch, throttle]}") as world:
        for cents in (890, 10, 80, 19):
            world.spend(cents)
            await world.turn()
        assert await world.fired() == [f"{TODAY} step shed_batch", f"{TODAY} step throttle"]
        throttle, shed = await world.desk.rows(2)
        assert shed["title"] == (
            f"Tenant search has spent 90% of its budget of {TODAY}: requests of priority batch are refused"
        )
        assert shed["text"].startswith(
            "$9.00 of $10.00 is spent (90%). Requests of priority batch are refused until the period ends at "
            f"{TOMORROW} 00:00 UTC."
        )
        assert (throttle["severity"], throttle["values"]["step"]) == ("warning", "throttle")
        await world.begin()
        world.spend(985)
        await world.turn()
        assert len(await world.desk.rows(9)) == 2
        world.spend(15)
        await world.turn()
        assert (await world.fired())[2:] == [f"{TODAY} 100%"]  # which tells what `block` would


async def test_a_budget_without_alerts_tells_of_no_step() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, alerts: [], at_limit: throttle}") as world:
        world.spend(1000)
        await world.turn()
        assert await world.desk.rows(9) == []
        assert [curb.steps for curb in world.budgets.stages.curbs] == [("throttle",)]


async def test_a_rolling_budget_alerts_once_in_the_length_of_its_window_over_restarts() -> None:
    async with AlertWorld(budget="{usd: 10, period: rolling 24h, alerts: [50%, 100%]}") as world:
        at: list[float] = []
        begin = world.clock.unix()
        for hour in range(60):  # six dollars in any 24 hours, and a server that is restarted every hour
            world.charge(25, hours_ago=0.0)
            await world.begin()
            await world.turn(1800.0)
            await world.budgets.refresh()
            await world.turn(1800.0)
            alerts = await world.desk.rows(100)
            at += [begin + hour * 3600.0] * (len(alerts) - len(at))
        hours = [round((moment - begin) / 3600) for moment in at]
        assert len(hours) == 2
        assert all(later - earlier >= 24 for earlier, later in pairwise(hours))
        assert {alert["threshold"] for alert in alerts} == {"50%"}
        assert alerts[0]["title"] == "Tenant search has spent 50% of its budget (rolling 24h)"
        assert "ends_unix" not in alerts[0]["values"]


async def test_a_rolling_budget_that_is_used_up_says_that_spend_leaves_the_window() -> None:
    async with AlertWorld(budget="{usd: 10, period: rolling 2d, alerts: [100%]}") as world:
        world.spend(1000)
        await world.turn()
        (alert,) = await world.desk.rows(100)
        assert alert["title"] == "Tenant search has used up its budget (rolling 2d)"
        assert "Requests are refused until enough of what was spent has left the window." in alert["text"]


async def test_a_budget_without_alerts_is_silent() -> None:
    async with AlertWorld(budget="{usd: 10, alerts: []}") as world:
        world.spend(1000)
        await world.turn()
        assert await world.desk.rows(10) == []


async def test_a_sink_that_fails_is_tried_again_and_others_do_not_wait_for_it() -> None:
    pager, mail = FakeAlertSink("pager"), FakeAlertSink("mail")
    async with AlertWorld(sinks=(pager, mail)) as world:
        pager.fail_next += [busy(), busy()]
        world.spend(500)
        await world.turn()
        assert await world.states() == ["mail delivered", "pager waiting"]
        (row,) = await world.desk.rows(1)
        assert (row["deliveries"][1]["attempts"], row["deliveries"][1]["problem"]) == (1, "alert sink pager is busy")
        await world.turn(1.0)
        assert len(pager.fail_next) == 1, "not before its time"
        await world.turn(10.0)
        await world.turn(10.0)
        assert await world.states() == ["mail delivered", "pager delivered"]
        assert (len(pager.delivered), len(mail.delivered)) == (1, 1)


async def test_a_clock_that_is_set_back_does_not_hold_an_alert_up() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        pager.fail_next.append(busy())
        world.spend(500)
        await world.turn()
        world.clock.jump_unix(-30 * DAY)
        await world.turn(10.0)
        assert len(pager.delivered) == 1


async def test_what_a_sink_refuses_is_given_up_and_told() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        pager.fail_next.append(SinkRefusedError("alert sink pager: there is no such hook"))
        world.spend(500)
        await world.turn()
        await world.turn(60.0)
        assert await world.states() == ["pager given up"]
        reason = "it was refused: alert sink pager: there is no such hook"
        assert world.said[1:] == [f"an alert to pager will not be sent: {reason} (see: swell alerts)"]
        assert len(pager.delivered) == 0


async def test_a_sink_that_breaks_its_contract_is_treated_as_busy() -> None:
    class Broken(FakeAlertSink):
        async def deliver(self, alert: object) -> None:
            raise ZeroDivisionError

    pager, mail = Broken("pager"), FakeAlertSink("mail")
    async with AlertWorld(sinks=(pager, mail)) as world:
        world.spend(500)
        await world.turn()
        assert await world.states() == ["mail delivered", "pager waiting"]


async def test_what_was_for_a_sink_that_is_gone_is_given_up() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        pager.fail_next.append(busy())
        world.spend(500)
        await world.turn()
        world.sinks = (FakeAlertSink("mail"),)
        await world.begin()
        await world.turn()
        assert await world.states() == ["pager given up"]


async def test_a_sink_that_hangs_has_a_bounded_number_of_deliveries() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(budget=f"{{usd: 10, alerts: [{', '.join(f'{i}%' for i in range(1, 21))}]}}") as world:
        world.sinks = (pager,)
        await world.begin()
        pager.silent = True
        for _ in range(20):
            world.spend(10)
            await world.turn()
        assert pager.in_progress == MAX_AT_ONCE
        pager.silent = False
        pager.time_out()
        for _ in range(5):
            await world.turn(30.0)
        assert len(pager.delivered) == 20
        assert len({alert.alert_id for alert in pager.delivered}) == 20


async def test_an_outcome_that_cannot_be_stored_is_stored_later_and_nothing_is_sent_again() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        world.spend(500)
        await world.desk.watch(0.0)
        await world.desk.deliveries.step(0.0)
        world.store.fail_next(AtCapacity("the disk is full", retry_after_seconds=1.0))
        with pytest.raises(AtCapacity):
            await world.turn()  # its first call of the store
        await world.turn(60.0)
        assert (await world.states(), len(pager.delivered)) == (["pager delivered"], 1)


async def test_an_alert_that_cannot_be_stored_fires_when_it_can() -> None:
    pager = FakeAlertSink("pager")
    async with AlertWorld(sinks=(pager,)) as world:
        world.spend(500)
        world.store.fail_next(None, AtCapacity("the disk is full", retry_after_seconds=1.0))  # looked up, not added
        with pytest.raises(AtCapacity):
            await world.turn()
        assert len(pager.delivered) == 0
        await world.turn()
        assert (await world.fired(), len(pager.delivered)) == ([f"{TODAY} 50%"], 1)


class Counting(MemoryStore):
    """Counts the questions that read the ledger."""

    asked = 0

    def hourly_spend(self, limit: BudgetLimit, first_unix_ms: int, hours: int) -> list[int]:
        self.asked += 1
        return super().hourly_spend(limit, first_unix_ms, hours)


async def test_a_forecast_fires_before_the_money_is_gone_and_is_made_once_a_minute() -> None:
    store = Counting()
    async with AlertWorld(store=store, budget="{usd: 40, period: day, alerts: [forecast 100%]}") as world:
        for hour in range(1, 17):  # two dollars an hour, since yesterday: 48 in a day
            world.charge(200, hours_ago=hour - 0.5)
        world.spend(2000)
        await world.turn()
        (alert,) = await world.desk.rows(10)
        assert alert["title"] == f"Tenant search is forecast to spend 100% of its budget of {TODAY}"
        assert alert["severity"] == "warning"
        assert alert["text"].startswith("$20.00 of $40.00 is spent (50%). By the end of the period it will be $47.99")
        asked = store.asked
        for _ in range(int(FORECAST_SECONDS)):
            await world.turn()
        assert store.asked == asked, "what has fired is not forecast again"


async def test_forecasts_that_do_not_fire_are_made_once_a_minute() -> None:
    store = Counting()
    async with AlertWorld(store=store, budget="{usd: 4000, period: day, alerts: [forecast 100%]}") as world:
        for hour in range(1, 17):
            world.charge(200, hours_ago=hour - 0.5)
        await world.turn()
        assert store.asked == 0, "nothing is spent yet"
        world.spend(2000)
        await world.turn()
        first, turns = store.asked, 60
        for _ in range(turns):
            await world.turn()
        assert first > 0
        assert store.asked - first == turns * 2 / FORECAST_SECONDS
        assert await world.desk.rows(10) == []


async def test_a_test_alert_is_sent_at_once_and_not_stored() -> None:
    pager, mail = FakeAlertSink("pager"), FakeAlertSink("mail")
    async with AlertWorld(sinks=(pager, mail)) as world:
        mail.fail_next.append(SinkRefusedError("alert sink mail: who are you?"))
        assert await world.desk.test(None) == [
            {"sink": "pager", "accepted": True, "problem": None},
            {"sink": "mail", "accepted": False, "problem": "alert sink mail: who are you?"},
        ]
        assert await world.desk.test("mail") == [{"sink": "mail", "accepted": True, "problem": None}]
        assert [alert.kind for alert in (*pager.delivered, *mail.delivered)] == ["test", "test"]
        assert await world.desk.rows(10) == []
        with pytest.raises(UserError, match="there is no alert sink 'pagr'; there is pager"):
            await world.desk.test("pagr")


async def test_a_test_alert_waits_for_a_sink_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_deliveries, "TEST_SECONDS", 0.01)
    pager = FakeAlertSink("pager")
    pager.silent = True
    async with AlertWorld(sinks=(pager,)) as world:
        (outcome,) = await world.desk.test(None)
    assert outcome["problem"] == "alert sink pager did not take it within 0.01 s"


async def test_a_test_without_a_sink_says_where_to_name_one() -> None:
    async with AlertWorld() as world:
        with pytest.raises(UserError, match=r"swell\.yaml under alerts\.sinks"):
            await world.desk.test(None)


async def test_a_server_that_ends_sends_what_is_due_and_leaves_what_hangs_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alert_deliveries, "FINISH_SECONDS", 0.01)
    pager, mail = FakeAlertSink("pager"), FakeAlertSink("mail")
    pager.silent = True
    async with AlertWorld(sinks=(pager, mail)) as world:
        world.spend(500)
        await world.desk.finish()
        await world.desk.close()
        assert (pager.closed, mail.closed, pager.in_progress) == (True, True, 0)
        assert await world.states() == ["mail delivered", "pager waiting"]


async def test_old_alerts_are_forgotten_by_the_day_unless_their_budget_is_kept() -> None:
    async with AlertWorld(budget="{usd: 10, period: once}") as world:
        world.spend(500)
        await world.turn()
        world.store.add_alerts([alert_record("old", "gone", at_unix=world.clock.unix())])
        world.clock.advance(KEPT_SECONDS)
        await world.turn(FORGET_SECONDS)
        assert await world.fired() == ["once 50%"]
