"""Whatever the ledger holds, the encrypted file and the fake sum it alike, and every split comes to the same."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.adapters.stores import open_store
from swell.state.records import SpoolPosition, UsageChange, UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import GROUP_COLUMNS
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change
from swell.testing.usage_group_suite import sums

KEY = bytes(range(32))
AT = st.integers(0, 3 * 86_400_000)
AMOUNT = st.integers(0, 2**40)


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "swell.db"
    open_store(path, KEY).close()
    return path


@st.composite
def rows(draw: st.DrawFn) -> list[UsageChange]:
    return [
        usage_change(
            f"r{number}",
            draw(st.sampled_from(["pair", "reserved", "settled", "sent"])),
            reserved_at_unix_ms=draw(st.none() | AT),
            tenant=draw(st.sampled_from(["one", "two"])),
            model=draw(st.sampled_from(["chat", "Chat", "chät"])),
            key_id=draw(st.sampled_from(["k1", "k2"])),
            status=draw(st.sampled_from(list(UsageStatus))).value,
            prompt_rate=draw(st.sampled_from([0, 150_000_000])),
            prompt_tokens=draw(AMOUNT),
            completion_tokens=draw(AMOUNT),
            charge_usd_nanos=draw(AMOUNT),
        )
        for number in range(draw(st.integers(0, 12)))
    ]


@settings(max_examples=120)
@given(
    changes=rows(),
    by=st.lists(st.sampled_from(GROUP_COLUMNS), unique=True),
    bucket=st.sampled_from([None, "hour", "day"]),
    tenant=st.sampled_from([None, "one"]),
    bounds=st.tuples(st.none() | AT, st.none() | AT),
    rolled=st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 3, 400]), st.booleans()), min_size=1, max_size=3),
)
def test_both_stores_sum_alike_and_every_split_to_the_same(
    migrated: Path, changes, by, bucket, tenant, bounds, rolled
) -> None:
    """Whatever was summed up by the hour before, between and after, and whether its worker lives or has ended."""
    where = UsageFilter(tenant=tenant, since_unix_ms=bounds[0], until_unix_ms=bounds[1])
    with tempfile.TemporaryDirectory() as folder:
        stored, memory = open_store(Path(shutil.copy(migrated, folder)), KEY), MemoryStore()
        try:
            for upto, slices, ended in rolled:
                for store in (stored, memory):
                    store.apply_usage(changes[:upto], SpoolPosition("spool1", 1, 1))
                    if ended:
                        store.finalise_spool("spool1", damaged=False)
                        store.forget_spools([])
                for _ in range(slices):
                    if not stored.roll_usage(3 * 86_400_000 + 3_600_000):
                        break
            for store in (stored, memory):
                store.apply_usage(changes, SpoolPosition("spool1", 1, 1))
            found = stored.group_usage(where, by, bucket)
            assert found == memory.group_usage(where, by, bucket)
            assert stored.usage_span() == memory.usage_span()
            whole = [sums(group) for group in stored.group_usage(where)]
            assert [tuple(map(sum, zip(*map(sums, found), strict=True)))] == (whole or [()])
            if bounds == (None, None):
                arrived = [change for change in changes if change.reserved_at_unix_ms or change.settled_at_unix_ms]
                assert whole or not [change for change in arrived if tenant in (None, change.tenant)]
        finally:
            stored.close()


def test_a_request_that_enters_a_summed_up_hour_late_is_in_the_sum(migrated: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(migrated, tmp_path)), KEY)
    early = [usage_change(f"r{number}", "pair", reserved_at_unix_ms=number * 60_000) for number in range(60)]
    store.apply_usage(early, SpoolPosition("spool1", 1, 1))
    while store.roll_usage(5 * 3_600_000):
        pass
    assert [group.requests for group in store.group_usage(UsageFilter(), ["tenant"], "hour")] == [60]
    store.apply_usage([usage_change("late", "pair", reserved_at_unix_ms=90_000)], SpoolPosition("spool2", 1, 1))
    assert [group.requests for group in store.group_usage(UsageFilter(), ["tenant"], "hour")] == [61]
    while store.roll_usage(5 * 3_600_000):
        pass
    assert [group.requests for group in store.group_usage(UsageFilter(), ["tenant"], "hour")] == [61]
    store.close()


def test_an_open_request_of_a_living_worker_keeps_its_hour_from_being_summed_up(migrated: Path, tmp_path: Path) -> None:
    store = open_store(Path(shutil.copy(migrated, tmp_path)), KEY)
    store.apply_usage([usage_change("open", "reserved", reserved_at_unix_ms=90_000)], SpoolPosition("spool1", 1, 1))
    while store.roll_usage(5 * 3_600_000):
        pass
    store.apply_usage([usage_change("open", "settled", settled_at_unix_ms=4_000_000)], SpoolPosition("spool1", 1, 2))
    while store.roll_usage(5 * 3_600_000):
        pass
    (group,) = store.group_usage(UsageFilter(), ["status"], "hour")
    assert (group.status, group.charge_usd_nanos, group.start_unix_ms) == (UsageStatus.SETTLED, 25, 0)
    store.close()


def test_an_open_request_that_entered_a_summed_up_hour_late_is_summed_up_when_it_has_ended(
    migrated: Path, tmp_path: Path
) -> None:
    store = open_store(Path(shutil.copy(migrated, tmp_path)), KEY)
    early = [usage_change("early", "pair", reserved_at_unix_ms=60_000, spool="spool0")]
    store.apply_usage(early, SpoolPosition("spool0", 1, 1))
    while store.roll_usage(5 * 3_600_000):
        pass
    store.apply_usage([usage_change("late", "reserved", reserved_at_unix_ms=90_000)], SpoolPosition("spool1", 1, 1))
    for _ in range(10):
        store.roll_usage(5 * 3_600_000)
    store.apply_usage([usage_change("late", "settled", settled_at_unix_ms=17_999_000)], SpoolPosition("spool1", 1, 2))
    while store.roll_usage(5 * 3_600_000):
        pass
    (group,) = store.group_usage(UsageFilter(), ["status"], "hour")
    assert (group.status, group.requests, group.charge_usd_nanos) == (UsageStatus.SETTLED, 2, 50)
    store.close()
