"""Sums by group and calendar: every zone's days are exact, and every split comes to the same."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ledger, request, unix_ms, void

from swell.errors import UserError
from swell.metering.periods import Period, zone_of
from swell.metering.reports import NOTHING, ReportRow, Sums, added, named_period, report, slices, total
from swell.ports import store as store_port
from swell.state.records import UsageFilter
from swell.testing.memory_store import MemoryStore

NOW = unix_ms("2026-11-29T12:00:00+00:00") / 1000
UTC = zone_of("UTC")
EVERYTHING = UsageFilter()
NAMES = ("tenant", "model", "key_id", "endpoint", "status", "hour", "day", "month")
ONE = (1, 0, 1000, 200, 270_000, 3)


def asked(store: MemoryStore, by: tuple[str, ...], text: str, zone: str = "UTC") -> list[ReportRow]:
    span, where = store.usage_span(), zone_of(zone)
    return report(store.group_usage, EVERYTHING, by, named_period(text, where, NOW, span), where, span)


def keys(rows: list[ReportRow]) -> list[tuple[str, ...]]:
    return [row.key for row in rows]


def test_a_month_by_tenant_and_model_leaves_other_months_out() -> None:
    store = ledger(
        request("before", "2026-10-31T23:59:59.999+00:00"),
        request("a", "2026-11-01T00:00:00+00:00"),
        request("b", "2026-11-30T23:59:59.999+00:00", model="embed"),
        request("c", "2026-11-15T00:00:00+00:00"),
        void("v", "2026-11-15T00:00:00+00:00"),
        request("after", "2026-12-01T00:00:00+00:00"),
    )
    rows = asked(store, ("tenant", "model"), "2026-11")
    assert keys(rows) == [("search", "chat"), ("search", "embed")]
    assert rows[0].sums == (2, 1, 2000, 400, 540_000, 6)
    assert total(rows) == (3, 1, 3000, 600, 810_000, 9)
    assert total(asked(store, (), "all"))[0] == 5


def test_days_and_months_are_those_of_the_time_zone() -> None:
    store = ledger(
        request("utc october", "2026-10-31T23:30:00+00:00"),
        request("utc november", "2026-11-30T23:30:00+00:00"),
    )
    assert keys(asked(store, ("month", "day"), "all")) == [("2026-10", "2026-10-31"), ("2026-11", "2026-11-30")]
    assert keys(asked(store, ("month", "day"), "all", "Europe/Berlin")) == [
        ("2026-11", "2026-11-01"),
        ("2026-12", "2026-12-01"),
    ]
    assert total(asked(store, (), "2026-11", "Europe/Berlin")) == ONE


def test_a_zone_whose_hours_begin_at_half_past_is_exact() -> None:
    store = ledger(request("a", "2026-11-02T18:29:59+00:00"), request("b", "2026-11-02T18:30:00+00:00"))
    assert keys(asked(store, ("day",), "2026-11", "Asia/Kolkata")) == [("2026-11-02",), ("2026-11-03",)]
    assert keys(asked(store, ("hour",), "2026-11", "Asia/Kolkata")) == [
        ("2026-11-02T23+05:30",),
        ("2026-11-03T00+05:30",),
    ]


def test_the_hour_that_comes_twice_is_two_and_they_come_as_they_passed() -> None:
    store = ledger(request("first", "2026-10-25T02:30:00+02:00"), request("second", "2026-10-25T02:30:00+01:00"))
    rows = asked(store, ("hour",), "2026-10-25", "Europe/Berlin")
    assert keys(rows) == [("2026-10-25T02+02:00",), ("2026-10-25T02+01:00",)]
    assert keys(asked(store, ("hour",), "2026-10-25")) == [("2026-10-25T00+00:00",), ("2026-10-25T01+00:00",)]


def test_a_filter_and_a_length_of_time_bound_what_is_summed() -> None:
    store = ledger(
        request("old", "2026-11-28T11:00:00+00:00"),
        request("new", "2026-11-28T13:00:00+00:00", tenant="ads"),
        request("newer", "2026-11-29T11:00:00+00:00"),
    )
    since = Period(NOW - 86_400, None, "since")
    rows = report(store.group_usage, UsageFilter(tenant="search"), ("tenant",), since, UTC, store.usage_span())
    assert [(row.key, row.sums[0]) for row in rows] == [(("search",), 1)]
    assert total(report(store.group_usage, EVERYTHING, (), since, UTC, store.usage_span()))[0] == 2


def test_an_empty_ledger_has_no_rows_in_any_period() -> None:
    for text in ("all", "month", "2026-11"):
        assert asked(MemoryStore(), ("tenant",), text) == []
    assert total([]) == NOTHING


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("month", "2026-11"),
        ("day", "2026-11-29"),
        ("hour", "2026-11-29T12+00:00"),
        ("week", "2026-W48"),
        ("quarter", "2026-Q4"),
        ("year", "2026"),
        ("2024-02-29", "2024-02-29"),
        ("2026-01", "2026-01"),
        ("1999", "1999"),
    ],
)
def test_periods_are_named_as_people_name_them(text: str, label: str) -> None:
    assert named_period(text, UTC, NOW, None).label == label


@pytest.mark.parametrize(
    "text", ["", "2026-13", "2026-02-30", "26-11", "november", "1969-01", "9999-01", "2026-11-", "x" * 99]
)
def test_what_is_no_period_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UserError, match="is no period; give a month such as 2026-11") as refused:
        named_period(text, UTC, NOW, None)
    assert len(refused.value.message) < 250


def test_a_day_that_a_zone_left_out_is_no_other_day() -> None:
    with pytest.raises(UserError, match="there was no 2011-12-30 in Pacific/Apia"):
        named_period("2011-12-30", zone_of("Pacific/Apia"), NOW, None)


def test_slices_are_days_and_reach_only_as_far_as_the_ledger() -> None:
    period = named_period("2026", UTC, NOW, None)
    span = (unix_ms("2026-11-02T12:00:00+00:00"), unix_ms("2026-11-04T00:00:00+00:00"))
    cut = list(slices(period, UTC, span))
    assert [part.label for part in cut] == ["2026-11-02", "2026-11-03", "2026-11-04"]
    assert all(before.end_unix_ms == after.start_unix_ms for before, after in pairwise(cut))
    assert [part.bucket for part in slices(period, UTC, span, hourly=True)] == ["hour"] * 3
    assert len(list(slices(period, zone_of("Asia/Kolkata"), span, hourly=True))) == 72
    with pytest.raises(UserError, match="ask for one period after the other"):
        list(slices(Period(0.0, None, "all"), UTC, (0, unix_ms("2300-01-01T00:00:00+00:00"))))


def test_sums_of_many_days_keep_the_store_s_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ledger(*(request(f"r{day}", f"2026-11-0{day}T00:00:00+00:00") for day in range(1, 5)))
    monkeypatch.setattr(store_port, "MAX_GROUPS", 3)
    assert len(asked(store, ("tenant",), "2026-11")) == 1
    with pytest.raises(UserError, match="more than 3 groups"):
        asked(store, ("day",), "2026-11")


AT = st.integers(unix_ms("2026-10-20T00:00:00+00:00"), unix_ms("2026-11-05T00:00:00+00:00"))
AMOUNTS = st.integers(0, 2**45)


@st.composite
def requests(draw: st.DrawFn):
    return [
        request(
            f"r{number}",
            draw(AT),
            tenant=draw(st.sampled_from(["one", "two"])),
            model=draw(st.sampled_from(["chat", "embed"])),
            status=draw(st.sampled_from(["settled", "estimated", "reserved", "void"])),
            prompt_tokens=draw(AMOUNTS),
            charge_usd_nanos=draw(AMOUNTS),
        )
        for number in range(draw(st.integers(0, 10)))
    ]


@given(
    changes=requests(),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns"]),
    by=st.sampled_from([by for size in range(4) for by in combinations(NAMES, size)]),
)
def test_every_split_in_every_zone_sums_to_the_same(changes, zone: str, by: tuple[str, ...]) -> None:
    store = ledger(*changes)
    expected = NOTHING
    for change in changes:
        is_void = change.status == "void"
        tokens = (change.prompt_tokens, change.completion_tokens, change.charge_usd_nanos, change.cached_tokens)
        expected = added(expected, Sums(int(not is_void), int(is_void), *tokens))
    rows = asked(store, by, "all", zone)
    assert total(rows) == expected
    assert len(set(keys(rows))) == len(rows)
    months = {row.key[0] for row in asked(store, ("month",), "all", zone)}
    parts = [total(asked(store, by, month, zone)) for month in months]
    assert total([ReportRow((), part) for part in parts]) == expected
