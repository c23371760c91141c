"""The moment of each week, where clocks are changed and years begin."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from hypothesis import given
from hypothesis import strategies as st

from swell.metering.weekly import week_at

BERLIN = ZoneInfo("Europe/Berlin")
DAY = 86_400.0
ZONES = sorted(available_timezones() - {"localtime", "Factory"})
moments = st.floats(min_value=30 * DAY, max_value=100 * 365 * DAY)
schedules = st.tuples(st.sampled_from(ZONES).map(ZoneInfo), st.integers(0, 6), st.integers(0, 23))


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()


def test_a_week_begins_at_its_hour_and_not_before() -> None:
    due = at("2026-11-23T08:00")
    assert week_at(BERLIN, 0, 8, due).due_unix == due
    assert week_at(BERLIN, 0, 8, due).label == "2026-W48"
    before = week_at(BERLIN, 0, 8, due - 0.001)
    assert (before.due_unix, before.label) == (at("2026-11-16T08:00"), "2026-W47")
    assert week_at(BERLIN, 0, 8, due + 7 * DAY - 1).due_unix == due


def test_what_was_missed_on_a_sunday_evening_can_be_made_up_for_all_week() -> None:
    week = week_at(BERLIN, 6, 20, at("2026-11-25T12:00"))
    assert (week.due_unix, week.label) == (at("2026-11-22T20:00"), "2026-W47")


def test_moving_the_day_later_in_the_week_names_the_same_week() -> None:
    now = at("2026-11-25T12:00")
    assert {week_at(BERLIN, day, 8, now).label for day in (0, 1, 2)} == {"2026-W48"}


def test_an_hour_that_the_clocks_jump_over_is_when_they_land_and_one_that_comes_twice_is_the_first() -> None:
    sunday, landed = 6, at("2026-03-29T03:00")
    assert week_at(BERLIN, sunday, 2, landed).due_unix == landed
    assert week_at(BERLIN, sunday, 2, landed - 1).label == "2026-W12"
    first, second = at("2026-10-25T02:00"), at("2026-10-25T02:00", fold=1)
    assert second - first == 3600.0
    assert week_at(BERLIN, sunday, 2, second).due_unix == first


def test_a_week_over_new_year_has_the_name_that_iso_gives_it() -> None:
    assert week_at(BERLIN, 4, 8, at("2027-01-01T09:00")).label == "2026-W53"


@given(schedules, moments)
def test_weeks_follow_one_another_without_a_gap(schedule: tuple[ZoneInfo, int, int], now: float) -> None:
    week = week_at(*schedule, now)
    assert week.due_unix <= now
    assert week_at(*schedule, week.due_unix) == week
    before = week_at(*schedule, week.due_unix - 1)
    after = week_at(*schedule, week.due_unix + 7.5 * DAY)
    assert before.due_unix < week.due_unix < after.due_unix
    assert before.label < week.label < after.label
    assert now < week_at(*schedule, week.due_unix + 8.1 * DAY).due_unix
    for earlier, later in ((before, week), (week, after)):
        assert timedelta(days=5.9) < timedelta(seconds=later.due_unix - earlier.due_unix) < timedelta(days=8.1)
