"""The part of the store's contract that is about sums by group."""

# ruff: noqa: S101  asserting is what a suite is for

import random
from itertools import combinations

import pytest

from swell.errors import UserError
from swell.ports import store as store_port
from swell.ports.store import Store
from swell.state.records import SpoolPosition, UsageChange, UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import GROUP_COLUMNS, Bucket, UsageGroup
from swell.testing.store_suite import usage_change

EVERYTHING = UsageFilter()
_CHECKED = ("requests", "charge_usd_nanos", "cached_tokens")
BUCKETS: tuple[Bucket | None, ...] = (None, "hour", "day")
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


def _ledger(store: Store) -> None:
    """Two tenants, two models, two days, every status, a price that changed, and a request known by `sent` alone."""
    void = {"status": "void", "prompt_tokens": 0, "completion_tokens": 0, "charge_usd_nanos": 0, "cached_tokens": 0}
    changes = [
        usage_change("a", "pair", reserved_at_unix_ms=DAY_MS - 1),
        usage_change("b", "pair", reserved_at_unix_ms=DAY_MS, prompt_rate=3_000_000),
        usage_change("c", "reserved", reserved_at_unix_ms=DAY_MS + HOUR_MS, model="embed"),
        usage_change("d", "pair", reserved_at_unix_ms=DAY_MS + HOUR_MS - 1, tenant="ads", key_id="key2"),
        usage_change("e", "pair", reserved_at_unix_ms=DAY_MS, **void),
        usage_change("f", "pair", reserved_at_unix_ms=DAY_MS, status="estimated", endpoint="/v1/completions"),
        usage_change("late", "settled", settled_at_unix_ms=DAY_MS + 1),
        usage_change("nothing", "sent"),
    ]
    store.apply_usage(changes, SpoolPosition("spool1", 1, 1))


