"""Raises of budgets: which budget is meant, what is refused, and what holds when."""

from dataclasses import replace
from functools import partial

import pytest
from alert_world import HOUR, START_UNIX, AlertWorld

from swell.clock import ManualClock
from swell.errors import UserError
from swell.metering.budgets import BudgetGrant
from swell.server.budget_limits import limits_at
from swell.server.overrides import MAX_IN_FORCE, NewOverride, Overrides
from swell.spec import Spec, parse_spec
from swell.state.budgets import KeyBudget
from swell.state.overrides import BudgetOverride
from swell.state.snapshot import Limits
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import audit_entry, key_record
from swell.units import NANOS_PER_USD

DAY = 86_400.0
ME = "ann(1000)"
FILE = """
models: [{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}]
prices: {chat: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: 2000 / month}
tenants:
  - {name: search, budget: [{usd: 500, period: month, time_zone: Europe/Berlin}, {usd: 40, period: day, model: chat}]}
  - {name: batch, budget: [5 / day, 20 / week]}
  - {name: trial, budget: {usd: 3, period: once}}
  - {name: free}
"""
SPEC = parse_spec(FILE, origin="swell.yaml")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START_UNIX)  # a Tuesday at ten, 14 November 2023


@pytest.fixture
def office(store: MemoryStore, clock: ManualClock) -> Overrides:
    return Overrides(lambda: SPEC, store, clock)


def wanted(scope: str = "search", **fields: object) -> NewOverride:
    return NewOverride(**{"scope": scope, "by_usd": "10", "reason": "the launch"} | fields)  # type: ignore[arg-type]


