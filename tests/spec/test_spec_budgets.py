"""Budgets in the file: what is read, and what is refused with its path and its reason."""

import pytest

from swell.errors import SpecError
from swell.spec import Spec, parse_spec
from swell.spec.budgets import BudgetSpec

FILE = """
models: [{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}]
prices: {chat: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: %s}
"""


def parse(budget: str) -> Spec:
    return parse_spec(FILE % budget, origin="swell.yaml")


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
