"""The JSON Schema of the file, judged by a validator: it takes what is taken, in every form, and refuses the rest."""

import json

import pytest
from jsonschema import Draft202012Validator

from swell.spec import SpecRefusedError, parse_spec, spec_json_schema
from swell.spec.yaml_text import read_yaml

LAUNCHED = "models: [{name: chat, source: hf://org/chat-8b, usd_per_replica_hour: 0.85%s}]\n"
EXTERNAL = 'models: [{name: chat, engine: external, endpoints: ["http://127.0.0.1:9101"]}]\n'
PRICED = EXTERNAL + "prices: {chat: {usd_per_million_prompt_tokens: 1}}\n"
BUDGETS = (
    "20",
    "20.50",
    "'20 / day'",
    "$20 / rolling 24h",
    "{usd: 20}",
    "{usd: '20', period: rolling 7d, alerts: 80%, at_limit: throttle}",
    "{usd: 20, period: day, grace: 5%, at_limit: [shed_batch 80%, throttle], throttle_requests_per_minute: 3}",
    "[{usd: 20, period: month, time_zone: Europe/Berlin, alerts: []}, 1 / day]",
)
VALID = (
    *(PRICED + f"tenants: [{{name: search, budget: {budget}}}]" for budget in BUDGETS),
    *(PRICED + f"organisation: {{budget: {budget}}}" for budget in BUDGETS),
    *(LAUNCHED % f", infrastructure_budget: {budget}" for budget in ("300", "300 / week", "[{usd: 3, period: day}]")),
    *(
        LAUNCHED % "" + f"prices: {{chat: {price}}}"
        for price in (
            "posted",
            "{posted: true}",
            "{posted: {}}",
            "{posted: {markup_percent: 10, utilisation: 0.4, period: week}}",
            "{posted: {markup_percent: 12.5%, recover: false}}",
            "{usd_per_million_prompt_tokens: $0.15, usd_per_million_completion_tokens: 0.60}",
        )
    ),
    *(LAUNCHED % f", replicas: {replicas}" for replicas in ("2", "1..4", "' 1 .. 4 '", "{min: 0, max: 3}")),
    *(LAUNCHED % f", engine: vllm, lora: {lora}" for lora in ("{sql: /adapters/sql}", "[{name: sql, path: /a}]")),
)
REFUSED = (
    "{}",
    "models: chat",
    "models: [{source: hf://org/chat-8b}]",
    EXTERNAL + "tenant: []",
    PRICED + "tenants: [{name: search, budget: [[20]]}]",
    PRICED + "tenants: [{name: search, budget: {usd: 20, perod: day}}]",
    PRICED + "tenants: [{name: search, budget: {usd: 20, period: fortnight}}]",
    PRICED + "tenants: [{name: search, budget: -3}]",
    LAUNCHED % "" + "prices: {chat: post}",
    LAUNCHED % "" + "prices: {chat: {posted: {markup_percent: much}}}",
    LAUNCHED % ", replicas: 1...4",
    LAUNCHED % ", replicas: -1",
    LAUNCHED % ", infrastructure_budget: true",
    LAUNCHED % ", lora: [{name: sql}]",
)


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json.loads(json.dumps(spec_json_schema()))  # as it is printed
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("text", VALID)
def test_what_is_taken_is_valid(validator: Draft202012Validator, text: str) -> None:
    assert parse_spec(text, origin="x").models
    assert [(error.json_path, error.message) for error in validator.iter_errors(read_yaml(text))] == []


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_is_not_valid(validator: Draft202012Validator, text: str) -> None:
    with pytest.raises(SpecRefusedError):
        parse_spec(text, origin="x")
    assert not validator.is_valid(read_yaml(text))
