"""Sums over the ledger by group, made by the database: a month's million rows become a few hundred."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, case, func, select

from swell.adapters.stores.database import Database
from swell.adapters.stores.schema import arrived_at, usage
from swell.adapters.stores.usage_rows import narrow
from swell.ports import store as store_port
from swell.state.records import UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import BUCKET_MS, Bucket, GroupColumn, UsageGroup

_SUMS = ("prompt_tokens", "completion_tokens", "charge_usd_nanos")


class UsageGroupRows:
    """The grouped reads of `swell.ports.store.UsageStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        keys: list[ColumnElement[Any]] = [usage.c[name] for name in by]
        if bucket is not None:
            keys.append((arrived_at - arrived_at % BUCKET_MS[bucket]).label("start_unix_ms"))
        is_void = usage.c.status == "void"
        sums = (
            func.coalesce(func.sum(case((is_void, 0), else_=1)), 0).label("requests"),
            func.coalesce(func.sum(case((is_void, 1), else_=0)), 0).label("void_requests"),
            *(func.coalesce(func.sum(usage.c[name]), 0).label(name) for name in _SUMS),
        )
        query = narrow(select(*keys, *sums), where).where(arrived_at.is_not(None))
        query = query.group_by(*keys).order_by(*keys).having(func.count() > 0).limit(store_port.MAX_GROUPS + 1)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        store_port.require_few_groups(len(rows))
        return [_to_group(dict(row._mapping)) for row in rows]

    def usage_span(self) -> tuple[int, int] | None:
        query = select(arrived_at).where(arrived_at.is_not(None)).limit(1)  # each reads one entry of the index
        with self._database.reading() as connection:
            first = connection.execute(query.order_by(arrived_at)).scalar()
            last = connection.execute(query.order_by(arrived_at.desc())).scalar()
        return None if first is None or last is None else (first, last)


def _to_group(fields: dict[str, Any]) -> UsageGroup:
    if "status" in fields:
        fields["status"] = UsageStatus(fields["status"])
    return UsageGroup(**fields)
