"""The FOCUS export keeps the rules of the specification's version 1.2, and sums to the ledger to the nano-dollar."""

import json
from decimal import Decimal, localcontext
from typing import Any

import focus_rules
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import ledger, request, unix_ms, void

from swell.metering.focus import BY, COLUMNS, TAG_PREFIX, focus_rows, scaled, split_charge
from swell.state.records import UsageChange, UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import UsageGroup
from swell.units import MAX_USD_NANOS, charge_usd_nanos

HOUR = "2026-11-29T14:00:00+00:00"


@pytest.fixture(autouse=True)
def exact():
    """Products of the specification's equations have more digits than Python keeps by default."""
    with localcontext(prec=100):
        yield


def exported(*changes: UsageChange) -> list[focus_rules.Row]:
    groups = ledger(*changes).group_usage(UsageFilter(), BY, "hour")
    return list(focus_rows(groups, "Example Ltd"))


def group(**fields: Any) -> UsageGroup:
    given = {
        "tenant": "search", "key_id": "k", "model": "chat", "status": UsageStatus.SETTLED, "start_unix_ms": 0,
        "prompt_rate": 150_000_000, "completion_rate": 600_000_000, "requests": 1, "void_requests": 0,
        "prompt_tokens": 1000, "completion_tokens": 200, "charge_usd_nanos": 270_000, **fields,
    }  # fmt: skip
    return UsageGroup(**given)


def total(rows: list[focus_rules.Row], column: str) -> Decimal:
    return sum((Decimal(row[column] or "0") for row in rows), Decimal(0))


def test_every_mandatory_and_recommended_column_is_there_and_the_rest_is_known_or_custom() -> None:
    assert set(COLUMNS) >= focus_rules.MANDATORY | focus_rules.RECOMMENDED
    known = focus_rules.MANDATORY | focus_rules.RECOMMENDED | focus_rules.CONDITIONAL | focus_rules.LATER
    custom = {name for name in COLUMNS if name not in known}
    assert custom == {"x_KeyId", "x_Requests", "x_Status", "x_TokenKind"}
    assert all(focus_rules.CUSTOM.fullmatch(name) for name in custom)
    assert all(focus_rules.PASCAL.fullmatch(name) and len(name) <= 50 for name in known)
    assert set(focus_rules.COLUMNS) == set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


def test_a_request_is_two_rows_that_say_who_what_when_and_how_much() -> None:
    prompt, completion = exported(request("a", HOUR))
    focus_rules.check_rows([prompt, completion])
    assert set(prompt) == set(COLUMNS)
    said = {
        "BilledCost": ("0.00015", "0.00012"),
        "ListCost": ("0.00015", "0.00012"),
        "ConsumedQuantity": ("1000", "200"),
        "PricingQuantity": ("0.001", "0.0002"),
        "ListUnitPrice": ("0.15", "0.6"),
        "ConsumedUnit": ("Tokens", "Tokens"),
        "PricingUnit": ("1000000 Tokens", "1000000 Tokens"),
        "SkuId": ("chat:prompt-tokens", "chat:completion-tokens"),
        "SkuPriceId": ("chat:prompt-tokens:150000000", "chat:completion-tokens:600000000"),
        "SkuMeter": ("Prompt Tokens", "Completion Tokens"),
        "ChargeDescription": (
            "Prompt tokens of chat at $0.15 per million",
            "Completion tokens of chat at $0.60 per million",
        ),
        "x_TokenKind": ("prompt", "completion"),
        "x_Requests": ("1", None),
    }
    for name, values in said.items():
        assert (prompt[name], completion[name]) == values, name
    same = {
        "BillingAccountId": "Example Ltd", "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z", "ChargePeriodStart": "2026-11-29T14:00:00Z",
        "ChargePeriodEnd": "2026-11-29T15:00:00Z", "SubAccountId": "search", "ResourceName": "chat",
        "ResourceId": "Example Ltd/models/chat", "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Swell", "ProviderName": "Example Ltd", "ServiceProviderName": "Example Ltd",
        "x_KeyId": "key1", "x_Status": "settled", "ChargeClass": None, "RegionId": None,
    }  # fmt: skip
    for row in (prompt, completion):
        assert {name: row[name] for name in same} == same


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("BilledCost", None), ("BilledCost", "$1"), ("BilledCost", "1,000"), ("BilledCost", "+1"),
        ("BillingCurrency", "usd"), ("ChargePeriodStart", "2026-11-29 14:00:00"),
        ("ChargePeriodStart", "2026-11-29T14:00:00+00:00"), ("ChargePeriodEnd", "2026-12-01T00:00:01Z"),
        ("ChargeCategory", "Tokens"), ("ChargeClass", ""), ("ConsumedUnit", "tokens"), ("PricingUnit", "1e6 Tokens"),
        ("ListCost", "0.000150001"), ("ContractedCost", "0"), ("PricingQuantity", "1"), ("ListUnitPrice", "-0.15"),
        ("ServiceSubcategory", "Inference"), ("SkuPriceId", None), ("SubAccountName", None), ("RegionId", "here"),
        ("SkuPriceDetails", '{"Model": "chat"}'), ("Tags", '{"a": {"b": 1}}'), ("Tags", '{"a": 1, "a": 2}'),
        ("ProviderName", " "), ("EffectiveCost", "0"), ("ResourceName", "Example Ltd/models/chat"),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_found(column: str, value: str | None) -> None:
    row = {**exported(request("a", HOUR))[0], column: value}
    with pytest.raises(AssertionError):
        focus_rules.check_row(row)


