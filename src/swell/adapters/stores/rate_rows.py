"""Posted rates as rows that are only added."""

from msgspec.structs import asdict
from sqlalchemy import select

from swell.adapters.stores.audit_rows import insert_audit
from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import posted_rates
from swell.ports.store import MAX_LISTED
from swell.state.posted_rates import PostedRate
from swell.state.records import AuditEntry


class RateRows:
    """`swell.ports.store.RateStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def post_rate(self, rate: PostedRate, audit: AuditEntry) -> PostedRate:
        place = (posted_rates.c.model == rate.model) & (posted_rates.c.start_unix_ms == rate.start_unix_ms)
        with self._database.writing() as connection:
            statement = insert(connection, posted_rates).values(asdict(rate)).on_conflict_do_nothing()
            if connection.execute(statement.returning(posted_rates.c.model)).first() is None:
                return PostedRate(**connection.execute(select(posted_rates).where(place)).one()._mapping)
            insert_audit(connection, audit)
        return rate

    def list_rates(self, model: str | None, limit: int) -> list[PostedRate]:
        query = select(posted_rates).order_by(posted_rates.c.start_unix_ms.desc(), posted_rates.c.model.desc())
        if model is not None:
            query = query.where(posted_rates.c.model == model)
        with self._database.reading() as connection:
            return [PostedRate(**row._mapping) for row in connection.execute(query.limit(min(limit, MAX_LISTED)))]
