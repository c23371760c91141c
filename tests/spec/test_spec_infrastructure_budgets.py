"""Infrastructure budgets in a spec: short forms, what they need, and what is refused with path and reason."""

import pytest

from swell.spec import Spec, SpecRefusedError, parse_spec
from swell.units import NANOS_PER_USD

MODEL = "{name: chat, source: a.gguf, usd_per_replica_hour: 0.85%s}"


def parse(text: str) -> Spec:
    return parse_spec(text, origin="swell.yaml")


def test_of_a_model_and_of_the_organisation() -> None:
    spec = parse(
        "organisation: {infrastructure_budget: 2000 / month}\n"
        f"models: [{MODEL % ', infrastructure_budget: [25 / day, {usd: 1, period: hour, time_zone: Asia/Kathmandu}]'}]"
    )
    [whole] = spec.organisation.infrastructure_budget
    day, hour = spec.models[0].infrastructure_budget
    assert (whole.usd_nanos, whole.period) == (2000 * NANOS_PER_USD, "month")
    assert (day.usd_nanos, day.period, day.alerts) == (
        25 * NANOS_PER_USD, "day", ("50%", "80%", "100%", "forecast 100%")
    )  # fmt: skip
    assert (hour.period, hour.time_zone) == ("hour", "Asia/Kathmandu")


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        (
            "models: [{name: chat, source: a.gguf, infrastructure_budget: 5 / day}]",
            "models[0].usd_per_replica_hour", "is missing: give what a replica costs an hour",
        ),
        (
            "models: [{name: chat, source: a.gguf, usd_per_replica_hour: 0, infrastructure_budget: 5 / day}]",
            "models[0].usd_per_replica_hour", "is nothing; infrastructure_budget counts it",
        ),
        (
            f"organisation: {{infrastructure_budget: 5 / day}}\nmodels: [{MODEL % ''}, {{name: b, source: b.gguf}}]",
            "models[1].usd_per_replica_hour", "organisation.infrastructure_budget counts it",
        ),
        (
            'organisation: {infrastructure_budget: 5}\nmodels: [{name: a, endpoints: ["http://127.0.0.1:1"]}]',
            "organisation.infrastructure_budget", "has nothing to count",
        ),
        (
            'models: [{name: a, endpoints: ["http://127.0.0.1:1"], infrastructure_budget: 5}]',
            "models[0].infrastructure_budget", "is for replicas that Swell starts",
        ),
        (
            f"models: [{MODEL % ', infrastructure_budget: 5 / once'}]",
            "models[0].infrastructure_budget[0].period", "once has no end",
        ),
        (
            f"models: [{MODEL % ', infrastructure_budget: -5 / day'}]",
            "models[0].infrastructure_budget[0].usd", "negative",
        ),
        (
            f"models: [{MODEL % ', infrastructure_budget: [5 / day, 6 / day]'}]",
            "models[0].infrastructure_budget", "two budgets per day for the same replicas",
        ),
        (
            f"models: [{MODEL % ', infrastructure_budget: {usd: 5, model: chat}'}]",
            "models[0].infrastructure_budget[0].model", "is not a known field",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str, path: str, reason: str) -> None:
    with pytest.raises(SpecRefusedError) as refused:
        parse(text)
    assert [problem.path for problem in refused.value.problems] == [path]
    assert reason in str(refused.value)
