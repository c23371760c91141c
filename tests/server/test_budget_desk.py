"""The budgets of a running server: slots of rolling windows follow one another, and nothing that counts is lost."""

from pathlib import Path

import pytest
from alert_world import START_UNIX, AlertWorld

from swell.server.budget_rows import budget_rows, ledger_rows
from swell.server.budgets import BudgetDesk
from swell.state.budgets import LATE_SLOTS, SLOTS
from swell.units import NANOS_PER_USD

SLOT = 24 * 60.0  # of 24 hours
ROLLING = "{usd: 10, period: rolling 24h, alerts: []}"


async def test_workers_are_told_of_the_present_slot_and_the_next_and_the_rest_counts() -> None:
    async with AlertWorld(budget=ROLLING) as world:
        present, coming = world.budgets.limits
        assert present.contains(START_UNIX * 1000)
        assert (coming.start_unix_ms, coming.window_ms) == (present.end_unix_ms, 86_400_000)
        assert coming.start_unix_ms - present.start_unix_ms == SLOT * 1000
        assert not world.budgets.is_due
        world.spend(400)
        world.clock.advance(SLOT)
        assert world.budgets.is_due
        assert await world.budgets.refresh()
        assert world.budgets.limits[0] == coming
        assert world.spend(600)
        assert not world.spend(1)
        (row,) = budget_rows(world.budgets.standings(), world.clock.unix(), world.budgets.stages.holding)
        assert (row["period"], row["spent_usd"], row["left_usd"], row["ends_unix"]) == (
            "rolling 24h", "10.000000000", "0.000000000", None,
        )  # fmt: skip
        assert row["frees_unix"] == (present.end_unix_ms or 0) / 1000 + 86_400
        world.clock.advance(86_400 - SLOT)
        await world.budgets.refresh()
        assert not world.spend(1)
        world.clock.advance(SLOT)
        await world.budgets.refresh()
        assert world.spend(400)
        assert not world.spend(1)


async def test_a_server_that_begins_counts_what_the_ledger_has_of_the_window() -> None:
    async with AlertWorld(budget=ROLLING) as world:
        world.charge(300, hours_ago=23.0)
        world.charge(200, hours_ago=12.0)
        world.charge(900, hours_ago=25.0)
        await world.begin()
        assert not world.spend(501)
        assert world.spend(500)
        (row,) = ledger_rows(world.spec, world.store, world.clock.unix())
        assert (row["spent_usd_nanos"], row["cap_usd_nanos"]) == (5 * NANOS_PER_USD, 10 * NANOS_PER_USD)


async def test_after_a_long_sleep_only_what_counts_is_read_and_kept() -> None:
    async with AlertWorld(budget=ROLLING) as world:
        book = world.budgets.book
        assert len(list(book._accounts)) == SLOTS + LATE_SLOTS + 2
        world.clock.jump_unix(10 * 86_400.0)
        await world.budgets.refresh()
        assert len(list(book._accounts)) == SLOTS + LATE_SLOTS + 2
        assert world.spend(1000)
        world.clock.jump_unix(-10 * 86_400.0)
        assert world.budgets.is_due
        await world.budgets.refresh()
        assert world.spend(1000)


@pytest.mark.parametrize("is_shared", [False, True])
async def test_what_another_servers_worker_was_leased_stays_spent_while_its_spool_is_elsewhere(
    tmp_path: Path, is_shared: bool
) -> None:
    async with AlertWorld(budget=ROLLING) as world:
        assert world.spend(400)
        await world.budgets.save()
        leases = world.store.list_leases()
        assert len(leases) == 1
        following = BudgetDesk(world.spec, world.store, world.writer, world.clock, is_shared=is_shared)
        await following.begin(tmp_path, ())
        assert world.store.list_leases() == (leases if is_shared else [])
