"""Budgets in the file: what is read, and what is refused with its path and its reason."""

import pytest

from swell.errors import SpecError
from swell.spec import Spec, parse_spec
from swell.spec.budgets import BudgetSpec
from swell.units import usd_nanos

FILE = """
models: [{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}]
prices: {chat: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: %s}
"""

VARIANTS = """
models:
  - {name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"], cheaper_variant: small}
  - {name: small, engine: external, endpoints: ["http://127.0.0.1:9102"]}
prices: {chat: {usd_per_million_prompt_tokens: 2}, small: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: %s}
"""


def parse(budget: str, file: str = FILE) -> Spec:
    return parse_spec(file % budget, origin="swell.yaml")


def budget(text: str) -> BudgetSpec:
    return parse(text).organisation.budget[0]


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse(text)
    return [line.strip() for line in str(caught.value).splitlines()[1:]] or [str(caught.value)]


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("20", 0),
        ("{usd: 20, grace_usd: 1.50}", 1_500_000_000),
        ("{usd: 20, grace: 5%}", 1_000_000_000),
        ("{usd: 0.000000199, grace: 1 %}", 1),  # of 1.99 nano-dollars a whole one
        ("{usd: 20, grace: 100%}", 20_000_000_000),
        ("{usd: 0, grace_usd: 0}", 0),
    ],
)
def test_a_grace_is_an_amount_or_a_share_of_the_budget(text: str, nanos: int) -> None:
    assert budget(text).grace_usd_nanos == nanos


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{usd: 20, grace: 101%}", "grace: '101%' must be from 1% to 100% of the budget; or an amount in grace_usd"),
        ("{usd: 20, grace: 5 USD}", "grace: '5 USD' is not a share; write whole percent, such as 5%; or an amount"),
        ("{usd: 20, grace: 5}", "grace: 5 must be text; put it in quotes"),
        ("{usd: 20, grace_usd: -1}", "grace_usd: -1 is negative; an amount is 0 or more"),
        ("{usd: 20, grace_usd: 20.01}", "grace_usd: 20.01 is more than the budget itself; raise usd instead"),
        ("{usd: 20, grace_usd: 1, grace: 5%}", "grace: contradicts grace_usd; keep one of them"),
    ],
)
def test_a_grace_that_makes_no_sense_is_refused_with_path_and_reason(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert f"organisation.budget[0].{expected}" in problem


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("20 / rolling 24h", "rolling 24h"),
        ("{usd: 20, period: 30d rolling}", "rolling 30d"),
        ("{usd: 20, period: Rolling 1 day}", "rolling 24h"),
        ("{usd: 20, period: rolling 48 hours}", "rolling 2d"),
        ("{usd: 20, period: rolling 36h}", "rolling 36h"),
        ("{usd: 20, budget_duration: rolling 366d}", "rolling 366d"),
        ("{usd: 20, period: rolling 1h}", "rolling 1h"),
        ("{usd: 20, budget_duration: 24h}", "day"),  # LiteLLM's, which begins anew
        ("{usd: 20, period: Monthly}", "month"),
    ],
)
def test_a_period_is_known_by_one_name(text: str, period: str) -> None:
    assert budget(text).period == period


