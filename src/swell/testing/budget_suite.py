"""The part of the store's contract that is about budgets."""

# ruff: noqa: S101  asserting is what a suite is for

from msgspec.structs import replace

from swell.ports.store import Store
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend, Scope
from swell.state.records import SpoolPosition, UsageChange, UsageFilter
from swell.testing.store_suite import usage_change


def budget_limit(name: str = "tenant:search:month:0", **changes: object) -> BudgetLimit:
    """A tenant's budget for the requests that arrive from 1,000 to 5,000 ms."""
    fields: dict[str, object] = {
        "name": name,
        "budget_id": "tenant:search:month",
        "scope": Scope.TENANT,
        "owner": "search",
        "cap_usd_nanos": 10_000,
        "label": "the month",
        "start_unix_ms": 1000,
        "end_unix_ms": 5000,
    }
    return BudgetLimit(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


class BudgetSuite:
    """The contract of `swell.ports.store.BudgetStore`, and of charges in the ledger."""

    def test_a_charge_follows_its_tokens_and_the_rates_stay_those_of_the_admission(self, store: Store) -> None:
        _apply(store, usage_change("a", "reserved"), usage_change("late", "settled"))
        assert _charges(store) == {"a": (1124, 1_000_000), "late": (25, 0)}
        _apply(store, usage_change("a", "settled", prompt_rate=5), usage_change("late", "reserved"))
        assert _charges(store) == {"a": (25, 1_000_000), "late": (25, 1_000_000)}
        _apply(store, usage_change("a", "settled", charge_usd_nanos=99), usage_change("q", "queued"))
        store.finalise_spool("spool1", damaged=False)
        assert _charges(store) == {"a": (25, 1_000_000), "late": (25, 1_000_000), "q": (0, 1_000_000)}

    def test_a_new_limit_begins_with_what_the_ledger_has_of_its_scope_model_and_period(self, store: Store) -> None:
        _apply(
            store,
            usage_change("a", "pair", reserved_at_unix_ms=1000),
            usage_change("b", "reserved", reserved_at_unix_ms=4999),
            usage_change("early", "pair", reserved_at_unix_ms=999),
            usage_change("late", "pair", reserved_at_unix_ms=5000),
            usage_change("other", "pair", reserved_at_unix_ms=2000, tenant="ads", key_id="key2", model="embed"),
            usage_change("void", "pair", reserved_at_unix_ms=2000, status="void", charge_usd_nanos=0),
        )
        limits = [
            budget_limit(),
            budget_limit("o", scope=Scope.ORGANISATION, owner=""),
            budget_limit("k", scope=Scope.KEY, owner="key2"),
            budget_limit("m", model="embed"),
            budget_limit("once", start_unix_ms=0, end_unix_ms=None),
        ]
        spent = [spend.spent_usd_nanos for spend in store.open_budgets(limits)]
        assert spent == [25 + 1124, 25 + 1124 + 25, 25, 0, 25 + 1124 + 25 + 25]

    def test_what_no_lease_covered_is_spent_when_a_limit_is_opened_again(self, store: Store) -> None:
        limit = budget_limit()
        assert store.open_budgets([limit]) == [BudgetSpend(limit.name, 0)]
        _apply(store, usage_change("a", "pair"), usage_change("b", "pair", spool="w2"))
        store.put_leases([BudgetLease(limit.name, "w2", 1000)])
        assert store.open_budgets([limit]) == [BudgetSpend(limit.name, 25)]
        _apply(store, usage_change("c", "pair", spool="w2", charge_usd_nanos=990))
        assert store.open_budgets([limit]) == [BudgetSpend(limit.name, 40)]  # w2 had 15 of it without a lease
        assert store.settle_leases("w2") == [BudgetSpend(limit.name, 1040)]
        assert store.open_budgets([limit]) == [BudgetSpend(limit.name, 1040)]
        assert store.open_budgets([]) == []

    def test_leases_are_set_and_removed_together(self, store: Store) -> None:
        store.put_leases([BudgetLease("b", "w1", 5), BudgetLease("a", "w2", 7), BudgetLease("a", "w1", 9)])
        store.put_leases([BudgetLease("a", "w1", 4), BudgetLease("b", "w1", 0), BudgetLease("c", "w9", 0)])
        assert store.list_leases() == [BudgetLease("a", "w1", 4), BudgetLease("a", "w2", 7)]
        store.put_leases([])

    def test_an_ended_worker_has_spent_what_the_ledger_says_and_no_more_than_its_grant(self, store: Store) -> None:
        rich, poor = budget_limit(), budget_limit("poor")
        store.open_budgets([rich, poor])
        _apply(store, usage_change("a", "pair"), usage_change("b", "reserved"), usage_change("c", "pair", spool="w2"))
        name = rich.name
        store.put_leases([BudgetLease(name, "spool1", 5000), BudgetLease("poor", "spool1", 30)])
        store.put_leases([BudgetLease(name, "w2", 100)])
        spent = {spend.limit: spend.spent_usd_nanos for spend in store.settle_leases("spool1")}
        assert spent == {name: 25 + 1124, "poor": 30}
        assert store.settle_leases("spool1") == []
        assert store.list_leases() == [BudgetLease(name, "w2", 100)]
        assert store.settle_leases("w2") == [BudgetSpend(name, 25 + 1124 + 25)]

    def test_old_limits_are_forgotten_unless_something_is_leased(self, store: Store) -> None:
        old, leased, newer = budget_limit("old"), budget_limit("leased"), budget_limit("newer", end_unix_ms=9000)
        limits = [old, leased, newer, budget_limit("once", end_unix_ms=None)]
        _apply(store, usage_change("a", "reserved"))
        store.open_budgets(limits)
        store.put_leases([BudgetLease("leased", "spool1", 50)])
        _apply(store, usage_change("a", "settled"))  # less than its bound, which a limit that is known goes on with
        store.forget_budgets(6000)
        assert [spend.spent_usd_nanos for spend in store.open_budgets(limits)] == [25, 1124, 1124, 1124]

    def test_limits_of_some_budgets_are_forgotten_sooner(self, store: Store) -> None:
        names = ("b:rolling:1000", "b:rolling:2000", "b:rolling2:1000", "b:rolling", "b")
        limits = [
            budget_limit(name, budget_id=name.rpartition(":")[0] or name, end_unix_ms=int(name[-4:]) + 1000)
            for name in names[:3]
        ]
        limits += [budget_limit(name, budget_id=name) for name in names[3:]]
        _apply(store, usage_change("a", "reserved", reserved_at_unix_ms=1500))
        store.open_budgets(limits)
        _apply(store, usage_change("a", "settled"))
        store.forget_budgets(0, {"b:rolling": 3000})
        # The first slot knows what the ledger has by now; what is no slot of that budget, the bound of before.
        wide = [replace(each, start_unix_ms=1000, end_unix_ms=5000) for each in limits]
        assert [spend.spent_usd_nanos for spend in store.open_budgets(wide)] == [25, 1124, 1124, 1124, 1124]


def _charges(store: Store) -> dict[str, tuple[int, int]]:
    rows = store.list_usage(UsageFilter(), 100)
    return {row.request_id: (row.charge_usd_nanos, row.prompt_rate) for row in rows}


def _apply(store: Store, *changes: UsageChange) -> None:
    for change in changes:
        store.apply_usage([change], SpoolPosition(change.spool, 1, 1))
