"""The weekly review is told once a week, whatever restarts, clocks, stores and its process do."""

import asyncio
import json
import random
from datetime import timedelta
from pathlib import Path

import pytest
from review_world import BERLIN, USD, ReviewWorld, change, report, unix

from swell.errors import AtCapacity, SwellError, UserError
from swell.metering.weekly import week_at
from swell.server.review_desk import FILE, FIRST_LOOK_SECONDS, LOOK_SECONDS, MAX_TRIES, RETRY_SECONDS
from swell.spec import parse_spec
from swell.testing.fake_alert_sink import FakeAlertSink

MONDAY, WEEK, NEXT_MONDAY, NEXT_WEEK = "2026-11-23T08:00", "2026-W48", "2026-11-30T08:00", "2026-W49"


async def test_it_is_told_at_its_hour_once_a_week(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        assert await world.look("2026-11-23T07:59:59") == []
        assert await world.look(MONDAY) == [WEEK]
        for at in ("2026-11-23T08:00:30", "2026-11-29T23:00", "2026-11-30T07:59:59"):
            assert await world.look(at) == [WEEK]
        assert await world.look(NEXT_MONDAY) == [WEEK, NEXT_WEEK]
        assert len(world.asked) == 2


async def test_it_goes_to_the_sinks_that_take_its_kind_and_severity(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        await world.look(MONDAY)
        (row,) = await world.alerts.rows(10, "review")
        assert (row["kind"], row["severity"]) == ("review", "info")
        assert [each["sink"] for each in row["deliveries"]] == ["pager"]


async def test_the_process_is_asked_for_the_models_and_days_of_the_file(tmp_path: Path) -> None:
    own = "{day: monday, hour: 8, time_zone: Europe/Berlin, days: 30, profiles: a b.csv}"
    async with ReviewWorld(tmp_path, review=own) as world:
        await world.look(MONDAY)
        (request,) = world.asked
        assert request.command == "swell review --state here --days 30 --profiles 'a b.csv'"
        assert request.since_unix_ms == int((unix(MONDAY) - timedelta(days=30).total_seconds()) * 1000)
        spec = parse_spec(json.dumps({"models": request.models}), origin="request")
        assert [model.name for model in spec.models] == ["chat"]


async def test_a_server_that_was_away_at_the_hour_makes_up_for_it_in_the_same_week(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        world.clock.jump_unix(unix("2026-11-26T15:00") - world.clock.unix())
        await world.begin()
        assert await world.look() == [WEEK]


async def test_weeks_in_which_nobody_was_there_are_not_made_up_for(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        world.clock.jump_unix(unix("2026-12-16T15:00") - world.clock.unix())
        await world.begin()
        assert await world.look() == ["2026-W51"]


async def test_restarts_tell_nothing_twice(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        for at in (MONDAY, "2026-11-23T08:00:40", "2026-11-25T08:00"):
            await world.look(at)
            await world.begin()
            assert await world.look() == [WEEK]
        assert len(world.asked) == 1


async def test_what_is_new_in_the_file_begins_with_its_next_hour(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path, at="2026-11-25T09:00") as world:  # Monday's is past
        assert await world.look() == []
        await world.begin()
        assert await world.look("2026-11-29T12:00") == []
        assert await world.look(NEXT_MONDAY) == [NEXT_WEEK]


async def test_what_was_taken_out_of_the_file_begins_anew(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        assert (tmp_path / FILE).exists()
        asked, world.review = world.review, "null"
        await world.begin()
        assert world.desk.loops == ()
        assert not (tmp_path / FILE).exists()
        world.review = asked
        world.clock.jump_unix(unix("2026-11-25T09:00") - world.clock.unix())
        await world.begin()
        assert await world.look() == []


async def test_another_day_of_the_same_week_is_not_another_review(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        assert await world.look(MONDAY) == [WEEK]
        world.review = world.review.replace("monday", "tuesday")
        await world.begin()
        assert await world.look("2026-11-24T08:00") == [WEEK]
        assert await world.look("2026-12-01T08:00") == [WEEK, NEXT_WEEK]


async def test_a_clock_that_is_set_back_tells_nothing_twice_and_one_ahead_keeps_nothing_back(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        assert await world.look(NEXT_MONDAY) == [NEXT_WEEK]
        assert await world.look("2026-11-23T07:00") == [NEXT_WEEK]
        assert await world.look(MONDAY) == [NEXT_WEEK, WEEK]
        assert await world.look(NEXT_MONDAY) == [NEXT_WEEK, WEEK]
        assert len(world.asked) == 2
    other = tmp_path / "other"
    async with ReviewWorld(other, at="2040-01-01T00:00") as world:
        assert await world.look("2026-11-22T12:00") == []
        assert await world.look(MONDAY) == [WEEK]


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"\xff"])
async def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    async with ReviewWorld(tmp_path) as world:
        (tmp_path / FILE).write_bytes(damage)
        world.clock.jump_unix(unix("2026-11-25T09:00") - world.clock.unix())
        await world.begin()
        assert await world.look() == []
        assert await world.look(NEXT_MONDAY) == [NEXT_WEEK]


async def test_a_server_that_has_just_started_has_other_things_to_do(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        world.clock.jump_unix(unix(MONDAY) - world.clock.unix())
        await world.begin()
        await world.desk.step(world.clock.monotonic() - FIRST_LOOK_SECONDS)
        assert world.asked == []
        assert await world.look() == [WEEK]


async def test_what_cannot_be_reviewed_is_told_in_a_line_once(tmp_path: Path) -> None:
    why = "nothing to review: chat: 3 requests in the last 7 days, and 20 over some time are needed"
    async with ReviewWorld(tmp_path, outcomes=[UserError(why)]) as world:
        for _ in range(3):
            assert await world.look(MONDAY) == [WEEK]
        (row,) = await world.alerts.rows(10, "review")
        assert row["title"] == f"Weekly review of {WEEK}: it could not be made"
        assert row["text"] == why
        assert row["values"] == {"period": WEEK, "problem": why}
        assert len(world.asked) == 1


async def test_a_process_that_fails_is_tried_again_later_and_not_for_ever(tmp_path: Path) -> None:
    lost = [SwellError("its process ended with -9 and without an answer") for _ in range(MAX_TRIES)]
    async with ReviewWorld(tmp_path, outcomes=[*lost]) as world:
        await world.look(MONDAY)
        for tries in range(1, MAX_TRIES):
            assert await world.look() == []
            assert len(world.asked) == tries
            world.clock.advance(RETRY_SECONDS)
            told = await world.look()
        assert told == [WEEK]
        (row,) = await world.alerts.rows(10)
        assert row["text"] == f"its process ended with -9 and without an answer (tried {MAX_TRIES} times)"
        world.outcomes = [lost[0]]  # each week has its own tries
        await world.look(NEXT_MONDAY)
        world.clock.advance(RETRY_SECONDS)
        assert await world.look() == [WEEK, NEXT_WEEK]


async def test_a_review_that_the_store_does_not_take_is_kept_and_not_made_again(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        away = AtCapacity("the store is away", retry_after_seconds=1.0)
        world.store.fail_next(None, away, away)  # looked up, not added, not added again
        for _ in range(2):
            with pytest.raises(AtCapacity):
                await world.look(MONDAY)
        assert await world.look() == [WEEK]
        assert len(world.asked) == 1


async def test_a_loop_that_ends_ends_the_review_that_is_being_made(tmp_path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(request: object) -> object:
        begun.set()
        try:
            return await asyncio.Event().wait()
        finally:
            ended.set()

    async with ReviewWorld(tmp_path) as world:
        world._make = endless  # type: ignore[assignment, method-assign]
        world.clock.jump_unix(unix(MONDAY) - world.clock.unix())
        await world.begin()
        (loop,) = world.desk.loops
        running = asyncio.ensure_future(loop.run())
        await begun.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert ended.is_set()
        assert world.store.list_alerts(10) == []


async def test_a_review_that_somebody_sends_is_no_weeks(tmp_path: Path) -> None:
    async with ReviewWorld(tmp_path) as world:
        assert world.desk.sinks() == ["pager"]
        assert await world.desk.send(report(change())) == ["pager"]
        assert await world.desk.send(report(change(saving=5 * USD))) == ["pager"]
        assert await world.look(MONDAY) == ["sent", "sent", WEEK]
        newest, _, first = await world.alerts.rows(10, "review")
        assert first["title"] == "Review of the last 7 days: $100.00 less a month"
        assert newest["title"] == f"Weekly review of {WEEK}: $100.00 less a month"


async def test_without_a_sink_a_review_is_not_sent_but_the_weekly_one_is_listed(tmp_path: Path) -> None:
    nobody: list[FakeAlertSink] = []
    async with ReviewWorld(tmp_path, sinks=nobody) as world:
        with pytest.raises(UserError, match="no alert sink is configured"):
            await world.desk.send(report())
        assert await world.look(MONDAY) == [WEEK]


@pytest.mark.parametrize("seed", range(3))
async def test_any_walk_of_clocks_and_restarts_tells_each_week_once(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with ReviewWorld(tmp_path) as world:
        first, told = world.clock.unix(), list[str]()
        for _ in range(300):
            step = dice.choice([LOOK_SECONDS, 3600.0, 20 * 3600.0, -30 * 3600.0, 5 * 86_400.0])
            world.clock.advance(abs(step)) if dice.random() < 0.5 else world.clock.jump_unix(step)
            if dice.random() < 0.2:
                await world.begin()
            told = await world.look()
        assert len(told) == len(set(told)) == len(world.asked)
        assert len(told) > 10
        week = week_at(BERLIN, 0, 8, world.clock.unix())
        assert week.due_unix < first or week.label in told
