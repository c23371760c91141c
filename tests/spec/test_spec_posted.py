"""Prices that follow from cost: what the file may say, and what is refused with its path."""

from decimal import Decimal

import pytest

from swell.spec import SpecRefusedError, parse_spec
from swell.spec.budgets import BudgetPeriod
from swell.spec.prices import ModelPrice, PostedPrice

MODELS = """
models:
  - {name: chat, source: hf://org/chat, usd_per_replica_hour: 1.80, lora: {tuned: /adapters/tuned}}
  - {name: unpriced, source: a.gguf}
  - {name: far, engine: external, endpoints: ["http://127.0.0.1:1"]}
"""


def price_of(text: str, name: str = "chat", more: str = "") -> ModelPrice:
    return parse_spec(f"{MODELS}prices: {text}\n{more}", origin="swell.yaml").price_of(name)


@pytest.mark.parametrize("text", ["{chat: posted}", "{chat: {posted: {}}}", "{chat: {posted: true}}"])
def test_a_word_is_enough_and_adapters_follow_their_model(text: str) -> None:
    assert price_of(text) == price_of(text, "tuned") == ModelPrice(posted=PostedPrice())
    assert not price_of(text).is_free


def test_numbers_are_what_is_written() -> None:
    terms = price_of("{chat: {posted: {markup_percent: 12.3456, utilisation: 0.0001, period: daily}}}").posted
    assert terms is not None
    assert (terms.markup_percent, terms.markup_ppm) == (Decimal("12.3456"), 123_456)
    assert (terms.utilisation_ppm, terms.period, terms.max_rate) == (100, BudgetPeriod.DAY, 10**12)


def test_a_budget_has_something_to_count() -> None:
    assert price_of("{chat: posted}", more="tenants: [{name: t, budget: {usd: 5, model: chat}}]").posted is not None


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("{chat: {posted: {}, input: 1}}", "chat.posted", "contradicts usd_per_million_prompt_tokens"),
        ("{chat: {posted: {}, output_cost_per_token: 0}}", "chat.posted", "contradicts usd_per_million_completion"),
        ("{far: posted}", "far.posted", "needs replicas that Swell starts"),
        ("{unpriced: posted}", "unpriced.posted", "set usd_per_replica_hour of the model 'unpriced'"),
        ("{tuned: posted}", "tuned.posted", "put it under the model's name"),
        ("{none: posted}", "none", "there is no model 'none'"),
        ("{chat: posting}", "chat", "must be a mapping"),
        ("{chat: {posted: {period: once}}}", "chat.posted.period", "never ends"),
        ("{chat: {posted: {period: rolling 24h}}}", "chat.posted.period", "is not one of hour, day"),
        ("{chat: {posted: {time_zone: Mars}}}", "chat.posted.time_zone", "is not a time zone; did you mean "),
        ("{chat: {posted: {markup_percent: -1}}}", "chat.posted.markup_percent", "must be from 0 to 1000 percent"),
        ("{chat: {posted: {markup_percent: 1.23456}}}", "chat.posted.markup_percent", "at most four digits"),
        ("{chat: {posted: {markup_percent: .nan}}}", "chat.posted.markup_percent", "decimal number"),
        ("{chat: {posted: {utilisation: 0}}}", "chat.posted.utilisation", "must be from 0.0001 to 1"),
        ("{chat: {posted: {utilisation: 50%}}}", "chat.posted.utilisation", "must be from 0.0001 to 1"),
        ("{chat: {posted: {tokens_per_second: 0}}}", "chat.posted.tokens_per_second", "greater than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(text: str, path: str, problem: str) -> None:
    with pytest.raises(SpecRefusedError, match="prices") as refused:
        price_of(text)
    assert refused.value.path == f"prices.{path}"
    assert problem in str(refused.value)


@pytest.mark.parametrize("prices", ["{chat: posted}", "{chat: {input: 1}, priced: posted}"])
def test_a_cheaper_variant_needs_rates_that_are_known_ahead(prices: str) -> None:
    models = """
models:
  - {name: chat, source: hf://org/chat, usd_per_replica_hour: 1.80, cheaper_variant: priced}
  - {name: priced, source: b.gguf, usd_per_replica_hour: 0.20}
"""
    with pytest.raises(SpecRefusedError, match="needs fixed rates of both models") as refused:
        parse_spec(f"{models}prices: {prices}", origin="swell.yaml")
    assert refused.value.path == "models[0].cheaper_variant"
