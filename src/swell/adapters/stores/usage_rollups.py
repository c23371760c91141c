"""Sums of the ledger by the hour and the day, so that a month is added up from some thousand rows and not all requests.

Time is summed up in slices up to `rolled_until`, never beyond the oldest request of a living worker's spool whose
outcome is still to come: what is before that changes no more. What does change it nevertheless (a spool that is read
late) marks its hour as stale, in the same transaction; a stale hour is added up again. Only whole hours before the
first stale one are taken from the sums, everything else from the ledger itself: the answer is always the ledger's.

Hours are added to their days, once each and in order, up to `days_until`. A stale hour that was in its day already has
the whole day added up again with it, and as days after a stale hour are not used, none has to be marked as stale.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, func, literal, select

from swell.adapters.stores.columns import total
from swell.adapters.stores.database import insert
from swell.adapters.stores.schema import (
    arrived_at,
    counters,
    is_open,
    spool_positions,
    stale_hours,
    usage,
    usage_days,
    usage_hours,
)
from swell.state.records import UsageFilter
from swell.state.usage_groups import GROUP_COLUMNS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
SLICE_MS = 300_000  # summed up at once: a busy server's five minutes take some tens of milliseconds
LAG_MS = 60_000  # requests are in the ledger a moment after they came
SUMS = ("prompt_tokens", "completion_tokens", "charge_usd_nanos", "cached_tokens")
_ROLLED, _DAYS = "rolled_until_unix_ms", "days_until_unix_ms"


def rolled_until(connection: Connection) -> int:
    """Unix milliseconds before which all is summed up, but for stale hours; 0 at first."""
    return _moment(connection, _ROLLED)


def mark_stale(connection: Connection, moments: Iterable[int]) -> None:
    """Something arrived at these moments that was not summed up with them."""
    for hour in {moment - moment % HOUR_MS for moment in moments}:
        connection.execute(insert(connection, stale_hours).values(start_unix_ms=hour).on_conflict_do_nothing())


def roll(connection: Connection, now_unix_ms: int) -> bool:
    """Sum up one more slice, a stale hour anew, or an hour into its day; whether there was anything to do."""
    until, settled = rolled_until(connection), _settled_until(connection, now_unix_ms)
    stale = connection.execute(select(func.min(stale_hours.c.start_unix_ms))).scalar()
    if stale is not None:
        if settled < min(stale + HOUR_MS, until):  # what is still open in it would change it again, unseen
            return False
        connection.execute(delete(usage_hours).where(usage_hours.c.start_unix_ms == stale))
        connection.execute(delete(stale_hours).where(stale_hours.c.start_unix_ms == stale))
        _add(connection, stale, min(stale + HOUR_MS, until))
        if stale < _moment(connection, _DAYS):
            _add_day_again(connection, stale - stale % DAY_MS)
        return True
    if _moment(connection, _DAYS) + HOUR_MS <= until:
        _add_to_day(connection, until)
        return True
    if until + SLICE_MS > settled:
        return False
    first = connection.execute(select(func.min(arrived_at)).where(arrived_at >= until)).scalar()
    # Time without requests is passed over at once.
    start = until if first is None else max(until, first - first % SLICE_MS)
    end = settled - settled % SLICE_MS if first is None else start + SLICE_MS
    if end > settled:
        end = settled - settled % SLICE_MS
    elif first is not None:
        _add(connection, start, end)
    _move(connection, _ROLLED, end)
    return True


def rolled_range(connection: Connection, where: UsageFilter) -> tuple[int, int] | None:
    """The whole hours inside the filter's bounds that can be taken from the sums; None where there are none."""
    if where.spool is not None:
        return None
    end = rolled_until(connection)
    stale = connection.execute(select(func.min(stale_hours.c.start_unix_ms))).scalar()
    end = min(end, stale if stale is not None else end, where.until_unix_ms if where.until_unix_ms is not None else end)
    start = -(-(where.since_unix_ms or 0) // HOUR_MS) * HOUR_MS
    end -= end % HOUR_MS
    return (start, end) if start < end else None


def from_sums(connection: Connection, where: UsageFilter, start: int, end: int, *, hourly: bool) -> list[Select[Any]]:
    """The sums of those hours, in the columns of `from_ledger`; of whole days at once unless `hourly`."""
    first = -(-start // DAY_MS) * DAY_MS
    last = min(end, _moment(connection, _DAYS))
    last -= last % DAY_MS
    if hourly or first >= last:
        return [_summed(usage_hours, where, start, end)]
    hours = [(begin, stop) for begin, stop in ((start, first), (last, end)) if begin < stop]
    return [_summed(usage_days, where, first, last), *(_summed(usage_hours, where, *part) for part in hours)]


def from_ledger() -> Select[Any]:
    """Every request as a sum of one."""
    return select(
        *(usage.c[name] for name in GROUP_COLUMNS), arrived_at.label("at"), literal(1).label("n"),
        *(usage.c[name] for name in SUMS),
    )  # fmt: skip


def _summed(table: Table, where: UsageFilter, start: int, end: int) -> Select[Any]:
    query = select(
        *(table.c[name] for name in GROUP_COLUMNS), table.c.start_unix_ms.label("at"),
        table.c.requests.label("n"), *(table.c[name] for name in SUMS),
    ).where(table.c.start_unix_ms >= start, table.c.start_unix_ms < end)  # fmt: skip
    for name in ("key_id", "model", "tenant", "status"):
        wanted = getattr(where, name)
        if wanted is not None:
            query = query.where(table.c[name] == str(wanted))
    return query


def _settled_until(connection: Connection, now_unix_ms: int) -> int:
    living = connection.execute(select(spool_positions.c.spool)).scalars().all()
    # + 0: Postgres would else look for the first open request by walking through all that ever arrived.
    query = select(func.min(arrived_at + 0)).where(is_open, usage.c.spool.in_(living))
    oldest = connection.execute(query).scalar() if living else None
    until = now_unix_ms - LAG_MS
    return until if oldest is None else min(until, oldest)


def _add(connection: Connection, start: int, end: int) -> None:
    """Add what arrived from `start` on and before `end` to its hour, which both are in."""
    columns = [usage.c[name] for name in GROUP_COLUMNS]
    sums = [func.count().label("requests"), *(total(usage.c[name]).label(name) for name in SUMS)]
    found = select(*columns, *sums).where(arrived_at >= start, arrived_at < end).group_by(*columns)
    _merge(connection, usage_hours, start - start % HOUR_MS, found)


def _add_to_day(connection: Connection, until: int) -> None:
    """Add the next hour that has anything, and lies before `until` altogether, to its day."""
    at = _moment(connection, _DAYS)
    hour = connection.execute(
        select(func.min(usage_hours.c.start_unix_ms)).where(usage_hours.c.start_unix_ms >= at)
    ).scalar()
    if hour is None or hour + HOUR_MS > until:
        _move(connection, _DAYS, until - until % HOUR_MS)
        return
    _merge(connection, usage_days, hour - hour % DAY_MS, _hours_between(hour, hour + HOUR_MS))
    _move(connection, _DAYS, hour + HOUR_MS)


def _add_day_again(connection: Connection, day: int) -> None:
    connection.execute(delete(usage_days).where(usage_days.c.start_unix_ms == day))
    end = min(day + DAY_MS, _moment(connection, _DAYS))
    _merge(connection, usage_days, day, _hours_between(day, end))


def _hours_between(start: int, end: int) -> Select[Any]:
    columns = [usage_hours.c[name] for name in GROUP_COLUMNS]
    sums = [total(usage_hours.c[name]).label(name) for name in ("requests", *SUMS)]
    hours = usage_hours.c.start_unix_ms
    return select(*columns, *sums).where(hours >= start, hours < end).group_by(*columns)


def _merge(connection: Connection, table: Table, start_unix_ms: int, found: Select[Any]) -> None:
    """Add sums to those that the table has of a time."""
    names = ["start_unix_ms", *GROUP_COLUMNS]
    rows = found.subquery()
    columns = [literal(start_unix_ms, table.c.start_unix_ms.type), *rows.c]
    # A condition, as SQLite could not tell ON CONFLICT from a join otherwise.
    added = insert(connection, table).from_select(
        [*names, "requests", *SUMS], select(*columns).where(rows.c.requests > 0)
    )
    merge = added.on_conflict_do_update(
        index_elements=names, set_={name: table.c[name] + added.excluded[name] for name in ("requests", *SUMS)}
    )
    connection.execute(merge)


def _moment(connection: Connection, counter: str) -> int:
    query = select(counters.c.value).where(counters.c.name == counter)
    return int(connection.execute(query).scalar() or 0)


def _move(connection: Connection, counter: str, until: int) -> None:
    statement = insert(connection, counters).values(name=counter, value=until)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": until}))
