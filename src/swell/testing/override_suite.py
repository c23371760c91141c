"""The part of the store's contract that is about raises of budgets."""

# ruff: noqa: S101  asserting is what a suite is for

import pytest
from msgspec.structs import replace

from swell.errors import SwellError
from swell.ports.store import Store
from swell.state.overrides import BudgetOverride
from swell.testing.store_suite import audit_entry


def budget_override(override_id: str = "raise-1", **changes: object) -> BudgetOverride:
    """A raise by five dollars from 1,000 to 2,000 seconds."""
    fields: dict[str, object] = {
        "override_id": override_id,
        "budget_id": "budget:tenant:search:*:month:UTC",
        "scope": "tenant",
        "owner": "search",
        "model": "",
        "period": "month",
        "by_usd_nanos": 5_000_000_000,
        "reason": "the launch",
        "created_by": "ann(1000)",
        "created_at_unix": 1000.0,
        "until_unix": 2000.0,
    }
    return BudgetOverride(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


class OverrideSuite:
    """The contract of `swell.ports.store.OverrideStore`."""

    def test_raises_are_listed_newest_first_and_hold_until_their_end(self, store: Store) -> None:
        long, short = budget_override("raise-1", until_unix=9000.0), budget_override("raise-2", model="chat")
        store.add_override(long, audit_entry(reason="first"))
        store.add_override(short, audit_entry(reason="second"))
        assert store.list_overrides(10) == [short, long]
        assert store.list_overrides(1) == [short]
        assert store.overrides_in_force(1999.0) == [long, short]
        assert store.overrides_in_force(2000.0) == [long]
        assert store.overrides_in_force(9000.0) == []
        assert [entry.detail["reason"] for entry in store.list_audit(10)] == ["second", "first"]

    def test_a_raise_is_ended_once_and_only_while_it_holds(self, store: Store) -> None:
        first, second = budget_override("raise-1"), budget_override("raise-2")
        store.add_override(first, audit_entry())
        store.add_override(second, audit_entry())
        ended = store.end_override("raise-1", 1500.0, audit_entry(reason="over"))
        assert ended == replace(first, ended_at_unix=1500.0)
        assert store.overrides_in_force(1200.0) == [second]
        assert store.list_overrides(10) == [second, ended]
        assert store.end_override("raise-1", 1600.0, audit_entry()) is None
        assert store.end_override("raise-2", 2000.0, audit_entry()) is None
        assert store.end_override("raise-9", 1500.0, audit_entry()) is None
        assert len(store.list_audit(10)) == 3

    def test_an_id_is_used_once_and_what_is_refused_is_not_audited(self, store: Store) -> None:
        store.add_override(budget_override(), audit_entry())
        with pytest.raises(SwellError):
            store.add_override(budget_override(by_usd_nanos=1), audit_entry())
        assert [each.by_usd_nanos for each in store.list_overrides(10)] == [5_000_000_000]
        assert len(store.list_audit(10)) == 1
