"""Whatever the ledger holds, Postgres sums and lists it as the fake does."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_usage_groups_agree import AT, rows

from swell.adapters.stores.postgres import open_postgres
from swell.adapters.stores.postgres_location import locate
from swell.ports.store import Store
from swell.state.records import SpoolPosition, UsageFilter
from swell.state.usage_groups import GROUP_COLUMNS
from swell.testing.memory_store import MemoryStore
from swell.testing.postgres_server import PostgresServer

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def shared(postgres: PostgresServer) -> str:
    return postgres.new_database("template_of_tests")


@settings(max_examples=60)
@given(
    changes=rows(),
    by=st.lists(st.sampled_from(GROUP_COLUMNS), unique=True),
    bucket=st.sampled_from([None, "hour", "day"]),
    bounds=st.tuples(st.none() | AT, st.none() | AT),
    rolled=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 3, 400]), st.booleans()), min_size=1, max_size=3),
)
def test_postgres_sums_and_lists_as_the_fake_does(
    postgres: PostgresServer, shared: str, changes, by, bucket, bounds, rolled
) -> None:
    postgres.run("TRUNCATE usage, usage_hours, usage_days, stale_hours, spool_positions, counters", shared)
    where = UsageFilter(since_unix_ms=bounds[0], until_unix_ms=bounds[1])
    stored, memory = open_postgres(locate(postgres.url(shared))), MemoryStore()
    both: tuple[Store, ...] = (stored, memory)
    try:
        for upto, slices, ended in rolled:
            for store in both:
                store.apply_usage(changes[:upto], SpoolPosition("spool1", 1, 1))
                if ended:
                    store.finalise_spool("spool1", damaged=False)
                    store.forget_spools([])
            for _ in range(slices):
                if not stored.roll_usage(3 * 86_400_000 + 3_600_000):
                    break
        for store in both:
            store.apply_usage(changes, SpoolPosition("spool1", 1, 1))
        assert stored.group_usage(where, by, bucket) == memory.group_usage(where, by, bucket)
        assert {row.request_id: row for row in stored.list_usage(where, 100)} == {
            row.request_id: row for row in memory.list_usage(where, 100)
        }
        assert stored.total_usage(where) == memory.total_usage(where)
        assert stored.recent_use(86_400_000) == memory.recent_use(86_400_000)
        assert stored.usage_span() == memory.usage_span()
    finally:
        stored.close()