class UsageGroupSuite:
    """The contract of `swell.ports.store.UsageStore.group_usage`."""

    def test_an_empty_ledger_has_no_groups_and_no_span(self, store: Store) -> None:
        assert store.group_usage(EVERYTHING) == []
        assert store.group_usage(EVERYTHING, ("tenant",), "hour") == []
        assert store.usage_span() is None

    def test_one_sum_counts_void_requests_apart(self, store: Store) -> None:
        _ledger(store)
        assert store.group_usage(EVERYTHING) == [
            UsageGroup(
                requests=6,
                void_requests=1,
                prompt_tokens=5 * 7 + 100,
                completion_tokens=5 * 9 + 512,
                charge_usd_nanos=5 * 25 + 1124,
                cached_tokens=5 * 3,
            )
        ]
        assert store.usage_span() == (DAY_MS - 1, DAY_MS + HOUR_MS)

    def test_groups_come_in_order_and_name_only_what_was_asked_for(self, store: Store) -> None:
        _ledger(store)
        found = store.group_usage(EVERYTHING, ("tenant", "model"))
        assert [(group.tenant, group.model, group.requests) for group in found] == [
            ("", "", 1),
            ("ads", "chat", 1),
            ("search", "chat", 3),
            ("search", "embed", 1),
        ]
        assert {(group.key_id, group.status, group.start_unix_ms) for group in found} == {(None, None, None)}
        by_status = store.group_usage(EVERYTHING, ("status",))
        assert [(group.status, group.requests, group.void_requests) for group in by_status] == [
            (UsageStatus.ESTIMATED, 1, 0),
            (UsageStatus.RESERVED, 1, 0),
            (UsageStatus.SETTLED, 4, 0),
            (UsageStatus.VOID, 0, 1),
        ]

    def test_a_price_that_changed_makes_groups_of_its_own(self, store: Store) -> None:
        _ledger(store)
        found = store.group_usage(UsageFilter(tenant="search", model="chat"), ("prompt_rate", "completion_rate"))
        assert [(group.prompt_rate, group.completion_rate, group.requests) for group in found] == [
            (1_000_000, 2_000_000, 2),
            (3_000_000, 2_000_000, 1),
        ]

    def test_hours_and_days_begin_where_those_of_utc_do(self, store: Store) -> None:
        _ledger(store)
        days = store.group_usage(EVERYTHING, (), "day")
        assert [(group.start_unix_ms, group.requests) for group in days] == [(0, 1), (DAY_MS, 5)]
        hours = store.group_usage(EVERYTHING, (), "hour")
        assert [(group.start_unix_ms, group.requests + group.void_requests) for group in hours] == [
            (DAY_MS - HOUR_MS, 1),
            (DAY_MS, 5),
            (DAY_MS + HOUR_MS, 1),
        ]

    def test_bounds_of_time_and_every_filter_hold(self, store: Store) -> None:
        _ledger(store)

        def requests(where: UsageFilter) -> int:
            return sum(group.requests for group in store.group_usage(where, ("key_id",)))

        assert requests(UsageFilter(since_unix_ms=DAY_MS, until_unix_ms=DAY_MS + HOUR_MS)) == 4
        assert requests(UsageFilter(since_unix_ms=DAY_MS + HOUR_MS)) == 1
        assert requests(UsageFilter(tenant="ads")) == requests(UsageFilter(key_id="key2")) == 1
        assert requests(UsageFilter(status=UsageStatus.VOID)) == 0
        assert requests(UsageFilter(model="none")) == 0

    def test_groups_in_any_split_sum_to_the_same(self, store: Store) -> None:
        _ledger(store)
        [whole] = store.group_usage(EVERYTHING)
        expected = sums(whole)
        for size in range(len(GROUP_COLUMNS) + 1):
            for by in combinations(GROUP_COLUMNS, size):
                for bucket in BUCKETS:
                    found = store.group_usage(EVERYTHING, by, bucket)
                    assert tuple(map(sum, zip(*map(sums, found), strict=True))) == expected
                    keys = [tuple(getattr(group, name) for name in (*by, "start_unix_ms")) for group in found]
                    assert len(set(keys)) == len(keys)

    @pytest.mark.parametrize("seed", range(6))
    def test_sums_are_the_ledgers_whatever_is_summed_up_and_enters_late(self, store: Store, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a seeded choice
        still_open: list[UsageChange] = []
        for turn in range(6):
            changes = [_somewhere(f"r{turn}-{number}", dice) for number in range(8)]
            if still_open:  # it changes an hour that may be summed up already
                changes.append(dice.choice(still_open)._replace(settled_at_unix_ms=5 * DAY_MS, status="settled"))
            still_open += [change for change in changes if change.settled_at_unix_ms is None]
            store.apply_usage(changes, SpoolPosition("spool1", 1, turn))
            if dice.random() < 0.5:
                store.finalise_spool("spool1", damaged=False)
                store.forget_spools([])
            for _ in range(dice.choice((0, 40, 2000))):
                if not store.roll_usage(5 * DAY_MS):
                    break
            for since, until in ((None, None), (HOUR_MS * 5, 3 * DAY_MS + 1), (DAY_MS, 3 * DAY_MS)):
                _check_sums(store, UsageFilter(since_unix_ms=since, until_unix_ms=until))

    def test_more_groups_than_the_bound_are_refused_with_what_to_do(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_port, "MAX_GROUPS", 2)
        _apply(store, usage_change("a", "pair", tenant="one"), usage_change("b", "pair", tenant="two"))
        assert len(store.group_usage(EVERYTHING, ("tenant",))) == 2
        _apply(store, usage_change("c", "pair", tenant="three"))
        with pytest.raises(UserError, match="more than 2 groups; ask for a shorter period"):
            store.group_usage(EVERYTHING, ("tenant",))
        assert len(store.group_usage(EVERYTHING)) == 1

    def test_a_second_way_in_sees_what_was_committed_and_answers_alike(self, store: Store) -> None:
        reader = store.reader()
        if reader is None:
            return  # then whoever asks for much asks by days: `swell.metering.questions`
        assert reader.group_usage(EVERYTHING) == []
        _ledger(store)
        for by in ((), ("tenant", "model")):
            for bucket in BUCKETS:
                assert reader.group_usage(EVERYTHING, by, bucket) == store.group_usage(EVERYTHING, by, bucket)
        assert reader.list_usage(EVERYTHING, 100) == store.list_usage(EVERYTHING, 100)
        assert reader.total_usage(EVERYTHING) == store.total_usage(EVERYTHING)
        assert reader.usage_span() == store.usage_span()
        reader.interrupt()
        assert reader.usage_span() == store.usage_span(), "nothing was read when it was interrupted"
        reader.close()
        reader.close()


def _somewhere(name: str, dice: random.Random) -> UsageChange:
    """A request in the first four days, settled or open."""
    return usage_change(
        name,
        dice.choice(("pair", "reserved")),
        reserved_at_unix_ms=dice.randrange(4 * DAY_MS),
        tenant=dice.choice(("one", "two")),
        charge_usd_nanos=dice.randrange(10**12),
        cached_tokens=dice.randrange(8),
    )


def _check_sums(store: Store, where: UsageFilter) -> None:
    listed = [row for row in store.list_usage(where, 1000) if row.status is not UsageStatus.VOID]
    expected = len(listed), sum(row.charge_usd_nanos for row in listed), sum(row.cached_tokens for row in listed)
    for bucket in BUCKETS:
        found = store.group_usage(where, ("tenant",), bucket)
        whole = tuple(sum(getattr(group, name) for group in found) for name in _CHECKED)
        assert whole == expected


def sums(group: UsageGroup) -> tuple[int, int, int, int, int, int]:
    """What a group adds up."""
    return (
        group.requests,
        group.void_requests,
        group.prompt_tokens,
        group.completion_tokens,
        group.charge_usd_nanos,
        group.cached_tokens,
    )


def _apply(store: Store, *changes: UsageChange) -> None:
    store.apply_usage(changes, SpoolPosition("spool1", 1, 1))
