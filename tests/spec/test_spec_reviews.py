"""`alerts.review` in the file: its defaults, whose time zone it follows, and what is refused."""

from typing import get_args

import pytest
import yaml

from swell.cli.alerts import Kind
from swell.spec import Spec, SpecRefusedError, parse_spec, spec_json_schema
from swell.spec.alerts import SINK_KINDS
from swell.spec.reviews import Weekday
from swell.state.alerts import AlertKind

MODEL = "models: [{name: chat, source: hf://us/house-8b, accelerators: [H100], usd_per_replica_hour: 4}]\n"
PRICES = "prices: {chat: {usd_per_million_prompt_tokens: 1}}\n"
ZONED = "{usd: 5, period: day, time_zone: Asia/Tokyo}"


def parse(review: str, more: str = "", models: str = MODEL) -> Spec:
    return parse_spec(models + f"alerts: {{review: {review}}}\n" + more, origin="swell.yaml")


def problems(review: str, models: str = MODEL) -> list[str]:
    with pytest.raises(SpecRefusedError) as caught:
        parse(review, models=models)
    return [str(problem) for problem in caught.value.problems]


def test_it_is_off_unless_it_is_asked_for() -> None:
    assert parse_spec(MODEL, origin="swell.yaml").alerts.review is None
    assert parse("null").alerts.review is None


def test_asking_for_it_is_enough() -> None:
    review = parse("{}").alerts.review
    assert review is not None
    assert (review.day, review.hour, review.top, review.days) == (Weekday.MONDAY, 8, 5, 7)


@pytest.mark.parametrize("text", ["sunday", "Sunday", "SUN", "sun"])
def test_days_are_written_as_people_write_them(text: str) -> None:
    review = parse(f"{{day: {text}, hour: 0, top: 10}}").alerts.review
    assert review is not None
    assert (review.day, review.day.number) == (Weekday.SUNDAY, 6)


@pytest.mark.parametrize(
    ("review", "more", "zone"),
    [
        ("{}", "", "UTC"),
        ("{timezone: Europe/Berlin}", f"organisation: {{budget: {ZONED}}}\n{PRICES}", "Europe/Berlin"),
        ("{}", f"organisation: {{budget: {ZONED}}}\n{PRICES}", "Asia/Tokyo"),
        ("{}", f"organisation: {{budget: [{{usd: 1, period: rolling 24h}}, {ZONED}]}}\n{PRICES}", "Asia/Tokyo"),
        ("{}", f"organisation: {{infrastructure_budget: {ZONED}}}\n", "Asia/Tokyo"),
    ],
    ids=["none", "its own", "the budget's", "not a rolling one's", "the infrastructure budget's"],
)
def test_it_follows_the_calendar_of_the_organisations_money(review: str, more: str, zone: str) -> None:
    assert parse(review, more).review_zone == zone


@pytest.mark.parametrize(
    ("review", "expected"),
    [
        ("{day: moonday}", "alerts.review.day: 'moonday' is not one of monday, tuesday,"),
        ("{day: 1}", "alerts.review.day: 1 is not one of monday, tuesday,"),
        ("{hour: 24}", "alerts.review.hour: 24 must be less than or equal to 23"),
        ("{hour: 8.5}", "alerts.review.hour: 8.5 must be a whole number"),
        ("{top: 0}", "alerts.review.top: 0 must be greater than or equal to 1"),
        ("{top: 11}", "alerts.review.top: 11 must be less than or equal to 10"),
        ("{days: 32}", "alerts.review.days: 32 must be less than or equal to 31"),
        (
            "{time_zone: Europe/Berlinn}",
            "alerts.review.time_zone: 'Europe/Berlinn' is not a time zone; did you mean Europe/Berlin?",
        ),
        ("{weekday: monday}", "alerts.review.weekday: is not a known field (its value is 'monday'); did you mean day?"),
        ("weekly", "alerts.review: 'weekly' must be a mapping of fields"),
    ],
)
def test_nonsense_is_refused_in_its_place(review: str, expected: str) -> None:
    (problem,) = problems(review)
    assert problem.startswith(expected.partition("; did")[0])


def test_a_review_of_nothing_is_refused_with_the_reasons() -> None:
    (problem,) = problems("{}", 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9101"]}]\n')
    assert problem.startswith("alerts.review: has nothing to review (m: somebody else runs it")
    (problem,) = problems("{}", "models: [{name: m, source: hf://us/house-8b}]\n")
    assert "it names no accelerators" in problem


def test_sinks_may_choose_reviews_and_take_them_without_choosing() -> None:
    sink = "{kind: command, name: page, argv: [page], kinds: [review]}"
    chosen, every = parse("{}").alerts, parse_spec(f"{MODEL}alerts: {{sinks: [{sink}]}}", origin="x").alerts
    assert chosen.sinks == ()
    assert every.sinks[0].kinds == ("review",)
    assert "review" in SINK_KINDS


def test_each_kind_that_a_sink_can_choose_can_be_listed_and_each_alert_but_a_test_has_one() -> None:
    assert [kind.value for kind in Kind] == list(SINK_KINDS)
    assert {*SINK_KINDS, "test"} == set(get_args(AlertKind))


def test_the_schema_has_it_and_a_dump_is_read_back() -> None:
    definitions = spec_json_schema()["$defs"]
    assert set(definitions["ReviewSpec"]["properties"]) == {
        "day", "hour", "time_zone", "top", "days", "profiles", "prices",
    }  # fmt: skip
    assert definitions["Weekday"]["enum"] == [day.value for day in Weekday]
    spec = parse("{day: friday, hour: 17, time_zone: America/New_York}")
    assert parse_spec(yaml.safe_dump(spec.model_dump(mode="json")), origin="again") == spec
