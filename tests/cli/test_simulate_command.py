"""`swell simulate`: what it says to people and machines, what it refuses, and the file it writes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from swell.cli.main import application
from swell.errors import UserError
from swell.simulator.machines import Bought
from swell.simulator.setting import Wishes, build

HOUR = 3600.0


def write_trace(path: Path, hours: float = 1.5, requests: int = 600, seed: int = 5) -> Path:
    dice = np.random.default_rng(seed)
    arrivals = np.sort(dice.uniform(0.0, hours * HOUR, requests))
    prompts = dice.integers(200, 4000, requests)
    outputs = dice.integers(20, 400, requests)
    lines = [f"{at:.3f},{n},{o}" for at, n, o in zip(arrivals, prompts, outputs, strict=True)]
    path.write_text("\n".join(["arrival_seconds,prompt_tokens,output_tokens", *lines]) + "\n")
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_trace(tmp_path / "mornings.csv")


def run(*arguments: object) -> Result:
    app = application(("simulate", "version"))
    return CliRunner().invoke(app, ["simulate", *(str(argument) for argument in arguments)])


def said(*arguments: object) -> dict[str, dict[str, object]]:
    ended = run(*arguments, "--json")
    assert ended.exit_code == 0, ended.output
    assert ended.stderr == ""
    document: dict[str, dict[str, object]] = json.loads(ended.stdout)
    return document


KEYS = {
    "requests", "attainment", "cost_usd", "cost_over_oracle", "cost_over_rate_clairvoyant", "cost_over_bound",
    "wall_seconds", "ttft_ms", "itl_ms", "accelerator_hours", "starts", "preemptions", "usd_by_market", "reasons",
}  # fmt: skip


def test_one_policy_in_json(trace: Path) -> None:
    document = said("--trace", trace, "--accelerator", "L4", "--itl-ms", 200)
    assert document.keys() >= KEYS
    assert document["policy"] == "swell"
    assert document["requests"] == 600
    assert document["trace"] == "mornings"
    assert document["cost_over_bound"] >= 1.0  # type: ignore[operator]
    assert document == {
        **said("--trace", trace, "--accelerator", "L4", "--itl-ms", 200),
        "wall_seconds": document["wall_seconds"],
    }


def test_policies_side_by_side_in_json_whatever_the_jobs(trace: Path) -> None:
    asked = ("--trace", trace, "--accelerator", "L4", "--itl-ms", 200, "--compare", "hpa,swell,static")
    one, two = said(*asked, "--jobs", 1), said(*asked, "--jobs", 2)
    assert list(one) == ["swell", "hpa", "static"]
    assert all(each.keys() >= KEYS for each in one.values())
    assert [each["cost_usd"] for each in one.values()] == [each["cost_usd"] for each in two.values()]
    reaching = [each for each in one.values() if each["reached"]]
    assert reaching
    assert all(each["attainment"] >= 0.99 and each["cost_over_bound"] >= 1 for each in reaching)  # type: ignore[operator]


def test_people_get_a_table_sentences_and_a_report(trace: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    ended = run("--trace", trace, "--policy", "knative", "--accelerator", "L4", "--itl-ms", 200, "--report", report)
    assert ended.exit_code == 0, ended.output
    assert re.search(r"policy +attained +cost", ended.stdout)
    assert "knative would cost $" in ended.stdout
    assert "where 99 % was asked for" in ended.stdout
    assert "which nobody can undercut" in ended.stdout
    assert "What set the number of replicas" in ended.stdout
    assert report.read_text().startswith("<!doctype html>")
    assert "knative" in report.read_text()


def test_the_trace_can_be_brought_to_a_size(trace: Path) -> None:
    document = said("--trace", trace, "--policy", "static", "--knob", 3, "--peak-replicas", 0.5)
    assert document["requests"] > 3000  # type: ignore[operator]
    assert document["knob"] == 3.0


def test_objectives_and_bounds_come_from_the_file(trace: Path, tmp_path: Path) -> None:
    spec = tmp_path / "swell.yaml"
    spec.write_text(
        "models:\n"
        "  - name: chat\n"
        "    source: hf://meta-llama/Llama-3.1-8B-Instruct\n"
        "    replicas: {min: 2, max: 3}\n"
        "    objectives: {ttft_ms: 8000, itl_ms: 150, attainment: 0.95}\n"
    )
    document = said("--trace", trace, "-f", spec, "--policy", "static")
    assert document["attainment_asked"] == 0.95
    assert document["objective"]["ttft_ms"] == 8000.0  # type: ignore[index]
    assert document["objective"]["beyond_prefill"] is False  # type: ignore[index]
    assert document["replica_hours"] == pytest.approx(2 * 1.5, rel=0.05)
    assert said("--trace", trace, "-f", spec, "--policy", "static", "--attainment", 0.9)["attainment_asked"] == 0.9
    assert not build(Wishes(trace=trace, spec=spec)).refuses_late
    spec.write_text(spec.read_text().replace("ttft_ms: 8000", "ttft_ms: 8000, late: refuse"))
    assert build(Wishes(trace=trace, spec=spec)).refuses_late


def test_without_a_trace_a_week_is_made_up() -> None:
    traffic = build(Wishes(peak_replicas=0.02, seed=3)).traffic
    assert traffic.name == "generated"
    assert traffic.seconds == pytest.approx(7 * 86400, rel=0.01)
    assert np.array_equal(traffic.arrival_seconds, build(Wishes(peak_replicas=0.02, seed=3)).traffic.arrival_seconds)


def test_a_pair_that_no_policy_can_be_judged_by_is_excluded_and_named(trace: Path) -> None:
    asked = ("--trace", trace, "--accelerator", "L4", "--itl-ms", 20)
    ended = run(*asked, "--compare", "swell,hpa", "--json")
    assert ended.exit_code == 2
    assert "mornings on llama-3.1-8b@L4 is excluded" in json.loads(ended.stderr)["error"]
    assert "is excluded" in str(said(*asked, "--policy", "static")["excluded"])


def test_peers_are_compared_under_the_same_budget(trace: Path) -> None:
    asked = ("--trace", trace, "--accelerator", "L4", "--itl-ms", 200, "--budget", "2.20 / hour")
    document = said(*asked, "--compare", "swell,static")
    for name in ("swell", "static"):
        budget = document[name]["budget"]
        assert isinstance(budget, dict)
        assert max(budget["spent_usd_nanos"]) <= budget["usd_nanos"] == 2_200_000_000
    alone = said(*asked, "--policy", "static", "--knob", 5)["budget"]
    assert isinstance(alone, dict)
    assert alone["max_replicas"] == 3
    assert alone["most_spent_usd_nanos_without"] > 2_200_000_000
    ended = run(*asked, "--policy", "static", "--knob", 5)
    assert "it spends at most $" in ended.stdout
    assert "in any hour (at most 3 replicas)" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--trace", "nowhere.csv"], "nowhere.csv"),
        (["--policy", "hpq"], "unknown policy 'hpq'; valid are: swell, hpa"),
        (["--compare", "hpa,wrong"], "unknown policy 'wrong'"),
        (["--compare", ","], "names no policy"),
        (["--compare", "all", "--policy", "hpa"], "give one of them"),
        (["--compare", "all", "--knob", "2"], "leave --knob out"),
        (["--accelerator", "L5"], "no latency profile"),
        (["--min-replicas", "5", "--max-replicas", "2"], "contradict"),
        (["--max-replicas", "0"], "nothing is served"),
        (["--format", "azure"], "there is none"),
        (["-f", "absent.yaml"], "absent.yaml"),
        (["--report", "no/such/folder.html"], "a folder that exists"),
        (["--profiles", "absent.csv"], "absent.csv"),
        (["--accelerators", "L4,A100-80GB", "--accelerator", "L4"], "leave --accelerator out"),
        (["--accelerators", " , "], "--accelerators names none"),
        (["--spot-events", "absent.csv"], "absent.csv"),
        (["--no-spot", "--max-spot-fraction", "0.5"], "--no-spot contradicts"),
    ],
)
def test_what_cannot_work_is_refused_with_code_2(arguments: list[str], part: str) -> None:
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert part in ended.stderr
    assert ended.stderr.startswith("swell: ")
    assert ended.stdout == ""
    assert part in json.loads(run(*arguments, "--json").stderr)["error"]


@pytest.mark.parametrize("option", ["--attainment=1.5", "--itl-ms=-1", "--jobs=0", "--seed=-1", "--peak-replicas=0"])
def test_numbers_out_of_range_are_refused(option: str) -> None:
    assert run(option).exit_code == 2


def test_spot_and_several_accelerators_are_mixed_and_what_was_used_is_shown(trace: Path) -> None:
    asked = ("--trace", trace, "--accelerators", "A100-80GB,L40S", "--seed", 3)
    document = said(*asked, "--spot")
    pools = document["pools"]
    assert isinstance(pools, list)
    assert pools[:2] == ["A100-80GB", "L40S"]
    assert any(name.startswith("A100-80GB/spot/") for name in pools)
    assert any(name.startswith("L40S/spot/") for name in pools)
    markets = document["usd_by_market"]
    assert isinstance(markets, dict)
    assert markets["spot"] > markets.get("on_demand", 0.0)
    assert sum(markets.values()) == pytest.approx(document["cost_usd"])
    assert set(document["usd_by_pool"]) <= set(pools)  # type: ignore[call-overload]
    alone = said(*asked)
    assert alone["pools"] == ["A100-80GB", "L40S"]
    assert set(alone["usd_by_market"]) == {"on_demand"}  # type: ignore[call-overload]


def test_spot_follows_a_recording(trace: Path, tmp_path: Path) -> None:
    recording = tmp_path / "nodes.csv"
    rows = [f"{60_000 * n},add,n{n}" for n in range(6)] + [f"{60_000 * (n + 20)},remove,n{n}" for n in range(5)]
    recording.write_text("\n".join(["time_ms,event,node", *rows]) + "\n")
    asked = ("--trace", trace, "--min-replicas", 3, "--on-demand-base", 1, "--usd-per-hour", 9, "--policy", "swell")
    document = said(*asked, "--spot-events", recording)
    assert set(document["usd_by_market"]) == {"on_demand", "spot"}  # type: ignore[call-overload]
    assert document["usd_by_market"]["on_demand"] >= 3.4 * 1.4  # type: ignore[index]
    ended = run(*asked, "--spot-events", recording)
    assert "on-demand $" in ended.stdout
    assert "A100-80GB/spot/" in ended.stdout


def test_the_file_says_what_may_be_bought(trace: Path, tmp_path: Path) -> None:
    spec = tmp_path / "swell.yaml"
    spec.write_text(
        "models:\n"
        "  - name: chat\n"
        "    source: hf://meta-llama/Llama-3.1-8B-Instruct\n"
        "    accelerators: [L40S, A100-80GB]\n"
        "    replicas: {min: 0, max: 9}\n"
        "    spot: {max_fraction: 0.5, ondemand_base: 2}\n"
    )
    scenario = build(Wishes(trace=trace, spec=spec))
    assert [pool.name for pool in scenario.pools[:2]] == ["L40S", "A100-80GB"]
    assert scenario.spot is not None
    assert (scenario.rules.max_spot_fraction, scenario.rules.on_demand_base) == (0.5, 2)
    alone = build(Wishes(trace=trace, spec=spec, bought=Bought(spot=False), accelerator="A100-80GB"))
    assert [pool.name for pool in alone.pools] == ["A100-80GB"]
    assert alone.spot is None


@pytest.mark.parametrize(
    ("bought", "bounds", "names"),
    [
        (Bought(spot=True, on_demand_base=3), (0, 2), "--on-demand-base"),
        (Bought(usd_per_hour=0.5), (3, 9), "--usd-per-hour"),
    ],
)
def test_rules_that_contradict_are_refused(bought: Bought, bounds: tuple[int, int], names: str) -> None:
    with pytest.raises(UserError, match=names):
        build(Wishes(bought=bought, min_replicas=bounds[0], max_replicas=bounds[1]))


def test_a_recorded_zone_is_a_zone_of_the_catalogue_or_refused(trace: Path, tmp_path: Path) -> None:
    recording = tmp_path / "events.csv"
    spot = [pool for pool in build(Wishes(trace=trace, bought=Bought(spot=True))).pools if pool.zone]

    def available(zone: str) -> list[int]:
        recording.write_text(f"time_ms,event,node,zone\n0,add,a,{zone}\n1000,add,b,{zone}\n")
        market = build(Wishes(trace=trace, bought=Bought(spot_events=recording))).spot
        assert market is not None
        return [market.restarted().available(pool, 0.5) for pool in spot]

    assert available(spot[0].zone)[0] > 0
    with pytest.raises(UserError, match="nowhere"):
        available("nowhere")


def test_a_share_of_batch_is_had_for_less_and_said_so(trace: Path) -> None:
    bought = ("--spot", "--accelerators", "L4", "--on-demand-base", 1, "--itl-ms", 200, "--peak-replicas", 3)
    document = said("--trace", trace, *bought, "--batch-share", 0.5)
    batch = document["batch"]
    assert batch["answered"] == batch["requests"] > 0
    assert document["cost_over_bound"] is None, "what is promised no time has no deadline to be set against"
    assert batch["cost_usd_promised"] == said("--trace", trace, *bought)["cost_usd"]
    assert said("--trace", trace, *bought)["batch"] is None
    ended = run("--trace", trace, *bought, "--batch-share", 0.5)
    assert ended.exit_code == 0
    assert "are of priority batch and promised no time: all are answered" in ended.stdout
    assert re.search(r"it would cost \$[\d.]+ and attain [\d.]+%: batch makes it \d+% (less|more)", ended.stdout)


def test_a_trace_may_say_which_requests_are_batch(trace: Path) -> None:
    lines = trace.read_text().splitlines()
    words = ["priority", *("batch" if index % 3 == 0 else "" for index in range(len(lines) - 1))]
    trace.write_text("".join(f"{line},{word}\n" for line, word in zip(lines, words, strict=True)))
    assert build(Wishes(trace=trace)).traffic.batch_count == 200
    assert build(Wishes(trace=trace, batch_share=0.0)).traffic.batch_count == 0
    trace.write_text(trace.read_text().replace(",batch", ",bach", 1))
    with pytest.raises(UserError, match="line 2, column priority: bach is no priority; write interactive"):
        build(Wishes(trace=trace))


def test_a_model_that_is_batch_alone_is_replayed_on_spot_as_such(trace: Path, tmp_path: Path) -> None:
    file = tmp_path / "swell.yaml"
    model = "name: m, source: hf://meta-llama/Llama-3.1-8B-Instruct, priority: batch"
    file.write_text(f"models: [{{{model}, accelerators: [L4]}}]\n")
    scenario = build(Wishes(trace=trace, spec=file))
    assert scenario.traffic.batch_count == len(scenario.traffic)
    assert any(pool.name.startswith("L4/spot/") for pool in scenario.pools)
    file.write_text(f"models: [{{{model}, accelerators: [A100-80GB], spot: {{max_fraction: 0}}}}]\n")
    assert not any("/spot/" in pool.name for pool in build(Wishes(trace=trace, spec=file)).pools)
