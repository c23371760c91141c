"""Reading all cells at once gives what reading each alone gives, or says that a cell is odd."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from swell.simulator.traffic.numerals import PADDING, Bytes, Places, decimals, instants

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

numbers = st.one_of(
    st.integers(0, 10**15 - 1).map(str),
    st.decimals(0, 10**9, places=5).map(str),
    st.from_regex(r"[0-9]{0,7}\.?[0-9]{0,8}", fullmatch=True),
    st.text("0123456789.-+e x", max_size=20),
)
offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.one_of(st.none(), offsets))


def spans(cells: list[str]) -> tuple[Bytes, Places, Places]:
    text = b"\0" * PADDING + ",".join(cells).encode() + b"\n" + b"\0" * PADDING
    widths = np.array([len(cell.encode()) for cell in cells], dtype=np.int64)
    starts: NDArray[np.int64] = PADDING + np.cumsum(widths + 1) - widths - 1
    return np.frombuffer(text, dtype=np.uint8), starts, starts + widths


@given(st.lists(numbers, min_size=1, max_size=20))
def test_numbers_are_what_float_makes_of_them(cells: list[str]) -> None:
    values, odd = decimals(*spans(cells))
    for cell, value, is_odd in zip(cells, values.tolist(), odd.tolist(), strict=True):
        assert is_odd or value == float(cell)
        plain = 0 < len(cell) <= 15 and cell.isascii() and cell.replace(".", "", 1).isdigit()
        assert is_odd != plain or len(cell.replace(".", "")) > 15 or len(cell) > 15


@given(
    st.lists(
        st.tuples(moments, st.sampled_from(" T"), st.sampled_from(["auto", "seconds", "milliseconds"])), min_size=1
    )
)
def test_moments_are_what_datetime_makes_of_them(drawn: list[tuple[datetime, str, str]]) -> None:
    cells = [moment.isoformat(sep, how) for moment, sep, how in drawn]
    values, odd = instants(*spans(cells))
    for cell, value, is_odd in zip(cells, values.tolist(), odd.tolist(), strict=True):
        moment = datetime.fromisoformat(cell)
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH
        assert not is_odd
        assert value == since // timedelta(microseconds=1) * 1000


@given(st.lists(st.text("0123456789-: .T+Z", max_size=60), min_size=1))
def test_what_is_no_moment_is_odd(cells: list[str]) -> None:
    _, odd = instants(*spans(cells))
    for cell, is_odd in zip(cells, odd.tolist(), strict=True):
        assert is_odd or len(cell) >= 19


def test_fractions_to_the_nanosecond() -> None:
    cells = ["1970-01-01 00:00:00.1", "1970-01-01 00:00:01.9799600", "1970-01-01 00:00:02.123456789Z"]
    values, odd = instants(*spans(cells))
    assert values.tolist() == [100_000_000, 1_979_960_000, 2_123_456_789]
    assert not odd.any()


def test_days_that_no_month_has_are_odd() -> None:
    days = [
        "2023-02-29",
        "2024-02-29",
        "2100-02-29",
        "2000-02-29",
        "2023-04-31",
        "2023-12-31",
        "2023-00-10",
        "2023-13-01",
    ]
    _, odd = instants(*spans([f"{day} 12:00:00" for day in days]))
    assert odd.tolist() == [True, False, True, False, True, False, True, True]
