"""`swell plan`: the mix, its cost, what was rejected and why; and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from swell.cli.main import application

RATE = ("--rate", "20", "--prompt-tokens", "1500", "--output-tokens", "200")
PRICES = """\
as_of,cloud,region,zone,instance,accelerator,accelerator_count,on_demand_usd_per_hour,spot_usd_per_hour,source
2026-01-01,own,here,here-1a,small,A100-80GB,1,3.0,1.0,test
2026-01-01,own,here,here-1b,small,A100-80GB,1,3.0,1.1,test
2026-01-01,own,there,there-1a,small,A100-80GB,1,3.0,1.2,test
2026-01-01,own,here,here-1a,large,H100,1,7.0,2.2,test
"""


def ask(*arguments: str) -> tuple[int, str, str]:
    ended = CliRunner().invoke(application(("plan",)), ["plan", *arguments])
    return ended.exit_code, ended.stdout, ended.stderr


def planned(*arguments: str) -> dict[str, Any]:
    code, said, complained = ask(*arguments, "--json")
    assert (code, complained) == (0, "")
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """A cloud of one's own, besides what ships."""
    path = tmp_path / "prices.csv"
    path.write_text(PRICES)
    return str(path)


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """An hour: quiet, with ten busy minutes in the middle."""
    path = tmp_path / "trace.csv"
    rows = ["arrival_seconds,prompt_tokens,output_tokens"]
    at = 0.0
    while at < 3600:
        rows.append(f"{at:.3f},{200 + int(at * 7) % 1800},{20 + int(at * 13) % 300}")
        at += 0.05 if 1800 <= at < 2400 else 0.5
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_a_rate_gets_a_mix_with_its_cost_and_what_was_rejected() -> None:
    found = planned(*RATE)
    assert found["mix"]
    assert found["replicas"] == sum(entry["replicas"] for entry in found["mix"])
    assert found["usd_per_hour"] == pytest.approx(sum(entry["usd_per_hour"] for entry in found["mix"]))
    assert found["usd_per_month"] == pytest.approx(730 * found["usd_per_hour"])
    assert found["headroom"] == pytest.approx(1 + 2.33 * (2 / (60 * 20)) ** 0.5)
    assert found["given_up"] == []
    assert found["binding"] == ["demand"]
    assert all(entry["market"] == "on_demand" for entry in found["mix"])
    assert len(found["alternatives"]) >= 3
    for other in found["alternatives"]:
        assert other["why_not"]
        assert other["usd_per_hour"] >= found["usd_per_hour"] or other["served"] < 1
    assert found["following_demand"]["usd_per_hour"] == pytest.approx(found["usd_per_hour"])


def test_the_arithmetic_of_a_replica_adds_up() -> None:
    found = planned(*RATE, "--accelerators", "A100-80GB,H100")
    assert {each["machine"] for each in found["replica"]} == {"A100-80GB", "H100"}
    for each in found["replica"]:
        share = each["requests_per_second"] * each["prefill_ms"] / 1000
        assert each["itl_ms"] == pytest.approx(each["step_ms"] / (1 - share))
        assert each["itl_ms"] <= 100
        assert each["output_tokens_per_second"] == pytest.approx(200 * each["requests_per_second"])
        assert each["usd_per_million_requests"] == pytest.approx(
            each["usd_per_hour"] / 3600 / each["requests_per_second"] * 1e6
        )
    demand = 20 * found["headroom"]
    carried = {each["machine"]: each["requests_per_second"] for each in found["replica"]}
    assert sum(entry["replicas"] * carried[entry["accelerator"]] for entry in found["mix"]) >= demand * (1 - 1e-6)


def test_spot_is_cheaper_and_keeps_its_bounds(prices: str) -> None:
    asked = (*RATE, "--rate", "200", "--accelerators", "A100-80GB", "--prices", prices, "--clouds", "own")
    without, bounded = planned(*asked), planned(*asked, "--max-spot-fraction", "0.6", "--on-demand-base", "3")
    assert bounded["usd_per_hour"] < without["usd_per_hour"]
    spot = sum(entry["replicas"] for entry in bounded["mix"] if entry["market"] == "spot")
    assert 0 < spot <= 0.6 * bounded["replicas"]
    assert bounded["replicas"] - spot >= 3
    assert {"here-1a", "here-1b", "there-1a"} >= {
        entry["zone"] for entry in bounded["mix"] if entry["market"] == "spot"
    }
    assert "spot fraction" in bounded["binding"]
    assert 0 < bounded["zone_loss_missed"] <= 0.005 + 1e-9
    assert bounded["disruption_usd_per_hour"] > 0
    names = {other["name"] for other in bounded["alternatives"]}
    assert {"on demand only", "any share of spot"} <= names


