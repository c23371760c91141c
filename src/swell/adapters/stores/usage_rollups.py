"""Sums of the ledger by the hour, so that a month is added up from some thousand rows instead of all requests.

Time is summed up in slices up to `rolled_until`, never beyond the oldest request of a living worker's spool whose
outcome is still to come: what is before that changes no more. What does change it nevertheless (a spool that is read
late) marks its hour as stale, in the same transaction; a stale hour is added up again. Only whole hours before the
first stale one are taken from the sums, everything else from the ledger itself: the answer is always the ledger's.
"""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, delete, func, literal, select

from swell.adapters.stores.columns import total
from swell.adapters.stores.database import insert
from swell.adapters.stores.schema import (
    arrived_at,
    counters,
    is_open,
    spool_positions,
    stale_hours,
    usage,
    usage_hours,
)
from swell.state.records import UsageFilter
from swell.state.usage_groups import GROUP_COLUMNS

HOUR_MS = 3_600_000
SLICE_MS = 300_000  # summed up at once: a busy server's five minutes take some tens of milliseconds
LAG_MS = 60_000  # requests are in the ledger a moment after they came
SUMS = ("prompt_tokens", "completion_tokens", "charge_usd_nanos")
_COUNTER = "rolled_until_unix_ms"


def rolled_until(connection: Connection) -> int:
    """Unix milliseconds before which all is summed up, but for stale hours; 0 at first."""
    query = select(counters.c.value).where(counters.c.name == _COUNTER)
    return int(connection.execute(query).scalar() or 0)


def mark_stale(connection: Connection, moments: Iterable[int]) -> None:
    """Something arrived at these moments that was not summed up with them."""
    for hour in {moment - moment % HOUR_MS for moment in moments}:
        connection.execute(insert(connection, stale_hours).values(start_unix_ms=hour).on_conflict_do_nothing())


def roll(connection: Connection, now_unix_ms: int) -> bool:
    """Sum up one more slice, or a stale hour anew; whether there was anything to do."""
    until, settled = rolled_until(connection), _settled_until(connection, now_unix_ms)
    stale = connection.execute(select(func.min(stale_hours.c.start_unix_ms))).scalar()
    if stale is not None:
        if settled < min(stale + HOUR_MS, until):  # what is still open in it would change it again, unseen
            return False
        connection.execute(delete(usage_hours).where(usage_hours.c.start_unix_ms == stale))
        connection.execute(delete(stale_hours).where(stale_hours.c.start_unix_ms == stale))
        _add(connection, stale, min(stale + HOUR_MS, until))
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
    _move(connection, end)
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


def from_sums(where: UsageFilter, start: int, end: int) -> Select[Any]:
    """The sums of those hours, in the columns of `from_ledger`."""
    query = select(
        *(usage_hours.c[name] for name in GROUP_COLUMNS), usage_hours.c.start_unix_ms.label("at"),
        usage_hours.c.requests.label("n"), *(usage_hours.c[name] for name in SUMS),
    ).where(usage_hours.c.start_unix_ms >= start, usage_hours.c.start_unix_ms < end)  # fmt: skip
    for name in ("key_id", "model", "tenant", "status"):
        wanted = getattr(where, name)
        if wanted is not None:
            query = query.where(usage_hours.c[name] == str(wanted))
    return query


def from_ledger() -> Select[Any]:
    """Every request as a sum of one."""
    return select(
        *(usage.c[name] for name in GROUP_COLUMNS), arrived_at.label("at"), literal(1).label("n"),
        *(usage.c[name] for name in SUMS),
    )  # fmt: skip


def _settled_until(connection: Connection, now_unix_ms: int) -> int:
    living = select(spool_positions.c.spool)
    # + 0: Postgres would else look for the first open request by walking through all that ever arrived.
    query = select(func.min(arrived_at + 0)).where(is_open, usage.c.spool.in_(living))
    oldest = connection.execute(query).scalar()
    until = now_unix_ms - LAG_MS
    return until if oldest is None else min(until, oldest)


def _add(connection: Connection, start: int, end: int) -> None:
    """Add what arrived from `start` on and before `end` to its hour, which both are in."""
    hour = start - start % HOUR_MS
    columns = [usage.c[name] for name in GROUP_COLUMNS]
    sums = [func.count().label("requests"), *(total(usage.c[name]).label(name) for name in SUMS)]
    found = connection.execute(
        select(*columns, *sums).where(arrived_at >= start, arrived_at < end).group_by(*columns)
    ).all()
    added = insert(connection, usage_hours)
    merge = added.on_conflict_do_update(
        index_elements=["start_unix_ms", *GROUP_COLUMNS],
        set_={name: usage_hours.c[name] + added.excluded[name] for name in ("requests", *SUMS)},
    )
    if found:
        connection.execute(merge, [{"start_unix_ms": hour, **row._mapping} for row in found])


def _move(connection: Connection, until: int) -> None:
    statement = insert(connection, counters).values(name=_COUNTER, value=until)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": until}))
