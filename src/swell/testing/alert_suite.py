"""The part of the store's contract that is about alerts."""

# ruff: noqa: S101  asserting is what a suite is for

import pytest
from msgspec.structs import replace

from swell.errors import StateError
from swell.ports.store import Store
from swell.state.alerts import Alert, AlertDelivery, AlertKind, AlertRecord, money_values
from swell.state.budgets import Scope
from swell.state.records import SpoolPosition
from swell.testing.budget_suite import budget_limit
from swell.testing.store_suite import usage_change
from swell.units import MAX_USD_NANOS

HOUR_MS = 3_600_000


def alert_record(
    alert_id: str = "alert-1", limit_name: str = "search:1", threshold: str = "50%", *sinks: str, at_unix: float = 5.5
) -> AlertRecord:
    """An alert with every field set, to be delivered to `sinks`."""
    alert = Alert(
        alert_id=alert_id,
        kind="budget",
        severity="warning",
        title="Half is spent \u2014 \x07",
        text="$5 of $10.\nLook.",
        subject="tenant search",
        at_unix=at_unix,
        values={"period": "2026-11", "rows": [{"model": "chat", "n": 1}, {}], **money_values("spent", MAX_USD_NANOS)},
    )
    deliveries = tuple(AlertDelivery(alert_id=alert_id, sink=sink) for sink in sinks)
    return AlertRecord(alert=alert, limit_name=limit_name, threshold=threshold, deliveries=deliveries)


class AlertSuite:
    """The contract of `swell.ports.store.AlertStore`, and of hourly sums."""

    def test_alerts_come_back_as_they_were_newest_first(self, store: Store) -> None:
        first = alert_record("a", "search:1", "50%", "mail", "pager", at_unix=900.0)
        second = alert_record("b", "search:1", "80%", at_unix=1.0)
        assert store.add_alerts([first, second]) == [first, second]
        assert store.list_alerts(10) == [second, first]
        assert store.list_alerts(1) == [second]
        assert store.add_alerts([]) == []

    def test_alerts_of_a_kind_are_listed_alone_and_the_last_of_each_subject(self, store: Store) -> None:
        def of(alert_id: str, kind: AlertKind, subject: str) -> AlertRecord:
            made = alert_record(alert_id, f"{kind}:{subject}", alert_id, "mail")
            return replace(made, alert=replace(made.alert, kind=kind, subject=subject))

        made = [
            of("a", "objective", "model chat"),
            of("b", "objective", "model embed"),
            of("c", "capacity", "model embed"),
            of("d", "objective", "model chat"),
        ]
        store.add_alerts(made)
        a, b, c, d = made
        assert store.list_alerts(10, "objective") == [d, b, a]
        assert store.list_alerts(2, "objective") == [d, b]
        assert store.list_alerts(10, "capacity") == [c]
        assert store.list_alerts(10, "spot") == []
        assert store.latest_alerts("objective") == [replace(b, deliveries=()), replace(d, deliveries=())]
        assert store.latest_alerts("spot") == []

    def test_a_threshold_of_a_limit_is_alerted_about_once(self, store: Store) -> None:
        first = alert_record("a", "search:1", "50%", "mail")
        store.add_alerts([first])
        other = alert_record("c", "search:2", "50%", "mail")
        again = alert_record("b", "search:1", "50%", "pager")
        assert store.add_alerts([again, other, replace(other, alert=again.alert)]) == [other]
        assert store.list_alerts(10) == [other, first]
        assert store.fired(["search:1", "search:2", "nobody"]) == {"search:1": {"50%"}, "search:2": {"50%"}}
        assert store.fired([]) == {}

    def test_many_limits_can_be_asked_about_at_once(self, store: Store) -> None:
        store.add_alerts([alert_record("a", "limit 0"), alert_record("b", "limit 39999")])
        names = [f"limit {number}" for number in range(40_000)]
        assert store.fired(names) == {"limit 0": {"50%"}, "limit 39999": {"50%"}}

    def test_an_id_that_is_taken_is_refused_with_all_that_came_with_it(self, store: Store) -> None:
        store.add_alerts([alert_record("a")])
        with pytest.raises(StateError, match="already"):
            store.add_alerts([alert_record("b", threshold="80%"), alert_record("a", threshold="100%")])
        assert store.fired(["search:1"]) == {"search:1": {"50%"}}

    def test_what_is_neither_delivered_nor_given_up_waits(self, store: Store) -> None:
        record = alert_record("a", "search:1", "50%", "one", "three", "two")
        last = alert_record("b", "search:1", "80%", "one")
        store.add_alerts([record, last])
        one, three, two = record.deliveries
        tried = replace(two, attempts=3, next_try_unix=77.5, problem="it was busy")
        done = replace(one, attempts=1, delivered_at_unix=8.25)
        store.record_deliveries([done, replace(three, attempts=2, given_up="it was refused"), tried])
        assert store.waiting_deliveries() == [(record.alert, tried), (last.alert, last.deliveries[0])]
        assert store.list_alerts(10)[1].deliveries == (
            done,
            replace(three, attempts=2, given_up="it was refused"),
            tried,
        )

    def test_a_delivery_that_was_forgotten_stays_so(self, store: Store) -> None:
        store.record_deliveries([AlertDelivery(alert_id="gone", sink="mail", attempts=4)])
        store.record_deliveries([])
        assert store.waiting_deliveries() == []

    def test_old_alerts_are_forgotten_unless_their_limit_is_kept(self, store: Store) -> None:
        store.open_budgets([budget_limit("kept")])
        old, kept = alert_record("a", "old", "50%", "mail", at_unix=9.0), alert_record("b", "kept", at_unix=9.0)
        new = alert_record("c", "old", "80%", "mail", at_unix=10.0)
        store.add_alerts([old, kept, new])
        store.forget_alerts(10.0)
        assert store.list_alerts(10) == [new, kept]
        assert store.waiting_deliveries() == [(new.alert, new.deliveries[0])]
        assert store.fired(["old", "kept"]) == {"old": {"80%"}, "kept": {"50%"}}

    def test_spend_by_the_hour_is_of_the_scope_and_model_whatever_the_period(self, store: Store) -> None:
        first = 10 * HOUR_MS + 7
        at = {
            "a": first,
            "b": first + HOUR_MS - 1,
            "c": first + 2 * HOUR_MS,
            "early": first - 1,
            "late": first + 3 * HOUR_MS,
        }
        changes = [usage_change(name, "pair", reserved_at_unix_ms=moment) for name, moment in at.items()]
        changes.append(usage_change("open", "reserved", reserved_at_unix_ms=first + HOUR_MS))
        changes.append(
            usage_change("other", "pair", reserved_at_unix_ms=first, tenant="ads", key_id="k2", model="embed")
        )
        for change in changes:
            store.apply_usage([change], SpoolPosition(change.spool, 1, 1))
        limits = [
            budget_limit(),
            budget_limit(scope=Scope.ORGANISATION, owner=""),
            budget_limit(scope=Scope.KEY, owner="k2"),
            budget_limit(model="embed"),
        ]
        spend = [store.hourly_spend(limit, first, 3) for limit in limits]
        assert spend == [[50, 1124, 25], [75, 1124, 25], [25, 0, 0], [0, 0, 0]]
        assert store.hourly_spend(budget_limit(), first, 0) == []