def test_a_spend_ceiling_binds_and_says_what_is_given_up(prices: str) -> None:
    found = planned(
        *RATE,
        "--accelerators",
        "A100-80GB",
        "--prices",
        prices,
        "--clouds",
        "own",
        "--usd-per-hour",
        "6.5",
        "--headroom",
        "1",
    )
    assert found["usd_per_hour"] <= 6.5
    assert found["binding"] == ["spend ceiling"]
    assert found["given_up"][0].endswith("of 1500 in, 200 out")
    assert found["demand"][0]["served"] < 1
    free = next(other for other in found["alternatives"] if other["name"] == "no spend ceiling")
    assert (free["served"], free["why_not"]) == (1.0, "ignores the spend ceiling")


def test_a_trace_is_planned_for_its_busiest_minutes_and_for_following_it(trace: str) -> None:
    found = planned("--trace", trace, "--accelerators", "A100-80GB")
    assert found["requests_per_second"] == pytest.approx(20, rel=0.02)
    levels = found["following_demand"]["levels"]
    assert sum(level["share"] for level in levels) == pytest.approx(1)
    assert found["following_demand"]["usd_per_hour"] < found["usd_per_hour"]
    rates = [level["requests_per_second"] for level in levels]
    assert rates[1:] == pytest.approx([2.0] * len(rates[1:]), rel=0.05)
    assert len(found["demand"]) == 8
    assert sum(bucket["requests_per_second"] for bucket in found["demand"]) == pytest.approx(
        20 * found["headroom"], rel=0.02
    )


def test_people_get_tables(trace: str) -> None:
    code, said, _ = ask("--trace", trace, "--accelerators", "A100-80GB,L40S", "--spot", "--on-demand-base", "1")
    assert code == 0
    for words in ("usd a month", "following demand", "what binds", "rejected", "one replica", "on-demand", "A100-80GB"):
        assert words in said


def test_an_objective_that_a_machine_cannot_meet_is_explained() -> None:
    found = planned(*RATE, "--accelerators", "L4,H100", "--itl-ms", "20")
    slow = next(each for each in found["replica"] if each["machine"] == "L4")
    assert "over the 20 ms between tokens" in slow["why_not"]
    assert {entry["accelerator"] for entry in found["mix"]} == {"H100"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give either --trace FILE, or --rate"),
        (("--rate", "1"), "--rate needs --prompt-tokens"),
        (("--rate", "1", "--trace", "x"), "give either"),
        (("--trace", "none.csv", "--prompt-tokens", "5"), "go with --rate"),
        (("--trace", "none.csv"), "none.csv"),
        ((*RATE, "--model", "lama-3.1-8b"), "no latency profile"),
        ((*RATE, "--accelerators", "H1000"), "no latency profile"),
        ((*RATE, "--accelerators", " , "), "--accelerators names none"),
        ((*RATE, "--clouds", "nimbus"), "name other clouds"),
        ((*RATE, "--usd-per-hour", "inf"), "--usd-per-hour: inf is not a finite number"),
        ((*RATE, "--accelerators", "L4", "--ttft-ms", "50"), "nothing can serve this"),
        ((*RATE, "--accelerators", "L4", "--ttft-ms", "50"), "over the 50 ms to the first token"),
        ((*RATE, "--accelerators", "L4", "--ttft-ms", "50", "--min-replicas", "2"), "nothing can serve this"),
        ((*RATE, "--usd-per-hour", "0.01"), "0.01 USD an hour buys nothing that serves this"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    code, stdout, stderr = ask(*arguments, "--json")
    assert (code, stdout) == (2, "")
    assert said in json.loads(stderr)["error"]


@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "-1"])
@pytest.mark.parametrize("option", ["--rate", "--start-seconds", "--hazard-per-hour", "--itl-ms", "--min-replicas"])
def test_numbers_beyond_reason_are_refused_by_name(option: str, value: str) -> None:
    code, stdout, stderr = ask(*RATE, "--spot", option, value)
    assert (code, stdout) == (2, "")
    assert option in stderr


