"""The usage ledger as rows, one per request."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, func, select, update

from swell.adapters.stores.columns import total
from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import arrived_at, is_open, spool_positions, usage
from swell.adapters.stores.usage_merge import TOKENS, Values, enter
from swell.adapters.stores.usage_rollups import mark_stale, rolled_until
from swell.clock import give_way
from swell.ports.store import MAX_LISTED
from swell.state.records import (
    FinalisedSpool,
    SpoolPosition,
    SpoolUse,
    UsageChange,
    UsageFilter,
    UsageRecord,
    UsageTotal,
)
from swell.state.usage import UsageStatus

HOUR_MS = 3_600_000
PIECE_ROWS = 125  # entered without giving way: about half a millisecond
_RESERVED_AT, _SETTLED_AT = (UsageChange._fields.index(f"{name}_at_unix_ms") for name in ("reserved", "settled"))


class UsageRows:
    """`swell.ports.store.UsageStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def apply_usage(self, changes: Iterable[UsageChange], position: SpoolPosition) -> None:
        values = {"segment": position.segment, "byte_offset": position.offset}
        with self._database.writing() as connection:
            rolled, late = rolled_until(connection), set[int]()
            rows: Iterator[Values] = map(tuple, changes)
            while piece := list(islice(rows, PIECE_ROWS)):
                enter(connection, piece)
                for row in piece:
                    if (at := row[_RESERVED_AT] or row[_SETTLED_AT]) is not None and at < rolled:
                        late |= {at, row[_SETTLED_AT] or at}
                give_way()
            mark_stale(connection, late)
            move = insert(connection, spool_positions).values(spool=position.spool, **values)
            connection.execute(move.on_conflict_do_update(index_elements=["spool"], set_=values))

    def finalise_spool(self, spool: str, *, damaged: bool) -> FinalisedSpool:
        of_spool = and_(usage.c.spool == spool, is_open)
        with self._database.writing() as connection:
            void = 0
            if not damaged:
                unsent = update(usage).where(of_spool, usage.c.sent.is_(False))
                nothing = dict.fromkeys(TOKENS, 0)
                void = connection.execute(unsent.values(status="void", **nothing)).rowcount
            standing = connection.execute(select(func.count()).select_from(usage).where(of_spool)).scalar_one()
            return FinalisedSpool(reserved=standing, void=void)

    def spool_position(self, spool: str) -> SpoolPosition | None:
        query = select(spool_positions).where(spool_positions.c.spool == spool)
        with self._database.reading() as connection:
            row = connection.execute(query).first()
            return None if row is None else SpoolPosition(row.spool, row.segment, row.byte_offset)

    def forget_spools(self, existing: Sequence[str]) -> None:
        with self._database.writing() as connection:
            connection.execute(delete(spool_positions).where(spool_positions.c.spool.not_in(existing)))

    def recent_use(
        self, since_unix_ms: int, spool: str | None = None, *, without: Collection[str] = ()
    ) -> list[SpoolUse]:
        tokens = total(usage.c.prompt_tokens + usage.c.completion_tokens)
        query = (
            select(usage.c.key_id, usage.c.tenant, func.count(), tokens)
            .where(arrived_at >= since_unix_ms, usage.c.status != "void")
            .group_by(usage.c.key_id, usage.c.tenant)
            .order_by(usage.c.key_id, usage.c.tenant)
        )
        if spool is not None:
            query = query.where(usage.c.spool == spool)
        if without:
            query = query.where(usage.c.spool.not_in(without))
        with self._database.reading() as connection:
            return [
                SpoolUse(key_id=key_id, tenant=tenant, requests=requests, tokens=used)
                for key_id, tenant, requests, used in connection.execute(query)
            ]

    def list_usage(self, where: UsageFilter, limit: int) -> list[UsageRecord]:
        query = narrow(select(usage), where).order_by(arrived_at.desc().nulls_last(), usage.c.request_id.desc())
        with self._database.reading() as connection:
            return [_to_record(row) for row in connection.execute(query.limit(min(limit, MAX_LISTED)))]

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


def total_charge(connection: Connection, where: UsageFilter) -> int:
    """Nano-dollars that the matching requests are charged, bounds of open ones included."""
    query = narrow(select(func.coalesce(func.sum(usage.c.charge_usd_nanos), 0)), where)
    return int(connection.execute(query).scalar_one())


def hourly_charges(connection: Connection, where: UsageFilter, first_unix_ms: int) -> dict[int, int]:
    """Nano-dollars by hours since `first_unix_ms`, before which `where` has nothing; hours without any are left out."""
    hour = ((arrived_at - first_unix_ms) // HOUR_MS).label("hour")
    query = narrow(select(hour, total(usage.c.charge_usd_nanos)), where).group_by(hour)
    return {int(hours): int(charge) for hours, charge in connection.execute(query)}


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


def _to_record(row: Row[Any]) -> UsageRecord:
    fields = dict(row._mapping)
    del fields["spool"], fields["sent"]
    return UsageRecord(**fields | {"status": UsageStatus(fields["status"])})