def test_a_rolling_budget_has_no_forecast_by_default() -> None:
    assert budget("{usd: 20, period: rolling 24h}").alerts == ("50%", "80%", "100%")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{usd: 20, period: rolling 90m}", "period: 'rolling 90m' is no rolling window; write whole hours or days"),
        ("{usd: 20, period: rolling}", "period: 'rolling' is no rolling window"),
        ("{usd: 20, period: rolling 0h}", "period: 'rolling 0h' must be from 1h to 366d long"),
        ("{usd: 20, period: rolling 367d}", "period: 'rolling 367d' must be from 1h to 366d long"),
        ("{usd: 20, period: rolling 999999999d}", "must be from 1h to 366d long"),
        ("{usd: 20, period: rolling 9999999999d}", "is no rolling window"),
        (
            "{usd: 20, period: mont}",
            "'mont' is not one of hour, day, week, month, quarter, year, once, nor a window such",
        ),
        ("{usd: 20, period: mont}", "; did you mean month?"),
        ("{usd: 20, period: 30}", "period: 30 must be a period, such as month or rolling 24h"),
        ("{usd: 20, period: rolling 24h, alerts: [forecast 90%]}", "budget that rolls has none; take it out"),
        (
            "{usd: 20, period: rolling 24h, time_zone: Europe/Berlin}",
            "time_zone: is of no use: a rolling window follows no calendar; leave it out",
        ),
        ("[20 / rolling 24h, 30 / rolling 1d]", "has two budgets per rolling 24h for the same requests"),
    ],
)
def test_a_period_that_makes_no_sense_is_refused_with_path_and_reason(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert expected in problem


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("20", ()),
        ("{usd: 20, at_limit: []}", ()),
        ("{usd: 20, at_limit: block}", ("block 100%",)),
        ("{usd: 20, at_limit: [throttle, Shed_Batch 80 %]}", ("shed_batch 80%", "throttle 98%")),
        (
            "{usd: 20, at_limit: [shed_batch, cheaper_variant, throttle, block 100%]}",
            ("shed_batch 90%", "cheaper_variant 95%", "throttle 98%", "block 100%"),
        ),
        ("{usd: 20, grace: 10%, at_limit: [throttle 105%]}", ("throttle 105%",)),
    ],
)
def test_steps_are_read_with_their_shares_in_rising_order(text: str, steps: tuple[str, ...]) -> None:
    found = parse(text, VARIANTS).organisation.budget[0]
    assert found.at_limit == steps
    assert "block" not in [step.name for step in found.steps]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{usd: 20, at_limit: [shed_batches]}",
            "at_limit[0]: 'shed_batches' is not one of shed_batch, cheaper_variant",
        ),
        ("{usd: 20, at_limit: [shed_batches]}", "; did you mean shed_batch?"),
        ("{usd: 20, at_limit: [throttle at 5%]}", "is not a step; write one such as shed_batch 80%"),
        ("{usd: 20, at_limit: [throttle 0%]}", "must be from 1% to 200% of the budget"),
        ("{usd: 20, at_limit: [block 90%]}", "has no share of its own: requests are refused when the amount and its"),
        (
            "{usd: 20, at_limit: [throttle, throttle 90%]}",
            "at_limit: a list has throttle twice; keep the one that is meant",
        ),
        ("{usd: 20, at_limit: [throttle 101%]}", "at_limit: 'throttle 101%' is never reached: requests are refused"),
        (
            "{usd: 20, grace: 5%, at_limit: [shed_batch, throttle 106%]}",
            "at_limit: 'throttle 106%' is never reached",
        ),
        ("{usd: 20, throttle_requests_per_minute: 5}", "throttle_requests_per_minute: has no effect without throttle"),
        ("{usd: 20, at_limit: throttle, throttle_requests_per_minute: 0}", "throttle_requests_per_minute: 0"),
        ("{usd: 20, at_limit: cheaper_variant}", "at_limit: cheaper_variant has nothing to go to: no model names one"),
    ],
)
def test_steps_that_make_no_sense_are_refused_with_path_and_reason(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert expected in problem


@pytest.mark.parametrize(
    ("variant", "prices", "expected"),
    [
        ("small", "chat: {input: 2, output: 2}, small: {input: 1, output: 2}", ""),
        ("smal", "chat: {input: 2}", "models[0].cheaper_variant: there is no model 'smal'; name one of: small"),
        ("chat", "chat: {input: 2}", "models[0].cheaper_variant: 'chat' is not cheaper than 'chat'"),
        ("small", "chat: {input: 2}, small: {input: 2}", "'small' is not cheaper than 'chat'; name one that is"),
        ("small", "chat: {input: 2, output: 2}, small: {input: 1, output: 3}", "'small' is not cheaper than 'chat'"),
    ],
)
def test_a_cheaper_variant_exists_and_is_cheaper(variant: str, prices: str, expected: str) -> None:
    file = f"""
models:
  - {{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"], cheaper_variant: {variant}}}
  - {{name: small, engine: external, endpoints: ["http://127.0.0.1:9102"]}}
prices: {{{prices}}}
"""
    if not expected:
        assert parse_spec(file, origin="swell.yaml").models[0].cheaper_variant == "small"
        return
    with pytest.raises(SpecError) as caught:
        parse_spec(file, origin="swell.yaml")
    assert expected in str(caught.value)


def test_variants_in_a_circle_are_refused_since_one_of_them_is_not_cheaper() -> None:
    file = """
models:
  - {name: a, engine: external, endpoints: ["http://127.0.0.1:9101"], cheaper_variant: b}
  - {name: b, engine: external, endpoints: ["http://127.0.0.1:9102"], cheaper_variant: a}
prices: {a: {input: 2}, b: {input: 1}}
"""
    with pytest.raises(SpecError, match="'a' is not cheaper than 'b'"):
        parse_spec(file, origin="swell.yaml")


@pytest.mark.parametrize(
    ("text", "dollars"),
    [("010", "10"), ("{usd: 010}", "10"), ("08.50", "8.50"), ("1_000", "1000"), ("[007 / day]", "7")],
)
def test_amounts_are_decimal_whatever_they_begin_with(text: str, dollars: str) -> None:
    assert budget(text).usd_nanos == usd_nanos(dollars)


@pytest.mark.parametrize("text", ["0x10", "0b11", "0o17", "1:30", "0x_1F", "190:20:30.15"])
def test_amounts_in_other_bases_are_refused_with_their_path(text: str) -> None:
    [problem] = problems(f"{{usd: {text}}}")
    assert problem.startswith(f"swell.yaml: organisation.budget[0].usd: {text!r} must be in US dollars")


def test_numbers_in_other_bases_are_no_numbers_anywhere() -> None:
    file = FILE.replace("organisation:", "server: {port: 0x1F90}\norganisation:")
    with pytest.raises(SpecError, match=r"server\.port") as refused:
        parse("20", file)
    assert "0x1F90" in str(refused.value)
    with pytest.raises(SpecError, match="holds a value that cannot be read"):
        parse("!!int 0x10")


@pytest.mark.parametrize(("given", "nearest"), [("Berlin", "Europe/Berlin"), ("America/New York", "America/New_York")])
def test_a_mistyped_time_zone_is_answered_with_the_nearest(given: str, nearest: str) -> None:
    [problem] = problems(f"{{usd: 20, time_zone: {given}}}")
    assert problem.endswith(f"time_zone: {given!r} is not a time zone; did you mean {nearest}?")
