"""What reports ask of the ledger. Sums are made by the database: a month's million rows become a few hundred."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import ColumnElement, CompoundSelect, Connection, Row, Select, case, func, select, union_all

from swell.adapters.stores.columns import total
from swell.adapters.stores.database import Readable
from swell.adapters.stores.schema import arrived_at, usage
from swell.adapters.stores.usage_merge import TOKENS
from swell.adapters.stores.usage_rollups import SUMS, from_ledger, from_sums, rolled_range
from swell.ports import store as store_port
from swell.state.records import UsageFilter, UsageRecord, UsageTotal
from swell.state.usage import UsageStatus
from swell.state.usage_groups import BUCKET_MS, Bucket, GroupColumn, UsageGroup


class UsageReadRows:
    """`swell.ports.store.UsageReads` on SQL."""

    def __init__(self, database: Readable) -> None:
        self._database = database

    def list_usage(self, where: UsageFilter, limit: int) -> list[UsageRecord]:
        query = narrow(select(usage), where).order_by(arrived_at.desc().nulls_last(), usage.c.request_id.desc())
        with self._database.reading() as connection:
            return [_to_record(row) for row in connection.execute(query.limit(min(limit, store_port.MAX_LISTED)))]

    def total_usage(self, where: UsageFilter) -> list[UsageTotal]:
        sums = tuple(total(usage.c[name]) for name in TOKENS)
        query = narrow(select(usage.c.status, func.count(), *sums), where).group_by(usage.c.status)
        with self._database.reading() as connection:
            return [
                UsageTotal(
                    status=UsageStatus(status),
                    requests=requests,
                    prompt_tokens=prompt,
                    completion_tokens=done,
                    charge_usd_nanos=charge,
                    cached_tokens=cached,
                )
                for status, requests, prompt, done, charge, cached in connection.execute(query.order_by(usage.c.status))
            ]

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        with self._database.reading() as connection:
            found = found_in(connection, where, hourly=bucket == "hour").subquery()
            keys: list[ColumnElement[Any]] = [found.c[name] for name in by]
            if bucket is not None:
                keys.append((found.c.at - found.c.at % BUCKET_MS[bucket]).label("start_unix_ms"))
            is_void = found.c.status == "void"
            sums = (
                total(case((is_void, 0), else_=found.c.n)).label("requests"),
                total(case((is_void, found.c.n), else_=0)).label("void_requests"),
                *(total(found.c[name]).label(name) for name in SUMS),
            )
            query = select(*keys, *sums).group_by(*keys).order_by(*keys).having(func.count() > 0)
            rows = connection.execute(query.limit(store_port.MAX_GROUPS + 1)).all()
        store_port.require_few_groups(len(rows))
        return [_to_group(dict(row._mapping)) for row in rows]

    def usage_span(self) -> tuple[int, int] | None:
        with self._database.reading() as connection:
            first, last = (  # two queries, so that each reads one entry of the index
                connection.execute(select(end(arrived_at))).scalar() for end in (func.min, func.max)
            )
        return None if first is None or last is None else (first, last)


def narrow(query: Select[Any], where: UsageFilter) -> Select[Any]:
    """The query over what the filter lets through."""
    for column, wanted in (
        (usage.c.key_id, where.key_id),
        (usage.c.model, where.model),
        (usage.c.tenant, where.tenant),
        (usage.c.status, where.status),
        (usage.c.spool, where.spool),
    ):
        if wanted is not None:
            query = query.where(column == str(wanted))
    if where.since_unix_ms is not None:
        query = query.where(arrived_at >= where.since_unix_ms)
    return query if where.until_unix_ms is None else query.where(arrived_at < where.until_unix_ms)


def found_in(connection: Connection, where: UsageFilter, *, hourly: bool = False) -> Select[Any] | CompoundSelect[Any]:
    """What matches, from what is summed up where it can be, and from the ledger before and after that.

    Sums of a day are only used where `hourly` is not asked for.
    """
    known = rolled_range(connection, where)
    parts = (
        [where] if known is None else [replace(where, until_unix_ms=known[0]), replace(where, since_unix_ms=known[1])]
    )
    ledger = [narrow(from_ledger(), part).where(arrived_at.is_not(None)) for part in parts]
    return ledger[0] if known is None else union_all(*from_sums(connection, where, *known, hourly=hourly), *ledger)


def quick_charge(connection: Connection, where: UsageFilter) -> int:
    """Nano-dollars that the matching requests are charged, bounds of open ones included."""
    found = found_in(connection, where).subquery()
    return int(connection.execute(select(func.coalesce(func.sum(found.c.charge_usd_nanos), 0))).scalar_one())


def _to_record(row: Row[Any]) -> UsageRecord:
    fields = dict(row._mapping)
    del fields["spool"], fields["sent"]
    return UsageRecord(**fields | {"status": UsageStatus(fields["status"])})


def _to_group(fields: dict[str, Any]) -> UsageGroup:
    if "status" in fields:
        fields["status"] = UsageStatus(fields["status"])
    return UsageGroup(**fields)
