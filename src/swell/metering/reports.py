"""Usage and money by group over a calendar period: what is asked of the ledger, and how the answers are added up.

Pure. A period is cut into slices, and the ledger is asked once for each: its months in its time zone, or the days where
days or hours are told apart. So days, months and years of every zone are exact, also of those whose hours begin at half
past. Days are the store's buckets in UTC; hours are where the zone's begin with those of UTC, and are asked for one by
one where they do not. How much of the ledger is read at once is the business of whoever answers (`questions`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from operator import add
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from swell.errors import UserError
from swell.metering.periods import DAY, HOUR, MONTH, YEAR, Period, following, period_at
from swell.ports.store import require_few_groups
from swell.state.records import UsageFilter
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

TIMES = (HOUR, DAY, MONTH)
ALL = "all"
MOST_SLICES = 20_000  # days of 54 years; beyond that a clock has lied
_WORDS = (HOUR, DAY, "week", MONTH, "quarter", YEAR)
_HOUR_SECONDS = 3600
_UTC = ("UTC", "Etc/UTC")  # whose days the store knows

Ask = Callable[[UsageFilter, Sequence[GroupColumn], Bucket | None], list[UsageGroup]]
"""`UsageStore.group_usage`, of the store itself or of a running server."""


class Sums(NamedTuple):
    """What requests add up to; the charge in nano-dollars. Cached tokens are part of the prompt's."""

    requests: int
    void_requests: int
    prompt_tokens: int
    completion_tokens: int
    charge_usd_nanos: int
    cached_tokens: int


