"""Rates that follow from cost: they bring it back, do not jump, and are never negative."""

from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from swell.metering.attribution import Attribution, Capability, Line
from swell.metering.periods import Period
from swell.metering.posted_rates import Facts, Offer, capacity_rates, divided, marked_up, posted
from swell.metering.work import Load
from swell.policy.scaling.capacity import replica_seconds
from swell.spec.prices import PostedPrice
from swell.state.posted_rates import PostedRate
from swell.state.scaling import LatencyProfile, Objective
from swell.units import TOKENS_PER_RATE, charge_usd_nanos

DAY_MS = 86_400_000
DAY = Period(86_400.0, 172_800.0, "1970-01-02")
DOLLAR = 10**9
PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000)
OBJECTIVE = Objective(5000, 100)
KNOWN = Capability(PROFILE, OBJECTIVE)
MANY = Decimal(10_000)

tokens = st.integers(0, 10**12)
loads = st.builds(Load, st.integers(1, 10**6), tokens, tokens).filter(lambda x: x.prompt_tokens + x.completion_tokens)
capabilities = st.sampled_from([KNOWN, Capability()])
costs = st.integers(0, 10**18)


def offer(capability: Capability = KNOWN, hour: int = 2 * DOLLAR, **terms: object) -> Offer:
    terms = {"max_usd_per_million_tokens": MANY} | terms
    return Offer("m", PostedPrice(**terms), capability, hour)  # type: ignore[arg-type]  # the test's own shorthand


def facts(cost: int, load: Load, used: int | None = None, since: int = 0, until: int = DAY_MS) -> Facts:
    used = cost if used is None else used
    return Facts(since, until, Attribution(0, cost - used, {("t", "k"): Line(used, 1, load)}))


def before(missed: int = 0, rates: tuple[int, int] = (5, 7), end: int = DAY_MS) -> PostedRate:
    return PostedRate(
        model="m", start_unix_ms=0, end_unix_ms=end, label="", prompt_rate=rates[0], completion_rate=rates[1],
        basis="cost", reason="", since_unix_ms=0, until_unix_ms=0, missed_usd_nanos=missed, counted_until_unix_ms=0,
        posted_at_unix_ms=0,
    )  # fmt: skip


def comes_to(rates: tuple[int, int], load: Load) -> int:
    return charge_usd_nanos(load.prompt_tokens, load.completion_tokens, *rates)


@given(costs, loads, capabilities, st.integers(0, 10_000_000))
def test_the_same_tokens_charged_at_the_rate_bring_the_cost_back_with_its_markup(
    cost: int, load: Load, capability: Capability, markup_ppm: int
) -> None:
    due = marked_up(cost, markup_ppm)
    assert 0 <= due * 10**6 - cost * (10**6 + markup_ppm) < 10**6
    rates = divided(due, load, capability)
    assert min(rates) >= 0
    over = comes_to(rates, load) - due
    assert 0 <= over <= (load.prompt_tokens + load.completion_tokens) // TOKENS_PER_RATE + 1, "a nano-dollar a million"


@given(costs, st.integers(0, 10**15), loads, capabilities)
def test_a_higher_cost_never_makes_a_rate_lower(cost: int, more: int, load: Load, capability: Capability) -> None:
    low, high = (divided(amount, load, capability) for amount in (cost, cost + more))
    assert low[0] <= high[0]
    assert low[1] <= high[1]


@given(costs, loads, st.integers(1, 50))
def test_more_tokens_for_the_same_cost_never_make_a_rate_higher(cost: int, load: Load, times: int) -> None:
    more = Load(load.requests * times, load.prompt_tokens * times, load.completion_tokens * times)
    few, many = divided(cost, load, Capability()), divided(cost, more, Capability())
    assert many[0] <= few[0]
    assert many[1] <= few[1]


