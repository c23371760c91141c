"""What every provider must do, as tests: subclass `ProviderSuite` and supply a `harness` fixture.

One whose machines may be bought on spot runs `SpotSuite` as well.
"""

# ruff: noqa: S101  asserting is what a suite is for

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import pytest

from swell.errors import LaunchFailed, SpotRefused
from swell.ports.provider import ChildHandle, ChildSpec, Loss, Machine, Presence, Provider

GRACE_SECONDS = 30.0  # longer than any test: a child that ends does so because it was asked to
SHORT_GRACE_SECONDS = 0.3


class ProviderHarness(Protocol):
    """The world around a provider, real or not. Every child that it describes has an id of its own."""

    def provider(self) -> Provider:
        """A provider that knows nothing yet, as a restarted server's."""

    def steady(self) -> ChildSpec:
        """A child that says `steady` to its log and runs until it is asked to end."""

    def stubborn(self) -> ChildSpec:
        """A child that only a kill ends."""

    def failing(self) -> ChildSpec:
        """A child that ends by itself with exit code 1."""

    def impossible(self) -> ChildSpec:
        """A child that cannot be started."""

    async def settled(self, handle: ChildHandle) -> None:
        """Return when the child has come to do what it does."""

    async def pass_seconds(self, seconds: float) -> None:
        """Let injected time pass; where time is real, `until` does."""

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; AssertionError if it does not come true."""

    def crash(self, handle: ChildHandle) -> None:
        """Kill the child behind the provider's back."""

    def living(self) -> set[str]:
        """Ids of the children that run."""