NOTHING = Sums(0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One group: the values of what was grouped by, in that order, and its sums."""

    key: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the period that is asked for at once; `label` is its hour where it was asked for alone, else its day or
    month."""

    start_unix_ms: int
    end_unix_ms: int
    label: str
    bucket: Bucket | None = None


def named_period(text: str, zone: ZoneInfo, now_unix: float, span_ms: tuple[int, int] | None) -> Period:
    """`month`, `day`, `2026-11`, `2026-11-29`, `2026`, `all` …: words are the current one, `all` what the ledger spans.

    UserError where it is none of them.
    """
    if text == ALL:
        first, last = span_ms or (0, 0)
        start, end = period_at(DAY, zone, first / 1000), period_at(DAY, zone, last / 1000)
        return Period(start.start_unix, end.end_unix, ALL)
    if text in _WORDS:
        return period_at(text, zone, now_unix)
    match = re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", text)
    try:
        if match is None:
            raise ValueError
        year, month, day = match.groups()
        noon = datetime.combine(date(int(year), int(month or 1), int(day or 1)), time(12), zone)
        found = period_at(DAY if day else MONTH if month else YEAR, zone, noon.timestamp())
    except (ValueError, OverflowError):
        raise UserError(
            f"{text[:40]!r} is no period; give a month such as 2026-11, a day such as 2026-11-29, a year, "
            f"{', '.join(_WORDS)} for the current one, or {ALL}"
        ) from None
    if found.label != text:  # a day that the zone left out
        raise UserError(f"there was no {text} in {zone.key}")
    return found


def slices(
    period: Period, zone: ZoneInfo, span_ms: tuple[int, int] | None, *, length: str = DAY, hourly: bool = False
) -> Iterator[Slice]:
    """The period's days or months, as far as the ledger has anything in them; or its hours, or days that are asked by
    hours."""
    if span_ms is None:
        return
    start, end = period.start_unix, period.end_unix
    last = span_ms[1] / 1000
    at = max(start, span_ms[0] / 1000)
    for _ in range(MOST_SLICES):
        if at > last or (end is not None and at >= end):
            return
        whole = period_at(length, zone, at)
        stop = _end(whole) if end is None else min(_end(whole), end)
        begin = max(whole.start_unix, start)
        if hourly:
            yield from _hours(begin, stop, zone)
        else:
            yield Slice(_ms(begin), _ms(stop), whole.label)
        at = stop
    raise UserError(f"the ledger spans more than {MOST_SLICES:,} days; ask for one period after the other")


def _hours(begin: float, stop: float, zone: ZoneInfo) -> Iterator[Slice]:
    ends = (datetime.fromtimestamp(at, zone).utcoffset() for at in (begin, stop))
    if all(offset is not None and not offset.total_seconds() % _HOUR_SECONDS for offset in ends):
        yield Slice(_ms(begin), _ms(stop), "", "hour")
        return
    hour: Period | None = period_at(HOUR, zone, begin)
    while hour is not None and hour.start_unix < stop:
        yield Slice(_ms(max(begin, hour.start_unix)), _ms(min(stop, _end(hour))), hour.label)
        hour = following(HOUR, zone, hour)


def report(
    ask: Ask,
    where: UsageFilter,
    by: Sequence[str],
    period: Period,
    zone: ZoneInfo,
    span_ms: tuple[int, int] | None,
) -> list[ReportRow]:
    """The period's sums by every combination of `by` (columns of the ledger, hour, day, month), in their order.

    Raises UserError where there are more than the store's MAX_GROUPS.
    """
    columns: list[GroupColumn] = [name for name in by if name not in TIMES]  # type: ignore[misc]  # the rest are
    found: dict[tuple[str, ...], Sums] = {}
    for part in _asked_for(period, zone, span_ms, by):
        bounded = replace(where, since_unix_ms=part.start_unix_ms, until_unix_ms=part.end_unix_ms)
        for group in ask(bounded, columns, part.bucket):
            key = tuple(_value(name, group, part, zone) for name in by)
            found[key] = added(found.get(key, NOTHING), sums_of(group))
        require_few_groups(len(found))
    return [ReportRow(key, found[key]) for key in sorted(found, key=lambda key: _order(by, key))]


def _asked_for(period: Period, zone: ZoneInfo, span_ms: tuple[int, int] | None, by: Sequence[str]) -> Iterator[Slice]:
    if HOUR in by:
        return slices(period, zone, span_ms, hourly=True)
    if DAY not in by:
        return slices(period, zone, span_ms, length=MONTH)
    if zone.key not in _UTC:
        return slices(period, zone, span_ms)
    return (dataclasses.replace(part, bucket="day") for part in slices(period, zone, span_ms, length=MONTH))


def total(rows: Iterable[ReportRow]) -> Sums:
    """What all rows add up to."""
    whole = NOTHING
    for row in rows:
        whole = added(whole, row.sums)
    return whole


def sums_of(group: UsageGroup) -> Sums:
    """What a group of the store adds up."""
    return Sums(
        group.requests,
        group.void_requests,
        group.prompt_tokens,
        group.completion_tokens,
        group.charge_usd_nanos,
        group.cached_tokens,
    )


def added(one: Sums, other: Sums) -> Sums:
    """Sum by sum."""
    return Sums(*map(add, one, other))


def _value(name: str, group: UsageGroup, part: Slice, zone: ZoneInfo) -> str:
    if name not in TIMES:
        value: Any = getattr(group, name)
        return str(value)
    at = part.start_unix_ms if group.start_unix_ms is None else group.start_unix_ms
    if name == HOUR and part.label:
        return part.label
    return period_at(name, zone, at / 1000).label


def _order(by: Sequence[str], key: tuple[str, ...]) -> list[tuple[float, str]]:
    """Values as text, and hours as they passed: the one that comes twice has the greater offset first."""
    return [
        (datetime.fromisoformat(value).timestamp() if name == HOUR else 0.0, value)
        for name, value in zip(by, key, strict=True)
    ]


def _end(period: Period) -> float:
    if period.end_unix is None:
        raise ValueError("only periods that end can be cut")
    return period.end_unix


def _ms(unix: float) -> int:
    return round(unix * 1000)
