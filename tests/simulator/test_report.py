"""The report: one file that loads nothing, says the numbers, and survives odd names and empty replays."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from swell.simulator.compare import Comparison, Found, Probe, Score
from swell.simulator.report import page
from swell.simulator.report_svg import Scale, apart, averaged, decades, ticks
from swell.simulator.result import Result, Scenario, Timeline
from swell.simulator.summary import as_json, duration, ranking, rows, sentences, share, span, usd
from swell.simulator.treasury import SimBudget
from swell.state.scaling import LatencyProfile, Objective, Pool
from swell.state.traffic import Traffic

PROFILE = LatencyProfile("tiny", "T1", 1, 10.0, 0.05, 0.0, 8.0, 0.1, 1e-4, 100_000)
POOL = Pool("T1", PROFILE, 2.0, 120.0)


def scenario(name: str = "week", seconds: float = 604_800.0) -> Scenario:
    arrivals = np.linspace(0.0, seconds, 5000)
    tokens = np.full(5000, 100, np.int32)
    return Scenario(Traffic(arrivals, tokens, tokens, name=name), (POOL,), Objective(beyond_prefill=True))


def found(name: str, cost_usd: float, attained: int = 4960, ticks: int = 1000) -> Found:
    seconds = np.linspace(60.0, 604_800.0, ticks)
    counts = (2 + np.arange(ticks) % 5).astype(np.int32)
    result = Result(
        policy=name,
        requests=5000,
        attained=attained,
        cost_usd=cost_usd,
        usd_by_market={"on_demand": cost_usd},
        replica_hours=cost_usd / 2,
        accelerator_hours=cost_usd / 2,
        starts=17,
        preemptions=0,
        ttft_ms={"p50": 210.0, "p95": 900.0, "p99": 4800.0},
        itl_ms={"p50": 12.0, "p95": 31.0, "p99": 77.0},
        wall_seconds=9.5,
        timeline=Timeline(seconds, counts, counts + 1, counts * 3, counts * 0, counts * 2.0),
        knob=1.25,
        reasons={"forecast": 700, "release": 250, "floor": 50},
    )
    probes = tuple(Probe(k, 0.9 + k / 20, cost_usd * (0.8 + k / 5), False) for k in (0.5, 1.0, 1.5))
    return Found(name, result, attained >= 4950, probes)


def comparison(*founds: Found, name: str = "week") -> Comparison:
    oracle, clairvoyant = found("oracle", 900.0), found("rate-clairvoyant", 1000.0)
    scores = tuple(
        Score(each, each.result.cost_usd / 800, each.result.cost_usd / 900, each.result.cost_usd / 1000)
        for each in founds
    )
    return Comparison(scenario(name), 0.99, scores, 800.0, oracle, clairvoyant)


class Outside(HTMLParser):
    """Collects whatever would load something, and every tag that is opened and not closed."""

    VOID = frozenset({"meta", "input", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        loading = {"src", "href", "srcset", "data", "action", "poster"}
        self.loads += [f"{tag} {key}" for key, _ in attrs if key in loading or key.startswith("on")]
        self.loads += [tag] if tag in {"script", "link", "img", "iframe", "object", "embed"} else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed already."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> None:
    parser = Outside()
    parser.feed(text)
    assert parser.loads == []
    assert parser.open == []
    assert not re.search(r"https?:|url\(|@import|//[a-z]", text)
    for drawing in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        numbers = re.findall(r'[ "ML]-?(?:nan|inf)', drawing)
        assert numbers == []
        assert ElementTree.fromstring(drawing).get("aria-label")  # noqa: S314 (our own drawing)


def test_the_report_loads_nothing_and_shows_everything() -> None:
    text = page(comparison(found("swell", 1100.0), found("hpa", 1400.0), found("keda", 500.0, attained=4000)), "swell")
    check_page(text)
    for heading in (
        "Replicas and demand", "What has been spent by when", "Cost against attainment",
        "Latency against the objective", "What set the number of replicas", "Scores", "What was simulated",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text
    assert "21% less" in text, "than hpa: the best of the others that reach the attainment"
    assert "1.10" in text
    assert "(too little)" in text
    assert "prefers-color-scheme:dark" in text


def test_one_policy_is_reported_without_a_front() -> None:
    alone = replace(
        comparison(found("swell", 1100.0)), searched=False, oracle=None, rate_clairvoyant=None, bound_usd=None
    )
    single = replace(alone.scores[0].found, probes=alone.scores[0].found.probes[:1])
    text = page(replace(alone, scores=(Score(single, None, None, None),)))
    check_page(text)
    assert "Cost against attainment" not in text
    assert "was not computed" in text


def test_names_cannot_break_out() -> None:
    hostile = '<script src="https://evil.example">&"'
    text = page(comparison(found(hostile, 10.0), name=hostile))
    assert "<script" not in text
    parser = Outside()
    parser.feed(text)
    assert parser.loads == []


def test_a_replay_that_answered_nothing_can_be_shown() -> None:
    empty = found("nothing", 3.0, attained=0, ticks=0)
    result = replace(empty.result, ttft_ms={}, itl_ms={}, reasons={}, cost_usd=0.0)
    text = page(comparison(replace(empty, result=result)))
    check_page(text)
    assert "Nothing was answered" in text


@pytest.mark.parametrize("seconds", [40.0, 3600.0, 90_000.0])
def test_short_traces_have_an_axis_too(seconds: float) -> None:
    short = replace(comparison(found("swell", 1100.0)), scenario=scenario(seconds=seconds))
    check_page(page(short))
    assert page(short) == page(short), "the same comparison gives the same file"


def test_the_numbers_for_machines() -> None:
    given = comparison(found("swell", 1100.0))
    document = as_json(given, given.scores[0])
    assert document["requests"] == 5000
    assert document["attainment"] == 0.992
    assert document["cost_over_oracle"] == pytest.approx(1.2222, abs=1e-3)
    assert document["cost_over_rate_clairvoyant"] == 1.1
    assert document["cost_over_bound"] == 1.375
    assert (document["cost_usd"], document["wall_seconds"]) == (1100.0, 9.5)


def test_the_sentences_say_cost_objective_distance_and_reasons() -> None:
    given = comparison(found("swell", 1100.0))
    cost, objective, distance, reasons = sentences(given, given.scores[0])
    assert "$1,100 for these 7.0 days" in cost
    assert "$4,780 a month" in cost
    assert objective.startswith("It meets the objective: 99.20% of the requests, where 99 % was asked for")
    assert "1.10 times" in distance
    assert "$800.00, which nobody can undercut" in distance
    assert "forecast 70.0%, release 25.0%, floor 5.0%" in reasons
    assert ranking(given, given.scores[0]) == ""
    several = comparison(found("swell", 1100.0), found("hpa", 1400.0), found("keda", 990.0), found("poor", 5.0, 4000))
    assert ranking(several, several.scores[0]) == "For the same attainment, keda costs 10% less, hpa costs 27% more."
    poor = comparison(found("poor", 500.0, attained=4000))
    assert "misses the objective: only 80.00%" in sentences(poor, poor.scores[0])[1]


def test_what_attains_nothing_is_compared_with_nothing() -> None:
    given = comparison(found("poor", 500.0, attained=0))
    cost, objective, distance, _ = sentences(given, given.scores[0])
    assert "$500.00" in cost
    assert "none of the requests" in objective
    assert distance == "No request meets the objective, so there is nothing that its cost could be compared with."
    assert rows(given)[0][3:6] == ("", "", "")
    assert "with full hindsight</span>" not in page(given)


def test_who_attains_less_for_less_has_not_beaten_hindsight() -> None:
    """0.75 times an oracle that attains as much is news; one that attains more is not the same thing for sale."""
    given = comparison(found("poor", 675.0, attained=4500))
    distance = sentences(given, given.scores[0])[2]
    assert "0.75" not in distance
    assert "a plan made with full hindsight attains 99.20% for $900.00" in distance
    assert "somebody who knew the true rate ahead attains 99.20% for $1,000" in distance
    assert "at least $800.00 for the attainment that was asked for" in distance
    assert rows(given)[0][3:6] == ("", "", "")
    assert "0.75" not in page(given)
    dear = comparison(found("poor", 1800.0, attained=4500))
    assert "2.00 times a plan made with full hindsight" in sentences(dear, dear.scores[0])[2]
    lucky = comparison(found("swell", 891.0))
    assert "0.99 times a plan made with full hindsight (which is not the best" in sentences(lucky, lucky.scores[0])[2]


def test_a_trace_of_minutes_judges_nobody() -> None:
    given = comparison(found("swell", 0.0011))
    tiny = replace(given.scenario.traffic, arrival_seconds=np.zeros(1), prompt_tokens=np.ones(1, np.int32),
                   output_tokens=np.ones(1, np.int32))  # fmt: skip
    one = replace(given.scores[0].found.result, requests=1, attained=1, reasons={})
    score = replace(given.scores[0], found=replace(given.scores[0].found, result=one))
    short = replace(given, scenario=replace(given.scenario, traffic=tiny), scores=(score,))
    cost, objective, distance = sentences(short, score)
    assert cost == "swell would cost $0.0011 for 1 request in a moment."
    assert objective.startswith("It meets the objective: 100.00%")
    assert "do not tell policies apart" in distance
    assert "times" not in distance
    assert rows(short)[0][3:6] == ("", "", "")
    minute = replace(tiny, arrival_seconds=np.array([59.0]))
    short = replace(short, scenario=replace(short.scenario, traffic=minute))
    assert "for 1 request in 59 seconds." in sentences(short, score)[0]


def test_rows_begin_with_the_cheapest_and_end_with_the_references() -> None:
    given = comparison(found("dear", 1400.0), found("poor", 500.0, attained=4000), found("swell", 1100.0))
    assert [row[0] for row in rows(given)] == ["swell", "dear", "poor", "rate-clairvoyant", "oracle"]


def test_axes_have_round_numbers() -> None:
    assert ticks(0, 1.06) == [0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0, 23, 5) == [0, 5, 10, 15, 20]
    assert decades(3, 60) == [5, 10, 20, 50]
    scale = Scale(1.0, 100.0, 0.0, 200.0, log=True)
    assert (scale(10.0), scale(1e9), scale(1e-9)) == (pytest.approx(100.0), 200.0, 0.0)


def test_labels_do_not_lie_on_each_other() -> None:
    placed = apart([100.0, 101.0, 99.0, 40.0], 0.0, 110.0)
    assert sorted(placed) == [40.0, 80.0, 95.0, 110.0]
    assert placed[2] < placed[0] < placed[1]


def test_a_curve_is_averaged_and_holds_where_nothing_was_seen() -> None:
    seconds = np.array([1.0, 2.0, 11.0, 35.0])
    values = np.array([2, 4, 9, 1], np.int32)
    assert averaged(seconds, values, np.array([0.0, 10.0, 20.0, 30.0, 40.0])).tolist() == [3.0, 9.0, 9.0, 1.0]
    assert averaged(seconds[2:], values[2:], np.array([0.0, 10.0, 20.0])).tolist() == [9.0, 9.0]


def test_quantities_are_said_as_people_say_them() -> None:
    assert (usd(3.456), usd(12345.6)) == ("$3.46", "$12,346")
    assert (usd(0.0), usd(0.00111), usd(0.0099), usd(2.4e-5)) == ("$0.00", "$0.0011", "$0.0099", "$0.000024")
    assert usd(1e-9) == "less than $0.000001"
    assert (duration(250.0), duration(5000.0), duration(600_000.0)) == ("250 ms", "5 s", "10 min")
    assert (span(604_800.0), span(7200.0), span(600.0)) == ("7.0 days", "2.0 hours", "10 minutes")
    assert (span(90.0), span(1.0), span(0.0)) == ("90 seconds", "1 second", "a moment")
    assert (share(0.99), share(0.99987), share(1.0)) == ("99.00%", "99.987%", "100.00%")


def test_references_that_know_of_no_budget_are_not_measured_by_what_is_possible_inside_it() -> None:
    given = comparison(found("swell", 1100.0))
    assert [row[3] for row in rows(given)][1:] == ["1.250", "1.125"]
    inside = replace(given, scenario=replace(given.scenario, budget=SimBudget(10**12, "week")))
    assert [row[0] for row in rows(inside)] == ["swell", "rate-clairvoyant", "oracle"]
    assert [row[3] for row in rows(inside)][1:] == ["", ""]
