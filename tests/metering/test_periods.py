"""Calendar periods: what they are around changes of offset, and that they tile time in every zone."""

import io
import math
import struct
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swell.metering.periods import KINDS, Period, following, period_at, zone_of

CALENDAR_KINDS = tuple(kind for kind in KINDS if kind != "once")
FIRST_UNIX, LAST_UNIX = 0, 4_102_444_800  # 1970 to 2100: all changes that are recorded, and rules that go on
HOUR, DAY = 3600, 86_400
MOMENT = 1e-3  # by which an instant lies before an end

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory"})).map(ZoneInfo)
calendar_kinds = st.sampled_from(CALENDAR_KINDS)
moments = st.one_of(
    st.integers(FIRST_UNIX, LAST_UNIX).map(float),
    st.floats(FIRST_UNIX, LAST_UNIX, allow_nan=False),
)


def unix(text: str) -> float:
    """An ISO time with its offset, as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def check_tiling(kind: str, zone: ZoneInfo, at: float) -> None:
    """Everything that holds of a period, its neighbour and the instants in it."""
    period = period_at(kind, zone, at)
    assert period.end_unix is not None
    assert period.start_unix <= at < period.end_unix
    assert period_at(kind, zone, period.end_unix - MOMENT) == period
    if period.start_unix >= 0:
        assert period_at(kind, zone, period.start_unix) == period
    after = following(kind, zone, period)
    assert after == period_at(kind, zone, period.end_unix)
    assert after is not None
    assert after.start_unix == period.end_unix
    assert after.label != period.label


@given(kind=calendar_kinds, zone=zones, at=moments)
def test_periods_tile_time(kind: str, zone: ZoneInfo, at: float) -> None:
    check_tiling(kind, zone, at)


@given(kind=calendar_kinds, zone=zones, at=moments, share=st.floats(0, 1, exclude_max=True))
def test_a_period_is_the_same_at_all_its_instants(kind: str, zone: ZoneInfo, at: float, share: float) -> None:
    period = period_at(kind, zone, at)
    assert period.end_unix is not None
    inside = period.start_unix + share * (period.end_unix - period.start_unix)
    assert period_at(kind, zone, min(max(inside, 0.0), period.end_unix - MOMENT)) == period


@given(zone=zones, at=moments)
def test_longer_periods_are_made_of_whole_days(zone: ZoneInfo, at: float) -> None:
    day = period_at("day", zone, at)
    for kind in ("week", "month", "quarter", "year"):
        period = period_at(kind, zone, at)
        assert day.end_unix is not None
        assert period.end_unix is not None
        assert period.start_unix <= day.start_unix
        assert day.end_unix <= period.end_unix
    assert period_at("quarter", zone, at).label[:4] == period_at("year", zone, at).label


@given(zone=zones, at=moments)
def test_an_hour_has_one_offset_and_one_hour_on_the_clock(zone: ZoneInfo, at: float) -> None:
    hour = period_at("hour", zone, at)
    assert hour.end_unix is not None
    assert hour.end_unix - hour.start_unix <= HOUR
    labels = {
        datetime.fromtimestamp(moment, zone).isoformat(timespec="hours")
        for moment in (hour.start_unix, math.floor(at), hour.end_unix - 1)  # `datetime` would round `at` up
    }
    assert labels == {hour.label}


def changes_of(zone: ZoneInfo) -> list[int]:
    """Hours in whose course the zone's offset changed, as Unix seconds, found without the code under test."""

    def has_changed(start: int, seconds: int) -> bool:
        moments = (datetime.fromtimestamp(start, zone), datetime.fromtimestamp(start + seconds, zone))
        return moments[0].utcoffset() != moments[1].utcoffset()

    days = [day for day in range(0, 22_000 * DAY, DAY) if has_changed(day, DAY)]
    return [hour for day in days for hour in range(day, day + DAY, HOUR) if has_changed(hour, HOUR)]


@pytest.mark.parametrize(
    "name",
    [
        "Africa/Cairo",
        "Africa/Casablanca",
        "America/Sao_Paulo",
        "America/St_Johns",
        "Antarctica/Casey",
        "Antarctica/Troll",
        "Asia/Beirut",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Europe/Dublin",
        "Pacific/Apia",
        "Pacific/Kwajalein",
    ],
)
def test_periods_tile_the_hours_around_every_change_of_a_zone(name: str) -> None:
    zone = zone_of(name)
    changes = changes_of(zone)
    assert changes
    for change in changes:
        for at in (change - DAY, change - HOUR, change, change + 900, change + HOUR, change + 2 * HOUR, change + DAY):
            check_tiling("day", zone, at)
            check_tiling("hour", zone, at)


