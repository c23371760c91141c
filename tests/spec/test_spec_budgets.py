"""Budgets in the file: what is read, and what is refused with its path and its reason."""

import pytest

from swell.errors import SpecError
from swell.spec import Spec, parse_spec
from swell.spec.money import BudgetSpec

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