def test_no_traffic_needs_nothing() -> None:
    found = planned("--rate", "0", "--prompt-tokens", "100", "--output-tokens", "10")
    assert (found["mix"], found["usd_per_hour"], found["headroom"]) == ([], 0.0, 1.0)
    code, said, _ = ask("--rate", "0", "--prompt-tokens", "100", "--output-tokens", "10")
    assert code == 0
    assert "Nothing is needed.\n" in said


def test_clouds_and_regions_may_be_written_in_any_case(prices: str) -> None:
    asked = (*RATE, "--accelerators", "A100-80GB", "--spot", "--prices", prices)
    for more in ((), ("--regions", "HERE")):
        assert planned(*asked, "--clouds", "OWN", *more)["mix"] == planned(*asked, "--clouds", "own", *more)["mix"]
    assert planned(*RATE, "--clouds", "AWS")["mix"] == planned(*RATE, "--clouds", "aws")["mix"]


def test_nothing_but_json_is_written_whatever_the_solver_has_to_say(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS writes to the file descriptor, which no exchange of `sys.stdout` sees."""
    planned("--rate", "1e9", "--prompt-tokens", "100", "--output-tokens", "100")
    assert capfd.readouterr().out == ""


def test_fit_prints_the_arithmetic_and_a_launch_line() -> None:
    code, said, _ = ask("--fit", "llama-3.1-70b", "--accelerators", "4xH100,2xH100", "--context-tokens", "16384")
    assert code == 0
    assert "0.9 x memory - weights - other = KV cache" in said
    assert "--tensor-parallel-size=4" in said
    assert "less than one request of 16,384" in said


def test_fit_reads_a_folder_as_it_is_published(tmp_path: Path) -> None:
    config = {
        "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    counted = planned("--fit", str(tmp_path), "--accelerators", "L40S")
    assert counted["is_estimated"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 16_060_522_496}}))
    read = planned("--fit", str(tmp_path), "--accelerators", "L40S")
    assert (read["weight_bytes"], read["is_estimated"]) == (16_060_522_496, False)
    (replica,) = read["replicas"]
    assert replica["fits"]
    assert replica["vllm_arguments"][0] == "--max-model-len=8192"
    assert replica["usd_per_hour"] > 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--fit", "llama-3.1-70b", "--accelerators", "L4"), "fits nothing of that"),
        (("--fit", "nothing-like-it"), "config.json"),
        (("--fit", "llama-3.1-8b", "--accelerators", "L5"), "no accelerator 'L5'"),
        (("--fit", "llama-3.1-8b", *RATE), "leave --trace and --rate out"),
    ],
)
def test_fit_refuses_what_cannot_be(arguments: tuple[str, ...], problem: str) -> None:
    code, _, complained = ask(*arguments)
    assert code == 2
    assert problem in complained


def test_fit_over_nodes_multiplies_machines_and_says_how_layers_are_dealt_out() -> None:
    code, said, _ = ask(
        "--fit", "llama-3.1-70b", "--accelerators", "4xL40S", "--context-tokens", "8192", "--nodes", "2"
    )
    assert code == 0
    assert "2 nodes of 4xL40S" in said
    assert '"--tensor-parallel-size=4", "--pipeline-parallel-size=2"' in said
    assert "  nodes: 2\n" in said
    asked = ("--fit", "llama-3.1-70b", "--accelerators", "4xL40S", "--context-tokens", "8192")
    (one,), (two,) = planned(*asked)["replicas"], planned(*asked, "--nodes", "2")["replicas"]
    assert (two["nodes"], two["usd_per_hour"]) == (2, pytest.approx(2 * one["usd_per_hour"]))
    assert two["weights_gib"] == pytest.approx(one["weights_gib"] / 2)


def test_fit_says_over_how_many_nodes_it_would_fit() -> None:
    code, _, said = ask("--fit", "llama-3.1-70b", "--accelerators", "8xL4", "--context-tokens", "4096")
    assert code == 2
    assert "over 2 nodes of 8xL4 it would: --nodes 2" in said