class ProviderSuite:
    """The contract of `swell.ports.provider`."""

    async def test_a_started_child_runs_until_it_is_asked_to_end(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.steady())
        await harness.settled(handle)
        assert provider.status(handle).presence is Presence.RUNNING
        assert provider.status(handle).exit_code is None
        await provider.stop(handle, grace_seconds=GRACE_SECONDS)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert harness.living() == set()

    async def test_starting_twice_starts_once(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        child = harness.steady()
        first = await provider.start(child)
        second = await provider.start(child)
        assert first == second
        await harness.settled(first)
        assert harness.living() == {child.child_id}

    async def test_an_end_is_told_with_its_exit_code(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.failing())
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert provider.status(handle).exit_code == 1
        assert provider.status(handle).loss is None, "what ends by itself was not lost"

    async def test_a_crash_is_noticed(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.steady())
        await harness.settled(handle)
        harness.crash(handle)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert provider.status(handle).exit_code == -9

    async def test_the_log_keeps_what_the_child_wrote(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.steady())
        await harness.settled(handle)
        assert await provider.log_tail(handle.log_path) != ""
        assert await provider.log_tail(handle.log_path.with_name("absent.log")) == ""

    async def test_a_child_that_does_not_end_is_killed_after_its_grace(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.stubborn())
        await harness.settled(handle)
        await provider.stop(handle, grace_seconds=SHORT_GRACE_SECONDS)
        assert provider.status(handle).presence is Presence.RUNNING
        await harness.pass_seconds(SHORT_GRACE_SECONDS)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert provider.status(handle).exit_code == -9

    async def test_a_later_stop_shortens_the_grace_and_never_lengthens_it(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.stubborn())
        await harness.settled(handle)
        await provider.stop(handle, grace_seconds=GRACE_SECONDS)
        await provider.stop(handle, grace_seconds=SHORT_GRACE_SECONDS)
        await provider.stop(handle, grace_seconds=GRACE_SECONDS)
        await harness.pass_seconds(SHORT_GRACE_SECONDS)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert harness.living() == set()

    async def test_a_grace_of_nothing_kills_at_once(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.stubborn())
        await harness.settled(handle)
        await provider.stop(handle, grace_seconds=0.0)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert provider.status(handle).exit_code == -9

    async def test_stopping_what_is_gone_is_no_error(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.failing())
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        await provider.stop(handle, grace_seconds=GRACE_SECONDS)
        await provider.forget(handle)
        await provider.stop(handle, grace_seconds=0.0)
        assert provider.status(handle).presence is Presence.GONE

    async def test_a_child_that_cannot_be_started_is_refused(self, harness: ProviderHarness) -> None:
        provider = harness.provider()
        with pytest.raises(LaunchFailed):
            await provider.start(harness.impossible())
        assert harness.living() == set()

    async def test_a_later_provider_adopts_by_handle(self, harness: ProviderHarness) -> None:
        handle = await harness.provider().start(harness.steady())
        await harness.settled(handle)
        later = harness.provider()
        assert later.status(handle).presence is Presence.GONE
        assert await later.adopt(handle.child_id, handle.log_path, handle) == handle
        await later.end_orphans()
        assert later.status(handle).presence is Presence.RUNNING
        await later.stop(handle, grace_seconds=GRACE_SECONDS)
        await harness.until(lambda: later.status(handle).presence is Presence.GONE)
        assert harness.living() == set()

    async def test_a_later_provider_adopts_by_id_alone(self, harness: ProviderHarness) -> None:
        handle = await harness.provider().start(harness.steady())
        await harness.settled(handle)
        later = harness.provider()
        assert await later.adopt(handle.child_id, handle.log_path, None) == handle
        await later.end_orphans()
        harness.crash(handle)
        await harness.until(lambda: later.status(handle).presence is Presence.GONE)
        assert harness.living() == set()

    async def test_a_handle_that_is_another_process_is_not_adopted(self, harness: ProviderHarness) -> None:
        handle = await harness.provider().start(harness.steady())
        await harness.settled(handle)
        later = harness.provider()
        other = harness.steady().child_id
        reused = replace(handle, child_id=other, start_time=handle.start_time + 1)
        assert await later.adopt(other, handle.log_path, reused) is None
        assert harness.living() == {handle.child_id}

    async def test_what_has_ended_is_not_adopted(self, harness: ProviderHarness) -> None:
        first = harness.provider()
        handle = await first.start(harness.failing())
        await harness.until(lambda: first.status(handle).presence is Presence.GONE)
        assert await harness.provider().adopt(handle.child_id, handle.log_path, handle) is None


class SpotHarness(ProviderHarness, Protocol):
    """A world in which machines are bought on spot, and taken away."""

    def spot(self) -> tuple[ChildSpec, Machine]:
        """A child that runs until it is asked to end, on spot, and what it will run on."""

    def unavailable(self) -> ChildSpec:
        """A child for which no spot machine is to be had; a provider may see that at once, or later."""

    def give_notice(self, handle: ChildHandle) -> None:
        """Say that the child's machine will be taken."""

    def reclaim(self, handle: ChildHandle) -> None:
        """Take the child's machine away."""


class SpotSuite:
    """What the contract says of spot."""

    async def test_a_child_tells_what_it_runs_on(self, harness: SpotHarness) -> None:
        provider = harness.provider()
        child, machine = harness.spot()
        handle = await provider.start(child)
        await harness.settled(handle)
        await harness.until(lambda: provider.status(handle).machine == machine)
        assert provider.status(handle).loss is None

    async def test_notice_is_told_while_the_child_runs(self, harness: SpotHarness) -> None:
        provider = harness.provider()
        child, machine = harness.spot()
        handle = await provider.start(child)
        await harness.settled(handle)
        harness.give_notice(handle)
        await harness.until(lambda: provider.status(handle).loss is Loss.NOTICE)
        assert provider.status(handle).presence is Presence.RUNNING
        harness.reclaim(handle)
        await harness.until(lambda: provider.status(handle).loss is Loss.RECLAIMED)
        assert provider.status(handle).presence is Presence.GONE
        assert provider.status(handle).machine == machine

    async def test_a_machine_that_is_taken_without_notice_is_told(self, harness: SpotHarness) -> None:
        provider = harness.provider()
        child, machine = harness.spot()
        handle = await provider.start(child)
        await harness.settled(handle)
        harness.reclaim(handle)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert (provider.status(handle).loss, provider.status(handle).machine) == (Loss.RECLAIMED, machine)
        assert harness.living() == set()

    async def test_what_is_asked_to_end_was_not_lost(self, harness: SpotHarness) -> None:
        provider = harness.provider()
        handle = await provider.start(harness.spot()[0])
        await harness.settled(handle)
        await provider.stop(handle, grace_seconds=GRACE_SECONDS)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        assert provider.status(handle).loss is None

    async def test_a_later_provider_knows_what_an_adopted_child_runs_on(self, harness: SpotHarness) -> None:
        child, machine = harness.spot()
        handle = await harness.provider().start(child)
        await harness.settled(handle)
        later = harness.provider()
        assert await later.adopt(handle.child_id, handle.log_path, handle) == handle
        await later.end_orphans()
        await harness.until(lambda: later.status(handle).machine == machine)
        harness.reclaim(handle)
        await harness.until(lambda: later.status(handle).loss is Loss.RECLAIMED)

    async def test_a_market_without_a_machine_is_told(self, harness: SpotHarness) -> None:
        provider = harness.provider()
        refused, handle = None, None
        try:
            handle = await provider.start(harness.unavailable())
        except SpotRefused as error:
            refused = error
        if handle is not None:
            await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
            assert provider.status(handle).loss is Loss.REFUSED
            assert provider.status(handle).machine.market == "spot"
        assert handle is not None or (refused is not None and refused.retry_after_seconds >= 0)
        assert harness.living() == set()