@given(costs, loads, st.integers(-(10**18), 10**18), capabilities, st.booleans(), st.booleans())
def test_no_rate_is_negative_and_carrying_changes_it_by_half_of_what_is_due_at_most(
    cost: int, load: Load, missed: int, capability: Capability, recover: bool, include_unused: bool
) -> None:
    made = offer(capability, recover=recover, include_unused=include_unused)
    rate = posted(made, DAY, facts(cost, load, cost // 3), before(missed), 5)
    assert min(rate.rates) >= 0
    due = cost if include_unused else cost // 3
    assert rate.missed_usd_nanos == missed + due - load.charge_usd_nanos
    assert abs(rate.carried_usd_nanos) <= (due // 2 if recover else 0)


def test_tokens_share_the_cost_by_their_work() -> None:
    load = Load(1000, 1000 * 1000, 1000 * 100)
    prompt, completion = divided(DOLLAR, load, KNOWN)
    weighted = divided(DOLLAR, load, Capability())
    assert weighted[1] == pytest.approx(4 * weighted[0], rel=1e-6)
    request_ms = replica_seconds(PROFILE, OBJECTIVE, 1000, 100) * 1000
    share = prompt * load.prompt_tokens / (DOLLAR * TOKENS_PER_RATE)
    assert share == pytest.approx(PROFILE.prefill_ms(1000) / request_ms, rel=1e-6)
    assert completion > prompt


def test_a_kind_without_tokens_keeps_its_rate() -> None:
    assert divided(DOLLAR, Load(1, 10**6, 0), KNOWN, (5, 7)) == (DOLLAR, 7)
    assert divided(DOLLAR, Load(1, 0, 10**6), KNOWN, (5, 7)) == (5, DOLLAR)
    assert divided(DOLLAR, Load(1, 0, 10**6), Capability(), (5, 7)) == (5, DOLLAR)


def test_without_use_the_last_rate_stays_and_what_was_missed_is_carried_on() -> None:
    rate = posted(offer(), DAY, Facts(0, DAY_MS, Attribution(1, 99)), before(1000), 5)
    assert (rate.rates, rate.basis) == ((5, 7), "last")
    assert rate.reason == "there were no requests: the last rate stays"
    assert (rate.missed_usd_nanos, rate.carried_usd_nanos) == (1100, 0)
    free = posted(offer(), DAY, facts(0, Load(9, 10, 10)), before(), 5)
    assert (free.rates, free.reason) == ((5, 7), "nothing that counts was spent on replicas: the last rate stays")


def test_the_first_rate_is_what_capacity_costs_at_the_stated_utilisation() -> None:
    load = Load(1, 1000, 100)
    half = offer(utilisation="0.5", expected_prompt_tokens=1000, expected_completion_tokens=100)
    rate = posted(half, DAY, Facts(0, 0), None, 123)
    assert rate.basis == "capacity"
    assert rate.reason == (
        "no cost is known yet: $2.00 a replica-hour, used to 50% of m@X, for requests of 1000 and 100 tokens"
    )
    an_hour = 3600 / replica_seconds(PROFILE, OBJECTIVE, 1000, 100) / 2
    assert comes_to(rate.rates, load) * an_hour == pytest.approx(2 * DOLLAR, rel=1e-5)
    assert (rate.missed_usd_nanos, rate.counted_until_unix_ms) == (0, 123)
    stated = offer(Capability(), tokens_per_second=100, utilisation="1", markup_percent="25")
    assert capacity_rates(stated) == pytest.approx((1_736_111_112, 6_944_444_445), rel=1e-8), (
        "$2.50 over 360,000 completion tokens"
    )
    assert capacity_rates(offer(Capability())) is None
    with pytest.raises(ValueError, match="nothing is known"):
        posted(offer(Capability()), DAY, Facts(0, 0), None, 0)


def test_a_month_that_is_missed_in_a_day_is_recovered_over_as_long_as_it_takes() -> None:
    """A day's facts and a month's rate: a day's under-recovery is spread over the month's tokens, not paid daily."""
    month = Period(86_400.0, 86_400.0 * 31, "month")
    rate = posted(offer(), month, facts(30 * DOLLAR, Load(1, 10**6, 0, 0)), before(0), 5)
    assert rate.missed_usd_nanos == 30 * DOLLAR
    assert rate.carried_usd_nanos == DOLLAR
    assert rate.prompt_rate == 31 * DOLLAR
    assert rate.reason.endswith("; $1.00 of under-recovery added")


def test_after_a_gap_nothing_is_carried() -> None:
    rate = posted(offer(), DAY, facts(DOLLAR, Load(1, 10**6, 0)), before(10**12, end=DAY_MS - 1), 7)
    assert (rate.missed_usd_nanos, rate.carried_usd_nanos, rate.prompt_rate) == (0, 0, DOLLAR)
    assert rate.counted_until_unix_ms == 7


def test_a_rate_has_a_ceiling_and_says_so() -> None:
    rate = posted(offer(max_usd_per_million_tokens="2"), DAY, facts(10 * DOLLAR, Load(1, 10**6, 0)), None, 0)
    assert rate.prompt_rate == 2 * DOLLAR
    assert rate.reason.endswith("; no more than $2.00 per million tokens")


@given(st.integers(10**6, 10**12), st.integers(0, 10**12), loads)
def test_over_like_periods_recovery_goes_to_zero(cost: int, first: int, load: Load) -> None:
    """Whatever the first rate brought in, as far as rates are fine enough for it."""
    rounding = (load.prompt_tokens + load.completion_tokens) // TOKENS_PER_RATE + 2
    assume(cost > 10 * rounding)
    missed, last = cost - first, before(cost - first)
    for day in range(1, 40):
        period = Period(day * 86_400.0, (day + 1) * 86_400.0, "")
        charged = Load(load.requests, load.prompt_tokens, load.completion_tokens, comes_to(last.rates, load))
        since = day * DAY_MS
        known = facts(cost, charged, since=since - DAY_MS, until=since)
        last = posted(offer(max_usd_per_million_tokens=MANY), period, known, last, since)
        if day == 1:
            missed = last.missed_usd_nanos
        if max(last.rates) >= 10**13:
            return  # at the ceiling
    assert abs(last.missed_usd_nanos) <= max(abs(missed) - 10 * cost, 0) + 2 * rounding