def caps(spec: Spec, made: list[BudgetOverride], at_unix: float) -> dict[str, list[int]]:
    """Dollars that may be spent, of the present and the next period, by budget."""
    found: dict[str, list[int]] = {}
    for limit in limits_at(spec, at_unix, (), made):
        found.setdefault(limit.budget_id, []).append(limit.cap_usd_nanos // NANOS_PER_USD)
    return found


def test_a_raise_is_stored_with_who_why_and_until_when(office: Overrides, store: MemoryStore) -> None:
    made = office.raise_budget(wanted(seconds=2 * DAY), ME)
    assert made.budget_id == "budget:tenant:search:*:month:Europe/Berlin"
    assert (made.by_usd_nanos, made.created_by, made.reason) == (10 * NANOS_PER_USD, ME, "the launch")
    assert (made.created_at_unix, made.until_unix) == (START_UNIX, START_UNIX + 2 * DAY)
    assert store.list_overrides(10) == office.list(10) == [made]
    (entry,) = store.list_audit(10)
    assert (entry.principal, entry.action, entry.subject) == (ME, "budget.raise", made.override_id)
    assert entry.detail["budget"] == "tenant:search --period month"
    assert entry.detail["reason"] == "the launch"


def _same(spec: Spec) -> Spec:
    return spec


def test_a_raise_whose_budget_is_gone_is_listed_as_such(office: Overrides) -> None:
    office.raise_budget(wanted(seconds=2 * DAY), ME)
    [row] = office.rows(10)
    assert (row["has_budget"], row["by_usd_nanos"]) == (True, 10 * NANOS_PER_USD)
    for change in (("name: search", "name: research"), ("Europe/Berlin", "UTC")):
        assert change[0] in FILE
        renamed = parse_spec(FILE.replace(*change), origin="swell.yaml")
        [row] = replace(office, spec=partial(_same, renamed)).rows(10)
        assert row["has_budget"] is False
    [row] = office.rows(10, knows_budgets=False)
    assert row["has_budget"] is None


def test_without_an_end_it_is_a_credit_for_the_present_period_of_the_budgets_own_calendar(office: Overrides) -> None:
    credit = office.raise_budget(wanted(), ME)
    assert credit.until_unix == 1_701_385_200.0  # 1 December, midnight in Berlin
    assert caps(SPEC, [credit], START_UNIX)[credit.budget_id] == [510, 500]
    assert caps(SPEC, [credit], credit.until_unix)[credit.budget_id] == [500, 500]


@pytest.mark.parametrize(
    ("text", "until_unix"),
    [
        ("2023-11-15", 1_700_002_800.0),  # midnight in Berlin
        ("2023-11-15T18:00", 1_700_067_600.0),
        ("2023-11-15T18:00+00:00", 1_700_071_200.0),
        ("2023-11-15T18:00Z", 1_700_071_200.0),
    ],
)
def test_a_moment_is_in_the_budgets_time_zone_unless_it_names_one(
    office: Overrides, text: str, until_unix: float
) -> None:
    assert office.raise_budget(wanted(until=text), ME).until_unix == until_unix


def test_a_raise_over_several_periods_holds_in_each_while_it_lasts(office: Overrides) -> None:
    made = office.raise_budget(wanted("batch", period="day", seconds=1.5 * DAY), ME)  # until tomorrow at 22:00
    assert caps(SPEC, [made], START_UNIX)[made.budget_id] == [15, 15]
    assert caps(SPEC, [made], START_UNIX + DAY)[made.budget_id] == [15, 5]
    assert caps(SPEC, [made], made.until_unix)[made.budget_id] == [5, 5]
    other = office.raise_budget(wanted("batch", period="day", by_usd="$1", seconds=HOUR), ME)
    assert caps(SPEC, [made, other], START_UNIX)[made.budget_id] == [16, 15]
    assert caps(SPEC, [made, other], START_UNIX)["budget:tenant:batch:*:week:UTC"] == [20, 20]


def test_the_budget_is_found_by_scope_model_and_period(office: Overrides, store: MemoryStore) -> None:
    limits = Limits(budgets=(KeyBudget(7 * NANOS_PER_USD, "day"),))
    key = key_record("abc", tenant="search", limits=limits, expires_at_unix=None)
    store.insert_key(key, audit_entry())
    names = [
        office.raise_budget(request, ME).budget_id
        for request in (
            wanted("organisation"),
            wanted("tenant:search"),
            wanted("search", model="chat"),
            wanted("batch", period="week"),
            wanted("key:abc"),
            wanted("abc"),
            wanted("trial", seconds=60.0),
        )
    ]
    assert names == [
        "budget:organisation::*:month:UTC",
        "budget:tenant:search:*:month:Europe/Berlin",
        "budget:tenant:search:chat:day:UTC",
        "budget:tenant:batch:*:week:UTC",
        "budget:key:abc:*:day:UTC",
        "budget:key:abc:*:day:UTC",
        "budget:tenant:trial:*:once:UTC",
    ]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (wanted("serch"), "'serch' has no budget; did you mean tenant:search?"),
        (wanted("tenant:serch"), "'tenant:serch' has no budget; did you mean tenant:search?"),
        (wanted("free"), "'free' has no budget; there are: organisation, tenant:batch, tenant:search, tenant:trial"),
        (wanted("organisation", model="chat"), "organisation has no budget for model 'chat'; there are: organisation"),
        (wanted("batch", model="caht"), "tenant:batch has no budget for model 'caht'"),
        (
            wanted("batch"),
            "several budgets; say which with --period; there are: tenant:batch --period day; tenant:batch",
        ),
        (
            wanted("batch", period="month"),
            "tenant:batch has no budget per 'month'; there are: tenant:batch --period day",
        ),
        (wanted(by_usd="-5"), "--by '-5' must be more than 0; to allow less, lower it in swell.yaml"),
        (wanted(by_usd="0"), "must be more than 0"),
        (wanted(by_usd="five"), "--by 'five' is not an amount in dollars"),
        (wanted(by_usd="1e-10"), "finer than a nano-dollar"),
        (wanted(by_usd="4611686018"), "is too much; at most "),
        (wanted(reason="  "), "a raise needs a reason"),
        (wanted(reason="a\nb"), "printable"),
        (wanted(until="2023-11-14T10:59"), "must end in the future"),
        (wanted(until="tomorrow"), "--until 'tomorrow' is no moment; write 2026-12-01"),
        (wanted(until="9999-12-31T23:59:59-23:59"), "is no moment|at most 366 days"),
        (wanted(seconds=0.0), "must end in the future"),
        (wanted(seconds=367 * DAY), "at most 366 days"),
        (wanted(until="2023-11-15", seconds=60.0), "contradict each other"),
        (wanted("trial"), "tenant:trial --period once has no period that ends; say until when"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_trace(
    office: Overrides, store: MemoryStore, request_: NewOverride, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        office.raise_budget(request_, ME)
    assert (store.list_overrides(10), store.list_audit(10)) == ([], [])


def test_a_name_alone_is_a_tenants_also_where_a_key_has_that_id(store: MemoryStore, clock: ManualClock) -> None:
    limits = Limits(budgets=(KeyBudget(7 * NANOS_PER_USD, "day"),))
    for name in ("free", "trial"):
        store.insert_key(key_record(name, limits=limits, expires_at_unix=None), audit_entry())
    office = Overrides(lambda: SPEC, store, clock)
    assert office.raise_budget(wanted("trial", seconds=60.0), ME).scope == "tenant"
    assert office.raise_budget(wanted("key:trial"), ME).scope == "key"
    assert office.raise_budget(wanted("free"), ME).scope == "key", "whose tenant has no budget"


def test_raises_of_one_budget_are_bounded_in_number_and_in_sum(office: Overrides) -> None:
    office.raise_budget(wanted(by_usd="4000000000"), ME)
    with pytest.raises(UserError, match="too much; at most"):
        office.raise_budget(wanted(by_usd="4000000000"), ME)
    for _ in range(MAX_IN_FORCE - 1):
        office.raise_budget(wanted(), ME)
    with pytest.raises(UserError, match="100 raises that hold; end some"):
        office.raise_budget(wanted(), ME)


def test_a_raise_is_ended_before_its_time_once(office: Overrides, store: MemoryStore, clock: ManualClock) -> None:
    made = office.raise_budget(wanted(), ME)
    clock.advance(60.0)
    with pytest.raises(UserError, match=f"no raise with the id 'raise' holds now; there are: {made.override_id}"):
        office.end("raise", ME)
    ended = office.end(made.override_id, ME)
    assert ended.over_at_unix == START_UNIX + 60.0
    assert caps(SPEC, [ended], START_UNIX + 60.0)[made.budget_id] == [500, 500]
    with pytest.raises(UserError, match="none does"):
        office.end(made.override_id, ME)
    assert [entry.action for entry in store.list_audit(10)] == ["budget.end_raise", "budget.raise"]


def test_a_credit_of_a_rolling_budget_holds_for_the_length_of_its_window(clock: ManualClock) -> None:
    file = """
models: [{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}]
prices: {chat: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: 10 / rolling 7d}
"""
    office = Overrides(lambda: parse_spec(file, origin="swell.yaml"), MemoryStore(), clock)
    made = office.raise_budget(wanted("organisation", period="rolling 168h"), ME)
    assert (made.period, made.until_unix) == ("rolling 7d", START_UNIX + 7 * DAY)
    assert caps(office.spec(), [made], START_UNIX) == {made.budget_id: [20, 20]}


async def test_a_raise_admits_more_until_it_ends_and_nothing_is_granted_after_it() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, alerts: []}") as world:
        assert world.spend(1000)
        assert not world.spend(1)
        office = Overrides(lambda: world.spec, world.store, world.clock)
        office.raise_budget(wanted(by_usd="5", seconds=HOUR), ME)
        assert await world.budgets.refresh()
        assert world.spend(300)
        assert not world.spend(201)
        world.clock.advance(HOUR - 1.0)
        assert not world.budgets.is_due
        world.clock.advance(1.0)
        assert world.budgets.is_due
        assert await world.budgets.refresh()
        assert not world.budgets.is_due
        assert not world.spend(1)
        (standing, _) = world.budgets.standings()
        assert (standing.limit.cap_usd_nanos, standing.left_usd_nanos) == (10 * NANOS_PER_USD, -3 * NANOS_PER_USD)
        world.clock.advance(14 * HOUR)
        await world.budgets.refresh()
        assert world.spend(1000)


async def test_a_restarted_server_knows_what_is_raised_and_calls_back_what_is_held_beyond_a_fallen_cap() -> None:
    async with AlertWorld(budget="{usd: 10, period: day}") as world:
        office = Overrides(lambda: world.spec, world.store, world.clock)
        made = office.raise_budget(wanted(by_usd="5"), ME)
        await world.begin()
        book, name = world.budgets.book, world.limit.name
        assert isinstance(book.request("worker", name, 12 * NANOS_PER_USD, 12 * NANOS_PER_USD, 0.0), BudgetGrant)
        assert book.overdrawn() == []
        office.end(made.override_id, ME)
        assert await world.budgets.refresh()
        assert book.overdrawn() == [name]
        book.report("worker", name, 0, 12 * NANOS_PER_USD)
        assert book.overdrawn() == []


async def test_what_was_refused_before_a_raise_says_nothing_of_the_raised_budget() -> None:
    async with AlertWorld(budget="{usd: 10, period: day}") as world:
        assert world.spend(950)
        assert not world.spend(100)
        office = Overrides(lambda: world.spec, world.store, world.clock)
        office.raise_budget(wanted(by_usd="10"), ME)
        assert await world.budgets.refresh()
        assert world.spend(900)  # of 20 dollars, 18.50: nothing has been refused since
        assert not world.budgets.standings()[0].is_used_up
        assert not world.spend(200)
        assert world.budgets.standings()[0].is_used_up
