"""What `swell keys create --budget` takes, as it is typed, and what a key then has."""

import pytest

from swell.cli.key_budgets import BudgetOptions, key_budgets_of, shown_budget
from swell.errors import UserError
from swell.server.administration import key_budgets
from swell.spec import parse_spec
from swell.state.budgets import KeyBudget
from swell.units import NANOS_PER_USD

USD = NANOS_PER_USD
BERLIN = "Europe/Berlin"
LADDER = ("shed_batch 80%", "throttle 98%")


@pytest.mark.parametrize(
    ("text", "options", "made"),
    [
        ("10 / month", BudgetOptions(), KeyBudget(10 * USD, "month")),
        ("$10", BudgetOptions(BERLIN), KeyBudget(10 * USD, "month", BERLIN)),
        ("2/rolling 24h", BudgetOptions(BERLIN), KeyBudget(2 * USD, "rolling 24h")),
        ("10 / day", BudgetOptions(grace="5%"), KeyBudget(10 * USD, "day", grace_usd_nanos=USD // 2)),
        ("10 / day", BudgetOptions(grace="$0.25"), KeyBudget(10 * USD, "day", grace_usd_nanos=USD // 4)),
        (
            "10 / day",
            BudgetOptions(at_limit=("throttle", "shed_batch 80%"), throttle_requests_per_minute=3),
            KeyBudget(10 * USD, "day", at_limit=LADDER, throttle_requests_per_minute=3),
        ),
        (
            "{usd: 10, period: day, model: chat, grace: 10%, at_limit: [shed_batch 80%, throttle]}",
            BudgetOptions(BERLIN, grace="5%"),
            KeyBudget(10 * USD, "day", BERLIN, "chat", USD, LADDER),
        ),
        ("{max_budget: 3, budget_duration: 7d}", BudgetOptions(), KeyBudget(3 * USD, "week")),
    ],
)
def test_a_budget_is_what_was_typed_and_the_options_say_the_rest(
    text: str, options: BudgetOptions, made: KeyBudget
) -> None:
    assert key_budgets_of([text], options) == (made,)
    (spec,) = key_budgets((made,))
    assert (spec.usd_nanos, spec.grace_usd_nanos, spec.model or "") == (
        made.usd_nanos, made.grace_usd_nanos, made.model,
    )  # fmt: skip
    assert (spec.at_limit, spec.throttle_requests_per_minute) == (made.at_limit, made.throttle_requests_per_minute)


def test_a_key_says_what_a_tenant_would_say() -> None:
    fields = "{usd: 10, period: day, grace: 5%, at_limit: [shed_batch 80%, throttle], throttle_requests_per_minute: 7}"
    models = 'models: [{name: chat, engine: external, endpoints: ["http://a:1"]}]\n'
    prices = "prices: {chat: {usd_per_million_prompt_tokens: 1}}\n"
    text = f"{models}{prices}tenants: [{{name: search, budget: {fields}}}]"
    (tenants,) = parse_spec(text, origin="x").tenants[0].budget
    (keys,) = key_budgets(key_budgets_of([fields], BudgetOptions()))
    assert (keys.steps, keys.grace_usd_nanos) == (tenants.steps, tenants.grace_usd_nanos)
    assert keys.throttled_requests_per_minute == tenants.throttled_requests_per_minute == 7


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        ([], BudgetOptions(grace="5%"), "belong to a budget; give --budget as well"),
        (["10 / day"], BudgetOptions(grace="20"), "'10 / day': grace_usd: 20 is more than the budget itself"),
        (["10 / day"], BudgetOptions(grace="5 %%"), "grace: '5 %%' "),
        (["10 / day"], BudgetOptions(at_limit=("throtle",)), "at_limit.0.: 'throtle' is not one of .* mean throttle"),
        (["10 / day"], BudgetOptions(at_limit=("throttle", "throttle 90%")), "has throttle twice"),
        (["10 / day"], BudgetOptions(throttle_requests_per_minute=3), "has no effect without throttle in at_limit"),
        (["10 / fortnight"], BudgetOptions(), "period: 'fortnight' is not one of hour, day"),
        (["1 / day", "{usd: 1, period: rolling 1h, time_zone: Europe/Berlin}"], BudgetOptions(), "no calendar"),
        (["{usd: 10"], BudgetOptions(), "expected ',' or '}'"),
        (["{10}"], BudgetOptions(), "10.*known field|mapping of fields"),
        (["{usd: 10, alerts: [50%]}"], BudgetOptions(), "alerts: a key's budget alerts at the usual thresholds"),
        (["{usd: 10, perod: day}"], BudgetOptions(), "perod: is not a known field .* did you mean period"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(
    given: list[str], options: BudgetOptions, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        key_budgets_of(given, options)


def test_a_budget_is_shown_with_its_grace_and_steps() -> None:
    shown = {"usd_nanos": 10 * USD, "period": "day", "model": "chat", "grace_usd_nanos": USD, "at_limit": LADDER}
    assert shown_budget(shown) == "$10.00 / day on chat + $1.00 grace (shed_batch 80%, throttle 98%)"
    assert shown_budget({"usd_nanos": 10 * USD, "period": "day"}) == "$10.00 / day"
