"""Numbers and moments out of the bytes of a CSV, for all rows at once.

Cells are spans `starts[i]:ends[i]` of one buffer, which has PADDING bytes before the first cell and after the last.
What has an odd form is left to the caller as `odd`, to be read one by one; nothing is guessed here.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

PADDING = 48  # bytes; no cell that is read here is longer

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
Flags = NDArray[np.bool_]

_EXACT_DIGITS = 15  # a float holds every integer of so many digits exactly
_DATE_AND_TIME = 19  # characters of 2023-11-16 18:17:03
_ZERO, _DOT, _PLUS, _MINUS, _COLON, _SPACE, _T, _Z = b"0.+-: TZ"
_SECOND = 1_000_000_000
_MONTH_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0])  # by month; of no leap year


def decimals(buffer: Bytes, starts: Places, ends: Places) -> tuple[NDArray[np.float64], Flags]:
    """Cells such as `417` and `61.114`, correctly rounded, and which of them have another form."""
    widths = ends - starts
    width = int(min(widths.max(initial=1), _EXACT_DIGITS + 1)) or 1
    cells = sliding_window_view(buffer, width)[ends - width]
    inside = np.arange(width) >= width - widths[:, None]
    digits = cells - np.uint8(_ZERO)
    is_dot = inside & (cells == _DOT)
    digits[~inside | is_dot] = 0
    dots = np.count_nonzero(is_dot, axis=1)
    used = widths - dots
    odd = (digits > 9).any(axis=1) | (dots > 1) | (used < 1) | (used > _EXACT_DIGITS) | (widths > width)
    powers = 10.0 ** np.arange(width - 1, -1, -1)
    values = digits.astype(np.float64) @ powers
    if dots.any():
        place = np.where(dots > 0, width - 1 - np.argmax(is_dot, axis=1), 0)  # of the dot, from the right
        is_left = np.arange(width)[::-1] > place[:, None]
        left, right = ((digits * side).astype(np.float64) @ powers for side in (is_left, ~is_left))
        # The dot took a decimal place of the digits at its left. Dividing the whole by a power of ten rounds once.
        values = np.where(dots > 0, (left / 10 + right) / 10.0**place, values)
    return values, odd


def instants(buffer: Bytes, starts: Places, ends: Places) -> tuple[NDArray[np.int64], Flags]:
    """Moments such as `2023-11-16 18:17:03.9799600` or `2024-05-12 00:00:00.12+00:00`, as ns since 1970 in UTC.

    Without an offset a moment is taken as UTC. Also returns which cells have another form.
    """
    widths = ends - starts
    width = int(min(max(widths.max(initial=0), _DATE_AND_TIME), PADDING))
    cells = sliding_window_view(buffer, width)[starts].T.copy()  # by character: each then is contiguous
    cells[np.arange(width)[:, None] >= widths] = 0
    digits = cells - np.uint8(_ZERO)
    seconds, odd = _date_and_time(cells, digits)
    nanoseconds, offset, tail_odd = _tail(cells[_DATE_AND_TIME:], digits[_DATE_AND_TIME:], widths - _DATE_AND_TIME)
    return (seconds - offset) * _SECOND + nanoseconds, odd | tail_odd | (widths > width)


def _date_and_time(cells: Bytes, digits: Bytes) -> tuple[NDArray[np.int64], Flags]:
    def number(*places: int) -> NDArray[np.int32]:
        value = np.zeros(cells.shape[1], dtype=np.int32)
        for place in places:
            value = value * np.int32(10) + digits[place]
        return value

    odd = (cells[4] != _MINUS) | (cells[7] != _MINUS) | (cells[13] != _COLON) | (cells[16] != _COLON)
    odd |= (cells[10] != _SPACE) & (cells[10] != _T)
    for place in (0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18):
        odd |= digits[place] > 9
    year, month, day = number(0, 1, 2, 3), number(5, 6), number(8, 9)
    hour, minute, second = number(11, 12), number(14, 15), number(17, 18)
    odd |= (month < 1) | (month > 12) | (day < 1) | (day > 31) | (hour > 23) | (minute > 59) | (second > 59)
    odd |= (day > 28) & (day > _MONTH_DAYS[np.minimum(month, 13)] + ((month == 2) & _is_leap(year)))
    in_day = (hour * np.int32(60) + minute) * np.int32(60) + second
    return _days(year, month, day) * 86_400 + in_day, odd


def _is_leap(year: NDArray[np.int32]) -> Flags:
    return np.asarray((year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0)), dtype=np.bool_)


def _days(year: NDArray[np.int32], month: NDArray[np.int32], day: NDArray[np.int32]) -> NDArray[np.int64]:
    """Since 1970-01-01. With years that begin in March, the leap day is the last of its year (H. Hinnant)."""
    shifted = year - (month <= 2)
    day_of_year = (153 * (month + np.where(month > 2, -3, 9)) + 2) // 5 + day - 1
    days = shifted * 365 + shifted // 4 - shifted // 100 + shifted // 400 + day_of_year - 719_468
    return days.astype(np.int64)


def _tail(cells: Bytes, digits: Bytes, widths: Places) -> tuple[NDArray[np.int64], NDArray[np.int64], Flags]:
    """What follows the seconds: nanoseconds, the offset from UTC in seconds, and which rows are odd."""
    count = cells.shape[1]
    nanoseconds, used = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    if len(cells):
        running = cells[0] == _DOT
        used += running
        for place in range(1, min(len(cells), 10)):
            running = running & (digits[place] <= 9)
            nanoseconds += np.where(running, digits[place], 0) * np.int64(10 ** (9 - place))
            used += running
    offset = np.zeros(count, dtype=np.int64)
    odd = widths < 0
    rest = widths - used
    zoned = np.flatnonzero(rest > 0)
    if len(zoned):
        offset[zoned], odd[zoned] = _offsets(cells, digits, used[zoned], rest[zoned], zoned)
    return nanoseconds, offset, odd


def _offsets(cells: Bytes, digits: Bytes, at: Places, rest: Places, rows: Places) -> tuple[NDArray[np.int64], Flags]:
    """Offsets from UTC in seconds: `Z`, or `+02:00`, whose sign stands at `at`."""
    sign = cells[at, rows]
    is_zulu = (rest == 1) & (sign == _Z)
    is_offset = (rest == 6) & ((sign == _PLUS) | (sign == _MINUS))
    offset = np.zeros(len(rows), dtype=np.int64)
    chosen = np.flatnonzero(is_offset)
    if len(chosen):
        place, row = at[chosen], rows[chosen]
        parts = [digits[place + step, row].astype(np.int64) for step in (1, 2, 4, 5)]
        bad = (cells[place + 3, row] != _COLON) | (np.max(parts, axis=0) > 9)
        value = (parts[0] * 10 + parts[1]) * 3600 + (parts[2] * 10 + parts[3]) * 60
        offset[chosen] = np.where(sign[chosen] == _MINUS, -value, value)
        is_offset[chosen] &= ~bad
    return offset, ~(is_zulu | is_offset)
