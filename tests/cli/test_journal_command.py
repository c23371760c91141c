"""`swell journal`, from a store: the trial balance, and files that hledger's format and Beancount understand."""

import csv
import json
import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from swell.server.assembly import open_store
from swell.server.state_directory import StateDirectory
from swell.state.records import SpoolPosition
from swell.testing.run_suite import replica_run
from swell.testing.store_suite import usage_change

START_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z
HOUR_MS = 3_600_000
MODELS = ("org/llama-3.1:8b", "org/llama-3.1-8b", "embed")


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two days, two tenants whose names differ by case, models with signs in their names, one replica."""
    root = tmp_path_factory.mktemp("journal") / "state"
    directory = StateDirectory(root)
    directory.create()
    store = open_store(directory)
    run = replica_run("e-0", model="embed", usd_nanos_per_hour=7_000_000_001, started_unix_ms=START_MS,
                      ready_unix_ms=START_MS + HOUR_MS // 3, ended_unix_ms=START_MS + 2 * HOUR_MS)  # fmt: skip
    store.put_runs([run])
    store.apply_usage(
        [
            usage_change(
                f"r{number}", "pair", reserved_at_unix_ms=START_MS + number % 2 * 24 * HOUR_MS,
                tenant=("search", "Search")[number % 2], model=MODELS[number % 3], charge_usd_nanos=270_001,
            )
            for number in range(12)
        ],
        SpoolPosition("w1", 1, 1),
    )  # fmt: skip
    store.close()
    return root


def run(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "journal", "--period", "2026-11", *arguments, "--state", str(state)],
        capture_output=True, text=True, timeout=60, check=False, cwd=state.parent,
    )  # fmt: skip


def test_the_table_is_a_trial_balance(state: Path) -> None:
    ended = run(state)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines() if line.strip()]
    assert lines[0] == ["2026-11,", "UTC"]
    assert ["Liabilities:Replicas:embed", "$14.000000002"] in lines
    assert ["Assets:Receivable:search", "$0.001620006"] in lines
    assert lines[-1] == ["total", "$14.003240014", "$14.003240014"]


def test_csv_has_every_posting_with_debit_and_credit(state: Path) -> None:
    rows = list(csv.DictReader(run(state, "--format", "csv").stdout.splitlines()))
    assert sum(Decimal(row["debit_usd"]) - Decimal(row["credit_usd"]) for row in rows) == 0
    assert {row["date"] for row in rows} == {"2026-11-01", "2026-11-02"}
    references = {row["reference"] for row in rows}
    assert references == {
        "swell:2026-11-01:charges:search", "swell:2026-11-02:charges:Search", "swell:2026-11-01:replicas:embed",
    }  # fmt: skip


def test_json_has_whole_nano_dollars_and_balances(state: Path) -> None:
    document = json.loads(run(state, "--json", "--each", "month").stdout)
    assert {each["date"] for each in document["transactions"]} == {"2026-11-30"}
    assert all(sum(p["amount_usd_nanos"] for p in each["postings"]) == 0 for each in document["transactions"])
    assert {"account": ["Liabilities", "Replicas", "embed"], "debit_usd_nanos": 0,
            "credit_usd_nanos": 14_000_000_002} in document["balances"]  # fmt: skip


def test_hledger_gets_one_account_per_name(state: Path, tmp_path: Path) -> None:
    target = tmp_path / "swell.journal"
    assert run(state, "-o", str(target)).returncode == 0
    text = target.read_text()
    assert text.count("\n2026-11-0") == 3
    assert "Income:Tokens:org/llama-3.1%3A8b  -" in text
    assert "Income:Tokens:org/llama-3.1-8b  -" in text
    for block in text.split("\n\n")[1:]:
        amounts = [Decimal(each) for each in re.findall(r"  (-?[\d.]+) USD", block)]
        assert len(amounts) > 1
        assert sum(amounts) == 0


def test_beancount_reads_what_is_written_for_it(state: Path, tmp_path: Path) -> None:
    loader = pytest.importorskip("beancount.loader", reason="needs Beancount: pip install beancount")
    target = tmp_path / "swell.beancount"
    assert run(state, "-o", str(target)).returncode == 0
    entries, errors, _ = loader.load_file(str(target))
    assert not errors
    booked = [entry for entry in entries if type(entry).__name__ == "Transaction"]
    assert len(booked) == 3
    sums: dict[str, Decimal] = {}
    for posting in (posting for entry in booked for posting in entry.postings):
        sums[posting.account] = sums.get(posting.account, Decimal(0)) + posting.units.number
    assert sums["Liabilities:Replicas:Embed"] == Decimal("-14.000000002")
    assert sums["Assets:Receivable:Search"] == Decimal("0.001620006")
    assert len([account for account in sums if account.startswith("Assets:Receivable:Search")]) == 2
    assert len([account for account in sums if account.startswith("Income:Tokens:")]) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--json", "--format", "csv"), "contradict each other"),
        (("-o", "books.txt"), "a table is for the screen"),
        (("--time-zone", "Mars"), "not a time zone"),
    ],
)
def test_what_cannot_be_done_is_said(state: Path, arguments: tuple[str, ...], sentence: str) -> None:
    ended = run(state, *arguments)
    assert ended.returncode == 2
    assert sentence in ended.stderr + ended.stdout


def test_a_period_without_anything_says_so(state: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "journal", "--period", "2025-01", "--state", str(state)],
        capture_output=True, text=True, timeout=60, check=False, cwd=state.parent,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "Nothing was charged" in ended.stdout
