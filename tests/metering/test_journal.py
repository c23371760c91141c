"""The books: every transaction adds up to nothing, and accounts say what ledger and costs say."""

from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ledger, request, unix_ms

from swell.metering.attribution import Capability
from swell.metering.costs import CostQuestion, model_costs, span_of
from swell.metering.journal import Posting, Transaction, balances, transactions
from swell.metering.periods import period_at
from swell.state.records import UsageChange, UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.testing.run_suite import replica_run

UTC, KOLKATA = ZoneInfo("UTC"), ZoneInfo("Asia/Kolkata")
START = unix_ms("2026-11-01T00:00:00+00:00")
HOUR_MS = 3_600_000


def question(*runs: ReplicaRun, zone: ZoneInfo = UTC) -> CostQuestion:
    return CostQuestion(runs, period_at("month", zone, START / 1000 + 86_400), zone, lambda model: Capability())


def books(changes: list[UsageChange], *runs: ReplicaRun, each: str = "day", zone: ZoneInfo = UTC) -> list[Transaction]:
    store = ledger(*changes)
    asked = question(*runs, zone=zone)
    return transactions(store.group_usage, asked, span_of(asked.runs, store.usage_span()), each=each)


def test_a_request_is_owed_by_its_tenant_and_earned_by_its_model() -> None:
    made = books(
        [request("a", START, tenant="search", model="chat"), request("b", START + 1, tenant="search", model="m")]
    )
    assert made == [
        Transaction(
            "2026-11-01",
            "swell:2026-11-01:charges:search",
            "Requests of search",
            (
                Posting(("Assets", "Receivable", "search"), 540_000),
                Posting(("Income", "Tokens", "chat"), -270_000),
                Posting(("Income", "Tokens", "m"), -270_000),
            ),
        )
    ]


def test_a_charge_that_may_yet_shrink_is_in_an_account_of_its_own() -> None:
    [made] = books([request("a", START, status="reserved", settled_at_unix_ms=None, tenant="search", model="chat")])
    assert Posting(("Income", "Reserved", "chat"), -270_000) in made.postings


def test_replicas_are_used_by_tenants_idle_and_starting_and_owed_for() -> None:
    run = replica_run(
        "chat-0", model="chat", usd_nanos_per_hour=1_000_000_000, started_unix_ms=START,
        ready_unix_ms=START + HOUR_MS // 2, ended_unix_ms=START + 2 * HOUR_MS,
    )  # fmt: skip
    made = books([request("a", START + 10, tenant="search", model="chat")], run)
    [cost] = [each for each in made if each.reference == "swell:2026-11-01:replicas:chat"]
    assert {posting.account: posting.amount_usd_nanos for posting in cost.postings} == {
        ("Expenses", "Used", "chat", "search"): 500_000_000,
        ("Expenses", "Starting", "chat"): 500_000_000,
        ("Expenses", "Idle", "chat"): 1_000_000_000,
        ("Liabilities", "Replicas", "chat"): -2_000_000_000,
    }


def test_days_are_those_of_the_zone_and_months_are_entered_on_their_last_day() -> None:
    late = unix_ms("2026-11-01T23:30:00+05:30")
    assert [each.day for each in books([request("a", late), request("b", late + HOUR_MS)], zone=KOLKATA)] == [
        "2026-11-01",
        "2026-11-02",
    ]
    [month] = books([request("a", late), request("b", late + HOUR_MS)], each="month")
    assert (month.day, month.reference) == ("2026-11-30", f"swell:2026-11:charges:{_tenant()}")


def test_a_transaction_that_does_not_add_up_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Transaction("2026-11-01", "r", "n", (Posting(("Assets", "Receivable", "a"), 1),))


_requests = st.lists(
    st.tuples(
        st.integers(0, 40 * 24 * HOUR_MS),
        st.sampled_from(["search", "ads", ""]),
        st.sampled_from(["chat", "embed"]),
        st.integers(0, 5000),
    ),
    max_size=12,
)
_runs = st.lists(
    st.tuples(
        st.sampled_from(["chat", "idle"]),
        st.integers(0, 40 * 24 * HOUR_MS),
        st.integers(0, 3 * 24 * HOUR_MS),
        st.integers(0, 10**10),
    ),
    max_size=5,
)


@given(_requests, _runs, st.sampled_from(["day", "month"]), st.sampled_from([UTC, KOLKATA]))
def test_accounts_say_what_the_ledger_and_the_costs_say(
    asked: list[tuple[int, str, str, int]], lived: list[tuple[str, int, int, int]], each: str, zone: ZoneInfo
) -> None:
    changes = [
        request(f"r{number}", START + at, tenant=tenant, model=model, prompt_tokens=tokens)
        for number, (at, tenant, model, tokens) in enumerate(asked)
    ]
    runs = [
        replica_run(
            f"{model}-{number}", model=model, usd_nanos_per_hour=price, started_unix_ms=START + at,
            ready_unix_ms=START + at + length // 3, ended_unix_ms=START + at + length,
        )
        for number, (model, at, length, price) in enumerate(lived)
    ]  # fmt: skip
    store, whole = ledger(*changes), question(*runs, zone=zone)
    span = span_of(runs, store.usage_span())
    found = {balance.account: balance for balance in balances(books(changes, *runs, each=each, zone=zone))}
    assert sum(each.debit_usd_nanos for each in found.values()) == sum(each.credit_usd_nanos for each in found.values())
    bounds = UsageFilter(
        since_unix_ms=round(whole.period.start_unix * 1000), until_unix_ms=round((whole.period.end_unix or 0) * 1000)
    )
    for group in store.group_usage(bounds, ("tenant",)):
        owed = found.get(("Assets", "Receivable", group.tenant or ""))
        assert (owed.debit_usd_nanos if owed else 0) == group.charge_usd_nanos
    for cost in model_costs(store.group_usage, whole, span):
        due = found.get(("Liabilities", "Replicas", cost.model))
        assert (due.credit_usd_nanos if due else 0) == cost.attribution.total_usd_nanos
        idle = found.get(("Expenses", "Idle", cost.model))
        assert (idle.debit_usd_nanos if idle else 0) == cost.attribution.idle_usd_nanos


def _tenant() -> str:
    [group] = ledger(request("a", START)).group_usage(UsageFilter(), ("tenant",))
    return group.tenant or ""
