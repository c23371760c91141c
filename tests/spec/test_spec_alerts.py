"""Thresholds of budgets in the file, and where their alerts go."""

import pytest
import yaml

from swell.spec import Spec, SpecRefusedError, parse_spec

FILE = """
models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9101"]}]
prices: {m: {usd_per_million_prompt_tokens: 1}}
organisation: {budget: %s}
"""


def parse(budget: str, more: str = "") -> Spec:
    return parse_spec(FILE % budget + more, origin="swell.yaml")


def thresholds(budget: str) -> tuple[str, ...]:
    return parse(budget).organisation.budget[0].alerts


def problems(budget: str, more: str = "") -> list[str]:
    with pytest.raises(SpecRefusedError) as caught:
        parse(budget, more)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("20", ("50%", "80%", "100%", "forecast 100%")),
        ("{usd: 20, alerts: null}", ("50%", "80%", "100%", "forecast 100%")),
        ("{usd: 20, alerts: []}", ()),
        ("{usd: 20, alerts: 90%}", ("90%",)),
        ("{usd: 20, alerts: [Actual 90 %, Forecasted 120%, 90%]}", ("90%", "forecast 120%")),
        ("20 / once", ("50%", "80%", "100%")),
        ("{usd: 20, budget_duration: total}", ("50%", "80%", "100%")),
        ("{usd: 20, period: once, alerts: [10%]}", ("10%",)),
    ],
)
def test_thresholds_are_read_in_their_canonical_form(budget: str, expected: tuple[str, ...]) -> None:
    assert thresholds(budget) == expected


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ("{usd: 1, alerts: [80]}", "organisation.budget[0].alerts[0]: 80 must be text; put it in quotes"),
        ("{usd: 1, alerts: [50%, most]}", "organisation.budget[0].alerts[1]: 'most' is not a threshold; write whole"),
        ("{usd: 1, alerts: [0%]}", "organisation.budget[0].alerts[0]: '0%' must be from 1% to 1000% of the budget"),
        (
            "{usd: 1, alerts: [80%, forecast 100%], period: once}",
            "organisation.budget[0].alerts[1]: 'forecast 100%' ne",
        ),
    ],
)
def test_what_is_no_threshold_is_refused_in_its_place(budget: str, expected: str) -> None:
    (problem,) = problems(budget)
    assert problem.startswith(expected)


def test_there_is_a_bound_of_thresholds() -> None:
    assert len(thresholds(f"{{usd: 1, alerts: [{', '.join(f'{i}%' for i in range(1, 21))}]}}")) == 20
    assert problems(f"{{usd: 1, alerts: [{', '.join(f'{i}%' for i in range(1, 22))}]}}")


def test_sinks_stand_at_the_top_of_the_file() -> None:
    sink = '{kind: webhook, name: ours, url: "https://alerts.example/hook", secret_env: HOOK_SECRET}'
    assert parse("1").alerts.sinks == ()
    assert [each.name for each in parse("1", f"alerts: {{sinks: [{sink}]}}").alerts.sinks] == ["ours"]
    (problem,) = problems("1", f"alerts: {{sinks: [{sink}, {sink}]}}")
    assert problem.startswith("alerts.sinks[1].name: 'ours' is already the name")


def test_a_spec_with_alerts_survives_being_written_and_read() -> None:
    sink = "{kind: command, name: page, argv: [/bin/true]}"
    spec = parse("[{usd: 1, period: once}, {usd: 2, alerts: [forecast 90%]}]", f"alerts: {{sinks: [{sink}]}}")
    assert parse_spec(yaml.safe_dump(spec.model_dump(mode="json")), origin="again") == spec