@pytest.mark.parametrize(
    ("kind", "label", "start", "end"),
    [
        ("hour", "2026-11-29T14+01:00", "2026-11-29T14:00+01:00", "2026-11-29T15:00+01:00"),
        ("day", "2026-11-29", "2026-11-29T00:00+01:00", "2026-11-30T00:00+01:00"),
        ("week", "2026-W48", "2026-11-23T00:00+01:00", "2026-11-30T00:00+01:00"),
        ("month", "2026-11", "2026-11-01T00:00+01:00", "2026-12-01T00:00+01:00"),
        ("quarter", "2026-Q4", "2026-10-01T00:00+02:00", "2027-01-01T00:00+01:00"),
        ("year", "2026", "2026-01-01T00:00+01:00", "2027-01-01T00:00+01:00"),
    ],
)
def test_each_kind_at_one_moment_in_berlin(kind: str, label: str, start: str, end: str) -> None:
    at = unix("2026-11-29T14:17:05.25+01:00")
    assert period_at(kind, zone_of("Europe/Berlin"), at) == Period(unix(start), unix(end), label)


def test_once_has_no_end_and_nothing_follows() -> None:
    zone = zone_of("Asia/Tokyo")
    once = period_at("once", zone, 1.5e9)
    assert once == Period(0.0, None, "once") == period_at("once", zone, 0.0)
    assert following("once", zone, once) is None


@pytest.mark.parametrize(
    ("at", "label"),
    [
        ("2027-01-03T23:59:59+00:00", "2026-W53"),
        ("2027-01-04T00:00:00+00:00", "2027-W01"),
        ("2024-12-30T00:00:00+00:00", "2025-W01"),
    ],
)
def test_weeks_belong_to_the_year_of_their_thursday(at: str, label: str) -> None:
    assert period_at("week", zone_of("UTC"), unix(at)).label == label


@pytest.mark.parametrize("year", [2023, 2024, 2100])
def test_a_years_quarters_months_and_days_are_all_there(year: int) -> None:
    zone = zone_of("UTC")
    whole = period_at("year", zone, datetime(year, 7, 1, tzinfo=UTC).timestamp())
    counts = {}
    for kind in ("quarter", "month", "day"):
        period: Period | None = period_at(kind, zone, whole.start_unix)
        labels = []
        while period is not None and period.start_unix < (whole.end_unix or 0):
            labels.append(period.label)
            period = following(kind, zone, period)
        assert labels == sorted(set(labels))
        counts[kind] = len(labels)
    assert counts == {"quarter": 4, "month": 12, "day": (date(year + 1, 1, 1) - date(year, 1, 1)).days}


@pytest.mark.parametrize(
    ("name", "at", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T12:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00+01:00", 25),
        ("America/New_York", "2026-03-08T12:00-04:00", 23),
        ("America/New_York", "2026-11-01T12:00-05:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T12:00+10:30", 24.5),
        ("Antarctica/Troll", "2026-03-29T12:00+02:00", 22),
        ("Asia/Kathmandu", "2026-03-29T12:00+05:45", 24),
        ("Asia/Kathmandu", "1986-01-01T12:00+05:45", 23.75),
    ],
)
def test_how_long_a_day_is(name: str, at: str, hours: float) -> None:
    day = period_at("day", zone_of(name), unix(at))
    assert day.end_unix is not None
    assert (day.end_unix - day.start_unix) / HOUR == hours
    assert day.label == at[:10]


@pytest.mark.parametrize(
    ("name", "day", "start"),
    [
        ("Africa/Cairo", "2024-04-26", "2024-04-26T01:00+03:00"),
        ("America/Sao_Paulo", "2018-11-04", "2018-11-04T01:00-02:00"),
        ("Asia/Beirut", "2024-03-31", "2024-03-31T01:00+03:00"),
        ("America/Havana", "2024-03-10", "2024-03-10T01:00-04:00"),
    ],
)
def test_a_midnight_that_the_clocks_jump_over(name: str, day: str, start: str) -> None:
    zone = zone_of(name)
    period = period_at("day", zone, unix(start) + 12 * HOUR)
    assert (period.start_unix, period.label) == (unix(start), day)
    assert (period.end_unix or 0) - period.start_unix == 23 * HOUR
    before = period_at("day", zone, period.start_unix - 1)
    assert before.end_unix == period.start_unix
    assert before.label < day


def zone_by_rule(rule: bytes) -> ZoneInfo:
    """A zone of nothing but a rule, as POSIX writes it, in the least file that says so (RFC 8536)."""
    block = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4) + struct.pack(">lbb", 0, 0, 0) + b"UTC\0"
    return ZoneInfo.from_file(io.BytesIO(block * 2 + b"\n" + rule + b"\n"), "Test/Rule")


def test_a_midnight_within_what_the_clocks_jump_over() -> None:
    # From 23:30 to 00:30, as in Toronto in 1919; no zone has done it since 1970, and the next may.
    zone = zone_by_rule(b"STD5DST,M3.2.0/23:30,M11.1.0")
    jump = unix("2026-03-08T23:30-05:00")
    day = period_at("day", zone, jump + 12 * HOUR)
    assert day == Period(jump, unix("2026-03-10T00:00-04:00"), "2026-03-09")
    assert period_at("day", zone, jump - 1) == Period(unix("2026-03-08T00:00-05:00"), jump, "2026-03-08")
    for at in (jump - HOUR, jump - MOMENT, jump, jump + 1800):
        check_tiling("day", zone, at)
        check_tiling("hour", zone, at)