def test_rows_are_by_hour_tenant_key_model_status_and_price() -> None:
    changes = (
        request("a", HOUR),
        request("same", "2026-11-29T14:59:59.999+00:00"),
        request("hour", "2026-11-29T15:00:00+00:00"),
        request("tenant", HOUR, tenant="ads"),
        request("key", HOUR, key_id="key2"),
        request("model", HOUR, model="embed", completion_tokens=0),
        request("status", HOUR, status="reserved"),
        request("price", HOUR, prompt_rate=200_000_000),
    )
    rows = exported(*changes)
    focus_rules.check_rows(rows)
    assert len(rows) == 7 * 2 - 1, "what has no completion tokens has no row for them"
    assert total(rows, "x_Requests") == len(changes)
    assert {row["x_Status"] for row in rows} == {"settled", "reserved"}


def test_the_last_hour_of_the_year_is_in_its_billing_period() -> None:
    rows = exported(request("a", "2026-12-31T23:30:00+00:00"))
    focus_rules.check_rows(rows)
    assert rows[0]["ChargePeriodEnd"] == rows[0]["BillingPeriodEnd"] == "2027-01-01T00:00:00Z"


def test_void_requests_used_nothing_and_have_no_row() -> None:
    assert exported(void("v", HOUR)) == []
    assert len(exported(void("v", HOUR), request("a", HOUR))) == 2


def test_what_costs_nothing_is_there_with_its_quantity() -> None:
    rows = exported(request("free", HOUR, prompt_rate=0, completion_rate=0))
    focus_rules.check_rows(rows)
    assert [(row["BilledCost"], row["ListUnitPrice"], row["ConsumedQuantity"]) for row in rows] == [
        ("0", "0", "1000"),
        ("0", "0", "200"),
    ]


def test_a_request_without_its_beginning_is_null_where_it_may_be() -> None:
    [row] = exported(request("late", HOUR, tenant="", key_id="", model="", completion_tokens=0))
    focus_rules.check_row(row)
    assert (row["SubAccountId"], row["SubAccountName"], row["x_KeyId"]) == (None, None, None)
    assert row["SkuId"] == "unknown:prompt-tokens"


def test_tags_are_the_provider_s_and_have_its_prefix() -> None:
    [row, _] = exported(request("a", HOUR, model='quo"te, ünïcode\n'))
    focus_rules.check_row(row)
    tags = json.loads(row["Tags"] or "")
    assert tags == {"swell/tenant": "search", "swell/key_id": "key1", "swell/model": 'quo"te, ünïcode\n'}
    assert all(name.startswith(TAG_PREFIX) for name in tags)


