"""What every alert sink must do, as tests: subclass `AlertSinkSuite` and supply a `harness` fixture."""

# ruff: noqa: S101  asserting is what a suite is for

import asyncio
import math
from typing import Any, Protocol

import msgspec
import pytest

from swell.errors import RetryLater
from swell.ports.alert_sink import AlertSink, SinkRefusedError
from swell.state.alerts import Alert, money_values

HOSTILE_TEXT = (
    "\r\nBcc: all@example.org\r\n.\r\n<!channel> @here ]]> \"}' $(reboot) `id` \x00\x1b[2J\u202eevil \ud800 &amp;"
)
PATIENCE_SECONDS = 20.0  # more than any sink under test takes for anything


def sample_alert(alert_id: str = "budget:tenant:search:80", **changes: Any) -> Alert:
    """A usual alert, with fields replaced by `changes`."""
    usual = Alert(
        alert_id=alert_id,
        kind="budget",
        severity="warning",
        title="Tenant search has spent 80% of its budget",
        text="Tenant search has spent $80.00 of $100.00 this month. Raise its budget, or it is refused at $100.00.",
        subject="tenant search",
        at_unix=1_700_000_000.0,
        values={"percent": 80, **money_values("spent", 80_000_000_000)},
    )
    return msgspec.structs.replace(usual, **changes)


class AlertSinkHarness(Protocol):
    """A sink, and the other side of it. `accept`, `be_busy`, `refuse` and `fall_silent` hold for what comes next."""

    sink: AlertSink
    secrets: tuple[str, ...]  # no message may hold these

    def accept(self) -> None:
        """Take alerts."""

    def be_busy(self) -> None:
        """Say that it may work later."""

    def refuse(self) -> None:
        """Say that it never will."""

    def fall_silent(self) -> None:
        """Never answer; the sink under test gives up by itself, soon."""

    def received(self) -> list[str]:
        """Ids of the alerts that were taken, in their order."""

    async def begun(self) -> None:
        """Return when the other side has heard of a delivery since `fall_silent`."""

    async def at_rest(self) -> None:
        """Return when no connection is open and no process runs; AssertionError if that does not come true."""


class AlertSinkSuite:
    """The contract of `swell.ports.alert_sink`."""

    async def test_an_alert_arrives_with_its_id(self, harness: AlertSinkHarness) -> None:
        await harness.sink.deliver(sample_alert("one"))
        assert harness.received() == ["one"]

    async def test_a_repeat_carries_the_same_id(self, harness: AlertSinkHarness) -> None:
        await harness.sink.deliver(sample_alert("one"))
        await harness.sink.deliver(sample_alert("one"))
        assert harness.received() == ["one", "one"]

    async def test_one_that_is_busy_may_be_tried_again(self, harness: AlertSinkHarness) -> None:
        harness.be_busy()
        with pytest.raises(RetryLater) as caught:
            await harness.sink.deliver(sample_alert("one"))
        assert 0 <= caught.value.retry_after_seconds < math.inf
        self.check_message(harness, str(caught.value))
        harness.accept()
        await harness.sink.deliver(sample_alert("one"))
        assert harness.received() == ["one"]

    async def test_one_that_refuses_is_told_apart(self, harness: AlertSinkHarness) -> None:
        harness.refuse()
        with pytest.raises(SinkRefusedError) as caught:
            await harness.sink.deliver(sample_alert("one"))
        self.check_message(harness, caught.value.message)
        harness.accept()
        await harness.sink.deliver(sample_alert("two"))
        assert harness.received() == ["two"]

    async def test_one_that_never_answers_is_given_up(self, harness: AlertSinkHarness) -> None:
        harness.fall_silent()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(RetryLater) as caught:
                await harness.sink.deliver(sample_alert("one"))
        self.check_message(harness, str(caught.value))
        await harness.at_rest()
        assert harness.received() == []

    async def test_a_delivery_can_be_cancelled(self, harness: AlertSinkHarness) -> None:
        harness.fall_silent()
        task = asyncio.ensure_future(harness.sink.deliver(sample_alert("one")))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await harness.begun()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await harness.at_rest()
        assert harness.received() == []

    async def test_any_text_can_be_delivered(self, harness: AlertSinkHarness) -> None:
        text = HOSTILE_TEXT * 500
        values = {HOSTILE_TEXT: text, "large": 10**40, **{str(number): number for number in range(1_000)}}
        await harness.sink.deliver(sample_alert("hostile", title=text, text=text, subject=text, values=values))
        await harness.sink.deliver(sample_alert("empty", title="", text="", subject="", values={}))
        assert harness.received() == ["hostile", "empty"]

    async def test_several_at_once_all_arrive(self, harness: AlertSinkHarness) -> None:
        ids = [f"alert-{number}" for number in range(5)]
        await asyncio.gather(*(harness.sink.deliver(sample_alert(name)) for name in ids))
        assert sorted(harness.received()) == ids

    async def test_closing_twice_is_no_error(self, harness: AlertSinkHarness) -> None:
        await harness.sink.deliver(sample_alert("one"))
        await harness.sink.close()
        await harness.sink.close()
        await harness.at_rest()
        assert harness.received() == ["one"]

    def check_message(self, harness: AlertSinkHarness, message: str) -> None:
        """An error names its sink and no secret."""
        assert harness.sink.name in message
        assert [secret for secret in harness.secrets if secret in message] == []