def test_clocks_set_back_across_midnight_do_not_bring_the_day_before_back() -> None:
    zone = zone_of("America/St_Johns")  # at 00:01 on 7 November 2010 back to 23:01 on the 6th
    midnight = unix("2010-11-07T00:00-02:30")
    again = unix("2010-11-06T23:30-03:30")
    assert again > midnight
    day = period_at("day", zone, again)
    assert day == Period(midnight, unix("2010-11-08T00:00-03:30"), "2010-11-07")
    assert period_at("day", zone, midnight - 1).label == "2010-11-06"


def test_a_day_that_was_left_out_has_no_period() -> None:
    zone = zone_of("Pacific/Apia")  # crossed the date line at the end of 29 December 2011
    last = period_at("day", zone, unix("2011-12-29T12:00-10:00"))
    after = following("day", zone, last)
    assert last == Period(unix("2011-12-29T00:00-10:00"), unix("2011-12-30T00:00-10:00"), "2011-12-29")
    assert after == Period(unix("2011-12-31T00:00+14:00"), unix("2012-01-01T00:00+14:00"), "2011-12-31")


def labels_of_hours(name: str, start: str, end: str) -> list[tuple[str, float]]:
    """Labels and lengths, in minutes, of the hours from `start` to `end`."""
    zone = zone_of(name)
    hour: Period | None = period_at("hour", zone, unix(start))
    found = []
    while hour is not None and hour.end_unix is not None and hour.start_unix < unix(end):
        found.append((hour.label[11:], (hour.end_unix - hour.start_unix) / 60))
        hour = following("hour", zone, hour)
    return found


def test_the_hour_that_comes_twice_is_two_periods() -> None:
    assert labels_of_hours("Europe/Berlin", "2026-10-25T01:00+02:00", "2026-10-25T04:00+01:00") == [
        ("01+02:00", 60),
        ("02+02:00", 60),
        ("02+01:00", 60),
        ("03+01:00", 60),
    ]


def test_the_hour_that_is_left_out_is_none() -> None:
    hours = labels_of_hours("Europe/Berlin", "2026-03-29T01:00+01:00", "2026-03-29T04:00+02:00")
    assert hours == [("01+01:00", 60), ("03+02:00", 60)]


def test_half_an_hours_change_leaves_a_short_hour() -> None:
    back = labels_of_hours("Australia/Lord_Howe", "2026-04-05T01:00+11:00", "2026-04-05T03:00+10:30")
    assert back == [("01+11:00", 60), ("01+10:30", 30), ("02+10:30", 60)]
    ahead = labels_of_hours("Australia/Lord_Howe", "2026-10-04T01:00+10:30", "2026-10-04T04:00+11:00")
    assert ahead == [("01+10:30", 60), ("02+11:00", 30), ("03+11:00", 60)]


@pytest.mark.parametrize(("name", "minutes"), [("Asia/Kolkata", 30), ("Asia/Kathmandu", 15), ("Europe/Berlin", 0)])
def test_hours_begin_on_the_hour_of_the_local_clock(name: str, minutes: int) -> None:
    hour = period_at("hour", zone_of(name), unix("2026-06-01T12:20+00:00"))
    assert hour.start_unix % HOUR == minutes * 60
    assert (hour.end_unix or 0) - hour.start_unix == HOUR


@pytest.mark.parametrize("at", [-1.0, float("nan"), float("inf"), 2.6e11])
def test_a_time_outside_the_calendar_is_refused(at: float) -> None:
    with pytest.raises(ValueError, match="of the years 1970 to 9997"):
        period_at("day", zone_of("UTC"), at)


@pytest.mark.parametrize("name", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("kind", CALENDAR_KINDS)
def test_the_first_and_last_periods_of_the_calendar(kind: str, name: str) -> None:
    zone = zone_of(name)
    assert period_at(kind, zone, 0.0).start_unix <= 0.0
    last = period_at(kind, zone, datetime(9997, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
    assert last.end_unix is not None
    assert last.label[:4] in {"9997", "9998"}


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'fortnight' is no kind of period; there are hour, day"):
        period_at("fortnight", zone_of("UTC"), 0.0)


@pytest.mark.parametrize(
    ("given_name", "nearest"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("Germany/Berlin", "Europe/Berlin"),
        ("Europe/Belrin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("US/Pacfic", "US/Pacific"),
        ("right/Europe/Paris", "Europe/Paris"),  # would count leap seconds
        ("GMT+2", "GMT"),
    ],
)
def test_a_mistyped_zone_is_refused_with_the_nearest(given_name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone") as refusal:
        zone_of(given_name)
    assert str(refusal.value).startswith(f"{given_name!r} is not a time zone; did you mean {nearest}")


@pytest.mark.parametrize("name", ["", "\0", "../../etc/passwd", "/etc/localtime", "localtime", "Europe", "x" * 10_000])
def test_what_is_no_zone_at_all_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="did you mean") as refusal:
        zone_of(name)
    assert len(str(refusal.value)) < 250


def test_a_machine_without_zones_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swell.clock.available_timezones", set[str])
    with pytest.raises(ValueError, match="has no time zones; install its tzdata package"):
        zone_of("Atlantis/Never_Asked_Before")