@pytest.mark.parametrize(
    ("fields", "split"),
    [
        ({}, (150_000, 120_000)),
        ({"completion_tokens": 0, "charge_usd_nanos": 150_000}, (150_000, 0)),
        ({"prompt_tokens": 0, "charge_usd_nanos": 120_000}, (0, 120_000)),
        ({"charge_usd_nanos": 270_001}, (150_000, 120_001)),  # rounded up: the completion bears it
        ({"charge_usd_nanos": 27_000}, (15_000, 12_000)),  # charged at the bound: in proportion
        ({"prompt_rate": 0, "completion_rate": 0, "charge_usd_nanos": 0}, (0, 0)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "charge_usd_nanos": 5}, (5, 0)),
    ],
)
def test_a_charge_is_split_in_proportion(fields: dict[str, int], split: tuple[int, int]) -> None:
    assert split_charge(group(**fields)) == split


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0, 9, "0"), (1, 15, "0.000000000000001"), (10**9, 9, "1"), (1_500_000_000, 9, "1.5"), (-1, 9, "-0.000000001"),
     (MAX_USD_NANOS, 9, "4611686018.427387904"), (10**40, 15, "1" + "0" * 25)],
)  # fmt: skip
def test_amounts_have_every_digit_and_no_exponent(value: int, digits: int, text: str) -> None:
    assert scaled(value, digits) == text
    assert focus_rules.is_decimal(text)
    assert Decimal(text).scaleb(digits) == value


RATES = st.integers(0, 10**13)
TOKENS = st.integers(0, 2**50)
START = unix_ms("2026-11-29T14:00:00+00:00")


@given(
    prompt=TOKENS, completion=TOKENS, prompt_rate=RATES, completion_rate=RATES, charge=st.integers(0, MAX_USD_NANOS),
    requests=st.integers(1, 10**9), hour=st.integers(0, 24 * 800),
)  # fmt: skip
def test_any_group_keeps_every_rule_and_its_rows_sum_to_its_charge(
    prompt: int, completion: int, prompt_rate: int, completion_rate: int, charge: int, requests: int, hour: int
) -> None:
    fields = {"prompt_tokens": prompt, "completion_tokens": completion, "prompt_rate": prompt_rate,
              "completion_rate": completion_rate, "charge_usd_nanos": charge, "requests": requests,
              "start_unix_ms": START + hour * 3_600_000}  # fmt: skip
    rows = list(focus_rows([group(**fields)], "Example Ltd"))
    focus_rules.check_rows(rows)
    assert total(rows, "BilledCost").scaleb(9) == charge
    assert total(rows, "EffectiveCost").scaleb(9) == charge
    assert total(rows, "ConsumedQuantity") == prompt + completion
    assert total(rows, "x_Requests") == requests


@st.composite
def priced(draw: st.DrawFn) -> list[UsageChange]:
    """Requests as they are charged: each rounded up once, and some at their bound, below what was reported."""
    changes = []
    for number in range(draw(st.integers(0, 12))):
        amounts = draw(
            st.tuples(TOKENS, TOKENS, st.sampled_from([0, 1, 150_000_001]), st.sampled_from([3, 600_000_000]))
        )
        charge = charge_usd_nanos(*amounts)
        names = ("prompt_tokens", "completion_tokens", "prompt_rate", "completion_rate")
        changes.append(
            request(
                f"r{number}",
                START + draw(st.integers(0, 3)) * 1_800_000,
                tenant=draw(st.sampled_from(["one", "two"])),
                status=draw(st.sampled_from(["settled", "estimated", "reserved"])),
                charge_usd_nanos=draw(st.sampled_from([charge, charge // 2])),
                **dict(zip(names, amounts, strict=True)),
            )
        )
    return changes


@given(changes=priced())
def test_an_export_sums_to_the_ledger_and_list_cost_differs_by_less_than_a_nano_dollar_a_request(changes) -> None:
    rows = exported(*changes)
    focus_rules.check_rows(rows)
    charged = sum(change.charge_usd_nanos for change in changes)
    assert total(rows, "BilledCost").scaleb(9) == charged
    at_price = [change for change in changes if change.charge_usd_nanos == full_charge(change)]
    if len(at_price) == len(changes):
        excess = total(rows, "BilledCost").scaleb(9) - total(rows, "ListCost").scaleb(9)
        assert 0 <= excess < max(1, len(changes))


def full_charge(change: UsageChange) -> int:
    return charge_usd_nanos(change.prompt_tokens, change.completion_tokens, change.prompt_rate, change.completion_rate)
