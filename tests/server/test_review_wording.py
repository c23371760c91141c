"""What a review's alert says, line by line and as values, and what of reviews gets into it."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from review_world import USD, change, report

from review_catalogue import WRONG, write_catalogue
from swell.server.review_edits import Change
from swell.server.review_replays import Case
from swell.server.review_report import (
    MAX_MISSES,
    MAX_MODELS,
    MAX_TEXT_LENGTH,
    ReportedMiss,
    ReviewReport,
    clipped,
    command_of,
)
from swell.server.review_reporting import report_of
from swell.server.review_wording import SENT, review_alert
from swell.server.reviewing import Review, review
from swell.spec import parse_spec
from swell.spec.reviews import MAX_TOP
from swell.state.alerts import Alert
from swell.state.traffic import Traffic

WEEK = "2026-W48"


def alert_of(made: ReviewReport, week: str = WEEK, top: int = 5) -> Alert:
    return review_alert(made, week, top, alert_id="alert-1", at_unix=1.0)


def test_each_change_is_a_line_with_its_saving_effect_confidence_and_command() -> None:
    alert = alert_of(report(change(), change(saving=1_234_567_890_000, recommended=False)))
    assert (alert.kind, alert.severity) == ("review", "info")
    assert alert.title == "Weekly review of 2026-W48: $100.00 less a month"
    assert alert.text.splitlines() == [
        "Replayed: 12,345 requests of chat in 6.5 days of the last 7 days. As it is, a month costs $1,000.00.",
        "1. chat: replicas min 1, max 20; saves $100.00 a month (confidence high); 99.97% -> 99.51% meet the "
        "objective, 99% asked for, TTFT p99 210 ms -> 1,340 ms, ITL p99 12 ms -> none. "
        "To apply: swell review --model chat --apply",
        "2. chat: replicas min 1, max 20; saves $1,234.57 a month (confidence high); 99.97% -> 99.51% meet the "
        "objective, 99% asked for, TTFT p99 210 ms -> 1,340 ms, ITL p99 12 ms -> none. "
        "To apply: in place of what is recommended; put it in by hand",
        "These are simulated costs of that time's requests: good to compare, no bill.",
    ]


def test_values_say_the_same_to_machines() -> None:
    values = alert_of(report(change(), change("embed", 5 * USD, recommended=False))).values
    assert values["saving_per_month_usd_nanos"] == 100 * USD
    assert (values["saving_per_month_usd"], values["cost_per_month_usd"]) == ("100.00", "1000.00")
    first, second = values["changes"]
    assert first == {
        "model": "chat", "lever": "replicas", "change": "replicas min 1, max 20", "recommended": "yes",
        "saving_per_month_usd": "100.00", "saving_per_month_usd_nanos": 100 * USD, "confidence": "high",
        "attainment_asked": "0.99", "attainment_before": "0.9997", "ttft_p99_ms_before": 210, "itl_p99_ms_before": 12,
        "attainment_after": "0.9951", "ttft_p99_ms_after": 1340, "apply": "swell review --model chat --apply",
    }  # fmt: skip
    assert (second["recommended"], "apply" in second) == ("no", False)


@pytest.mark.parametrize(
    ("made", "title"),
    [
        (report(), "nothing to change"),
        (
            report(change(saving=-12 * USD)),
            "meeting every objective costs $12.00 more a month",
        ),
    ],
)
def test_the_title_says_what_it_comes_to(made: ReviewReport, title: str) -> None:
    alert = alert_of(made)
    assert alert.title == f"Weekly review of 2026-W48: {title}"
    assert ("Nothing is recommended" in alert.text) == (made.recommended_count == 0)


def test_what_is_asked_for_by_hand_names_its_days() -> None:
    assert alert_of(report(change()), SENT).title == "Review of the last 7 days: $100.00 less a month"
    day = msgspec.structs.replace(report(change()), days=1.0)
    assert alert_of(day, SENT).title == "Review of the last day: $100.00 less a month"


def test_only_the_top_is_shown_and_the_rest_is_counted() -> None:
    made = report(*(change(f"m{number}", (20 - number) * USD) for number in range(MAX_TOP)))
    made = msgspec.structs.replace(made, recommended_count=30)
    alert = alert_of(made, top=3)
    changes = alert.values["changes"]
    assert isinstance(changes, list)
    assert [each["model"] for each in changes] == ["m0", "m1", "m2"]
    assert "Recommended changes of 27 more models: swell review" in alert.text.splitlines()


def test_models_that_were_not_reviewed_are_named_with_a_reason_and_counted() -> None:
    left_out = tuple((f"m{number}", "somebody else runs it") for number in range(MAX_MODELS))
    alert = alert_of(msgspec.structs.replace(report(change()), not_reviewed=left_out, not_reviewed_count=50))
    (line,) = [line for line in alert.text.splitlines() if line.startswith("Not reviewed")]
    assert line.startswith("Not reviewed: m0: somebody else runs it; m1: ")
    assert line.endswith("; and 45 more.")


def test_a_name_that_a_shell_would_take_apart_is_quoted() -> None:
    assert "--model 'a b' --apply" in alert_of(report(change("a b"))).text
    assert command_of([("--file", Path("my file")), ("--days", None)]) == "swell review --file 'my file'"


def misses(count: int) -> tuple[ReportedMiss, ...]:
    return tuple(
        ReportedMiss(
            model="chat", tenant=f"t{number}", cached_now=0.2, cached_at_most=0.615, prefill_seconds=100.0,
            saving_usd_nanos_per_month=12 * USD, confidence="low",
        )
        for number in range(count)
    )  # fmt: skip


def test_tenants_that_prefix_routing_would_pay_for_are_told_and_counted() -> None:
    alert = alert_of(msgspec.structs.replace(report(change()), misses=misses(MAX_MISSES), miss_count=7))
    lines = [line for line in alert.text.splitlines() if line.startswith("Prefix cache")]
    assert lines[0] == (
        "Prefix cache: tenant t0 of chat finds 20% of its prompt tokens and would find up to 62%; worth up to $12.00 a "
        "month (confidence low). For it, by hand: routing: prefix_affinity"
    )
    assert lines[-1] == "Prefix cache: 2 more tenants: swell review"
    assert len(lines) == MAX_MISSES + 1
    first = alert.values["missed_hits"]
    assert isinstance(first, list)
    assert first[0] == {
        "model": "chat", "tenant": "t0", "cached_now": "0.2", "cached_at_most": "0.615", "confidence": "low",
        "saving_at_most_per_month_usd": "12.00", "saving_at_most_per_month_usd_nanos": 12 * USD,
    }  # fmt: skip
    assert "Prefix cache" not in alert_of(report(change())).text


# From reviews


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Review:
    dice = np.random.default_rng(7)
    at = np.sort(dice.uniform(0, 1800.0, 150))
    prompts, outputs = dice.integers(100, 2000, 150).astype(np.int32), dice.integers(20, 200, 150).astype(np.int32)
    model = parse_spec(WRONG, origin="swell.yaml").models[0]
    return review(Case(model, Traffic(at, prompts, outputs), *write_catalogue(tmp_path_factory.mktemp("catalogue"))))


def test_a_report_has_what_pays_the_recommended_first_and_is_read_as_it_was_written(reviewed: Review) -> None:
    made = report_of([reviewed], [("theirs", "somebody else runs it")], days=7, command="swell review")
    best = reviewed.recommended
    assert best is not None
    first, *others = made.changes
    assert first.recommended
    assert first.saving_usd_nanos_per_month == made.saving_usd_nanos_per_month == best.saving.usd_nanos_per_month
    savings = [each.saving_usd_nanos_per_month for each in others]
    assert others
    assert len({each.lever for each in made.changes}) == len(made.changes)
    assert savings == sorted(savings, reverse=True)
    assert savings[-1] > 0
    assert all(each.after.attainment >= each.attainment_asked for each in made.changes)
    assert made.saving_usd_nanos_per_month < made.cost_usd_nanos_per_month
    assert msgspec.json.decode(msgspec.json.encode(made), type=ReviewReport) == made
    assert json.loads(msgspec.json.encode(alert_of(made)))["values"]["not_reviewed"][0]["model"] == "theirs"


def test_a_report_of_many_models_is_bounded_and_counts_them_all(reviewed: Review) -> None:
    long = "x" * 2 * MAX_TEXT_LENGTH
    model = reviewed.model.model_copy(update={"name": long})
    some = replace(reviewed, model=model)
    made = report_of([some] * 40, [(long, long)] * 40, days=7, command="swell review")
    assert (made.model_count, len(made.models), made.recommended_count) == (40, MAX_MODELS, 40)
    assert (made.not_reviewed_count, len(made.not_reviewed), len(made.changes)) == (40, MAX_MODELS, MAX_TOP)
    content = msgspec.json.encode(made)
    assert len(content) < 64 * 1024  # what an admin request may have
    assert msgspec.json.decode(content, type=ReviewReport) == made
    assert clipped(long).endswith("…")


def test_a_review_with_nothing_to_recommend_saves_nothing(reviewed: Review) -> None:
    none = replace(reviewed, recommended=None, changes=())
    made = report_of([none], [], days=7, command="swell review")
    assert (made.recommended_count, made.saving_usd_nanos_per_month, made.changes) == (0, 0, ())
    assert reviewed.recommended is not None
    assert Change(("x",), 1) not in reviewed.recommended.changes
