"""Reports on a real Postgres go by a connection of their own: whatever runs there, the store is free."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

import pytest

from swell.adapters.stores import postgres_connection
from swell.adapters.stores.postgres import PostgresStore
from swell.adapters.stores.postgres_database import PostgresDatabase
from swell.adapters.stores.postgres_location import locate
from swell.adapters.stores.postgres_reader import PostgresReading
from swell.errors import AtCapacity, StateError
from swell.ports.store import UsageReader
from swell.state.budgets import BudgetLease, BudgetLimit
from swell.state.records import SpoolPosition, UsageFilter
from swell.state.usage_groups import UsageGroup
from swell.testing.postgres_server import PostgresServer
from swell.testing.store_suite import audit_entry, key_record, usage_change

pytestmark = pytest.mark.services

Open = Callable[[str], PostgresStore]
Standing = Callable[[UsageReader], AbstractContextManager[Future[list[UsageGroup]]]]
HOUR_MS = 3_600_000
SECONDS = 10.0
EVERYTHING = UsageFilter()
LIMIT = BudgetLimit("budget:tenant:search:*:day:0", "b", "tenant", "search", 10**9, "day", 0, None)


@pytest.fixture
def store(database: str, open_database: Open) -> PostgresStore:
    """With two hours of which the first is summed up, so that reports need `usage_hours` and nothing else does."""
    store = open_database(database)
    rows = [usage_change(f"r{hour}", "pair", reserved_at_unix_ms=hour * HOUR_MS) for hour in (1, 2)]
    store.apply_usage(rows, SpoolPosition("w", 1, 1))
    while store.roll_usage(2 * HOUR_MS + 60_000):
        pass
    return store


@pytest.fixture
def reader(store: PostgresStore) -> Iterator[UsageReader]:
    reader = store.reader()
    yield reader
    reader.close()


@pytest.fixture
def standing(postgres: PostgresServer, database: str, eventually: Callable[..., object]) -> Standing:
    """`standing(reader)`: a report in the middle of its statement, as what it has to read is locked until the end."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %(name)s"

    @contextmanager
    def report(reader: UsageReader) -> Iterator[Future[list[UsageGroup]]]:
        with ThreadPoolExecutor(1) as threads, postgres.admin(database) as other, other.transaction():
            other.execute("LOCK TABLE usage_hours")
            asked = threads.submit(reader.group_usage, EVERYTHING, ("tenant",))
            eventually(lambda: postgres.run(waits, name=database) == [(1,)], seconds=SECONDS, what="the report runs")
            yield asked

    return report


def test_the_store_takes_usage_leases_and_keys_while_a_report_runs(
    store: PostgresStore, reader: UsageReader, standing: Standing
) -> None:
    store.open_budgets([LIMIT])
    with standing(reader) as report:
        late = usage_change("new", "pair", reserved_at_unix_ms=3 * HOUR_MS)
        store.apply_usage([late], SpoolPosition("w", 1, 2))
        store.put_leases([BudgetLease(LIMIT.name, "w", 1000)])
        store.insert_key(key_record(), audit_entry())
        store.finalise_spool("other", damaged=False)
        assert store.settle_leases("w")
        assert store.next_epoch() == 1
        assert not report.done()
    (group,) = report.result(SECONDS)
    assert group.requests == 2, "as of the moment at which it began"
    assert sum(each.requests for each in reader.group_usage(EVERYTHING)) == 3


def test_an_interrupted_report_ends_and_the_next_one_runs(reader: UsageReader, standing: Standing) -> None:
    with standing(reader) as report:
        reader.interrupt()
        with pytest.raises(AtCapacity, match="was ended before it was done; ask again"):
            report.result(SECONDS)
    assert sum(each.requests for each in reader.group_usage(EVERYTHING)) == 2


def test_a_report_that_takes_too_long_is_ended_by_postgres(
    store: PostgresStore, standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "STATEMENT_SECONDS", 1)
    reader = store.reader()
    with standing(reader) as report, pytest.raises(StateError, match="ask for a shorter period"):
        report.result(SECONDS)
    reader.close()


def test_a_reader_cannot_write_and_has_no_more_helpers_than_it_may(postgres: PostgresServer, database: str) -> None:
    for configured, helpers in ((8, 2), (1, 1)):
        postgres.run(f"ALTER DATABASE {database} SET max_parallel_workers_per_gather = {configured}")
        reading = PostgresReading(locate(postgres.url(database)))
        with reading.reading() as connection:
            found = connection.exec_driver_sql("SHOW max_parallel_workers_per_gather").scalar_one()
            assert int(found) == helpers
        with pytest.raises(AtCapacity, match="takes no writes"), reading.reading() as connection:
            connection.exec_driver_sql("DELETE FROM usage")
        reading.close()


def test_a_lost_connection_is_made_anew_and_a_killed_postgres_said_so(
    own_postgres: PostgresServer,
) -> None:
    name = own_postgres.new_database()
    store = PostgresStore(PostgresDatabase(locate(own_postgres.url(name))))
    reader = store.reader()
    assert reader.usage_span() is None
    own_postgres.end_sessions(name)
    assert reader.usage_span() is None
    own_postgres.kill()
    with pytest.raises(AtCapacity, match=r"does not answer|was lost"):
        reader.usage_span()
    own_postgres.start()
    assert reader.usage_span() is None
    reader.close()
    with pytest.raises(StateError, match="was closed"):
        reader.usage_span()
    store.close()


def test_the_server_is_known_by_its_own_connection_alone(
    postgres: PostgresServer, database: str, store: PostgresStore, reader: UsageReader
) -> None:
    reader.usage_span()
    listed = "SELECT application_name FROM pg_stat_activity WHERE datname = %(name)s"
    names = {row[0] for row in postgres.run(listed, name=database)}
    assert len(names) == 2
    assert any(name.endswith(" reports") for name in names)
