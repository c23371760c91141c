"""The ledger in Postgres is cut by months, so that an index stays small and a month can be dropped or moved as one.

What comes once must be refused a second time, and Postgres can only promise that for columns by which it cuts. So the
ledger is cut by request id, which begins with the month in which the request came: `req-202611-…`. The month of an id
is nothing to rely on otherwise, as a request may wait into the next one. When a request arrived is a column of its
own, and no read leaves out a partition because of its month; one without anything of the time that is asked for costs
one look into its index.

Partitions are made before their month begins. What has another id is in `usage_other`, and what had to go there
for want of a partition is moved when there is one.
"""

from datetime import UTC, datetime

from sqlalchemy import Connection

from swell.adapters.stores.schema import usage
from swell.state.usage import id_prefix

AHEAD = 2  # months that have a partition before they begin
OTHER = "usage_other"
FIRST_YEAR, LAST_YEAR = 2000, 9998  # beyond them a clock lies


def months_from(unix_ms: int) -> list[str]:
    """The month of UTC that a moment lies in and the AHEAD ones after it, as `202611`; none where no clock is right."""
    try:
        now = datetime.fromtimestamp(unix_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return []
    if not FIRST_YEAR <= now.year <= LAST_YEAR:
        return []
    return [_name(now.year * 12 + now.month - 1 + ahead) for ahead in range(AHEAD + 1)]


def make_partitions(connection: Connection, months: list[str]) -> list[str]:
    """Make what is missing of these months inside the caller's transaction; the months that were."""
    listed = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'usage'::regclass"
    known = set(connection.exec_driver_sql(listed).scalars())
    missing = [month for month in months if f"usage_{month}" not in known]
    for month in missing:
        _make(connection, month)
    return missing


def _make(connection: Connection, month: str) -> None:
    table, columns = f"usage_{month}", ", ".join(usage.c.keys())
    start, end = id_prefix(month), id_prefix(_name(int(month[:4]) * 12 + int(month[4:])))
    for statement in (
        f"CREATE TABLE {table} (LIKE usage INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
        f"WITH moved AS (DELETE FROM {OTHER} WHERE request_id >= '{start}' AND request_id < '{end}' RETURNING *)"  # noqa: S608 - a month
        f" INSERT INTO {table} ({columns}) SELECT {columns} FROM moved",
        f"ALTER TABLE usage ATTACH PARTITION {table} FOR VALUES FROM ('{start}') TO ('{end}')",
    ):
        connection.exec_driver_sql(statement.replace("%", "%%"))


def _name(months: int) -> str:
    return f"{months // 12:04}{months % 12 + 1:02}"
