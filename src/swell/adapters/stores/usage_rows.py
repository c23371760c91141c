"""The usage ledger as rows, one per request."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection, and_, delete, func, select, update

from swell.adapters.stores.columns import total
from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import arrived_at, is_open, spool_positions, usage
from swell.adapters.stores.usage_merge import TOKENS, Values, enter
from swell.adapters.stores.usage_reads import UsageReadRows, narrow
from swell.adapters.stores.usage_rollups import mark_stale, roll, rolled_until
from swell.clock import give_way
from swell.ports.store import UsageReader
from swell.state.records import FinalisedSpool, SpoolPosition, SpoolUse, UsageChange, UsageFilter

HOUR_MS = 3_600_000
PIECE_ROWS = 125  # entered without giving way: about half a millisecond
_RESERVED_AT, _SETTLED_AT = (UsageChange._fields.index(f"{name}_at_unix_ms") for name in ("reserved", "settled"))


class UsageRows(UsageReadRows):
    """`swell.ports.store.UsageStore` on SQL."""

    _database: Database

    def __init__(self, database: Database) -> None:
        super().__init__(database)

    def apply_usage(self, changes: Iterable[UsageChange], position: SpoolPosition) -> None:
        values = {"segment": position.segment, "byte_offset": position.offset, "gateway": position.gateway}
        values |= {"given_up": 0}  # it speaks
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
            return None if row is None else SpoolPosition(row.spool, row.segment, row.byte_offset, row.gateway)

    def forget_spools(self, existing: Sequence[str], gateway: str = "") -> None:
        of_gateway = spool_positions.c.gateway == gateway
        with self._database.writing() as connection:
            connection.execute(delete(spool_positions).where(of_gateway, spool_positions.c.spool.not_in(existing)))

    def gateway_spools(self, *, given_up: bool = False) -> dict[str, str]:
        columns = spool_positions.c
        query = select(columns.spool, columns.gateway).where(columns.gateway != "", columns.given_up == int(given_up))
        with self._database.reading() as connection:
            return {row.spool: row.gateway for row in connection.execute(query)}

    def give_up_spools(self, gateway: str) -> None:
        with self._database.writing() as connection:
            connection.execute(update(spool_positions).where(spool_positions.c.gateway == gateway).values(given_up=1))

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

    def roll_usage(self, now_unix_ms: int) -> bool:
        with self._database.writing() as connection:
            return roll(connection, now_unix_ms)

    def reader(self) -> UsageReader | None:
        return None


def total_charge(connection: Connection, where: UsageFilter) -> int:
    """Nano-dollars that the matching requests are charged, bounds of open ones included."""
    query = narrow(select(func.coalesce(func.sum(usage.c.charge_usd_nanos), 0)), where)
    return int(connection.execute(query).scalar_one())


def hourly_charges(connection: Connection, where: UsageFilter, first_unix_ms: int) -> dict[int, int]:
    """Nano-dollars by hours since `first_unix_ms`, before which `where` has nothing; hours without any are left out."""
    hour = ((arrived_at - first_unix_ms) // HOUR_MS).label("hour")
    query = narrow(select(hour, total(usage.c.charge_usd_nanos)), where).group_by(hour)
    return {int(hours): int(charge) for hours, charge in connection.execute(query)}
