"""`swell usage` with groups, periods and files, and `swell statement`: from the store, and from a running server."""

import csv
import json
import subprocess
import sys
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path

import pytest

from scripted_upstream import UpstreamThread
from swell.cli.usage_report import period_of, wish_of
from swell.server.assembly import open_store
from swell.server.state_directory import StateDirectory
from swell.state.records import SpoolPosition
from swell.testing.store_suite import usage_change
from swell_process import SwellProcess, SwellUp

START_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z
DAY_MS = 86_400_000
PRICED = """
models: [{{name: m, engine: external, endpoints: ["{url}"]}}]
organisation: {{name: Example Ltd}}
tenants: [{{name: search, budget: $20 / month}}, {{name: idle}}]
prices: {{m: {{input: 0.15, output: 0.60}}}}
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory without a server: three days of November 2026, two tenants, two models."""
    root = tmp_path_factory.mktemp("reports") / "state"
    directory = StateDirectory(root)
    directory.create()
    store = open_store(directory)
    rates = {"prompt_rate": 150_000_000, "completion_rate": 600_000_000}
    store.apply_usage(
        [
            usage_change(
                f"r{number}",
                "pair",
                reserved_at_unix_ms=START_MS + number % 3 * DAY_MS,
                tenant=("search", "ads")[number % 2],
                model=("m", "embed")[number % 4 == 0],
                prompt_tokens=1000,
                completion_tokens=200,
                cached_tokens=250,
                charge_usd_nanos=270_000,
                **rates,
            )
            for number in range(12)
        ],
        SpoolPosition("w1", 1, 1),
    )
    store.close()
    return root


def run(state: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", *arguments, "--state", str(state)],
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd or state.parent,
    )  # fmt: skip


def test_sums_by_tenant_and_model_with_a_total(state: Path) -> None:
    ended = run(state, "usage", "--by", "tenant,model", "--period", "2026-11")
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in ended.stdout.splitlines() if line.strip()]
    assert lines[0] == ["2026-11,", "UTC"]
    assert ["search", "embed", "3", "0", "3000", "750", "600", "$0.00081"] in lines
    assert lines[-1] == ["total", "12", "0", "12000", "3000", "2400", "$0.00324"]


def test_json_has_decimal_text_and_nano_dollars(state: Path) -> None:
    document = json.loads(run(state, "usage", "--by", "key,day", "--period", "2026-11", "--json").stdout)
    assert document["period"] == {
        "label": "2026-11", "start_unix": START_MS / 1000, "end_unix": (START_MS + 30 * DAY_MS) / 1000,
        "time_zone": "UTC",
    }  # fmt: skip
    assert document["by"] == ["key_id", "day"]
    assert [group["day"] for group in document["groups"]] == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert document["groups"][0]["charge_usd_nanos"] == 4 * 270_000
    assert document["total"] == {
        "requests": 12, "void_requests": 0, "prompt_tokens": 12_000, "cached_tokens": 3000,
        "completion_tokens": 2400, "charge_usd_nanos": 3_240_000, "charge_usd": "0.003240000",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "requests"),
    [
        (("--period", "2026-11"), 12),
        (("--period", "2026-11-02"), 4),
        (("--period", "2026"), 12),
        (("--period", "all"), 12),
        (("--period", "2026-10"), 0),
        (("--period", "2026-10-31", "--time-zone", "America/New_York"), 4),
        (("--period", "2026-11", "--tenant", "search", "--model", "embed"), 3),
        (("--period", "all", "--status", "void"), 0),
        (("--since", "36500d", "--by", "status"), 12),
    ],
)
def test_periods_zones_and_filters_bound_what_is_summed(state: Path, arguments: tuple[str, ...], requests: int) -> None:
    ended = run(state, "usage", *arguments, "--json")
    assert json.loads(ended.stdout)["total"]["requests"] == requests, ended.stderr


def test_csv_goes_to_standard_output_or_to_a_file_and_has_no_total_to_be_counted_twice(
    state: Path, tmp_path: Path
) -> None:
    arguments = ("usage", "--by", "tenant", "--period", "2026-11", "--format", "csv")
    printed = run(state, *arguments).stdout
    rows = list(csv.DictReader(printed.splitlines()))
    assert [(row["tenant"], row["requests"], row["charge_usd"]) for row in rows] == [
        ("ads", "6", "0.001620000"),
        ("search", "6", "0.001620000"),
    ]
    written = tmp_path / "usage.csv"
    assert run(state, *arguments[:-2], "-o", str(written)).returncode == 0
    assert written.read_text() == printed
    assert [path.name for path in tmp_path.iterdir()] == ["usage.csv"]


def test_the_listing_has_charges_in_every_format(state: Path) -> None:
    assert "$0.00027" in run(state, "usage").stdout
    records = json.loads(run(state, "usage", "--json", "--limit", "2").stdout)
    assert [(record["charge_usd"], record["charge_usd_nanos"]) for record in records] == [("0.000270000", 270_000)] * 2
    rows = list(csv.DictReader(run(state, "usage", "--format", "csv").stdout.splitlines()))
    assert len(rows) == 12
    assert {row["charge_usd"] for row in rows} == {"0.000270000"}


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="PyArrow is installed; this is about machines without it")
def test_parquet_without_pyarrow_says_how_to_get_it(state: Path, tmp_path: Path) -> None:
    ended = run(state, "usage", "--by", "tenant", "-o", str(tmp_path / "usage.parquet"))
    assert ended.returncode == 2
    assert "pip install pyarrow" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_focus_export_sums_to_the_ledger(state: Path, tmp_path: Path) -> None:
    written = tmp_path / "focus.csv"
    ended = run(state, "usage", "--format", "focus", "--period", "2026-11", "-o", str(written))
    assert ended.returncode == 0, ended.stderr
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 3, "two kinds of token, three days, two models of one tenant and one of another"
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.00324")
    assert sum(int(row["x_Requests"] or 0) for row in rows) == 12
    assert {row["BillingAccountId"] for row in rows} == {"organisation"}
    assert {row["ChargePeriodStart"][:10] for row in rows} == {"2026-11-01", "2026-11-02", "2026-11-03"}


def test_a_statement_is_a_page_in_a_file(state: Path, tmp_path: Path) -> None:
    written = tmp_path / "statement.html"
    arguments = ("statement", "--tenant", "search", "--period", "2026-11", "-o", str(written))
    ended = run(state, *arguments)
    assert ended.returncode == 0, ended.stderr
    assert "search, 2026-11, 6 requests, $0.00162" in ended.stdout
    assert "<h1>search, 2026-11</h1>" in written.read_text()
    assert json.loads(run(state, *arguments, "--json").stdout)["total"]["charge_usd"] == "0.001620000"


def test_a_dash_is_standard_output_and_no_file(state: Path, tmp_path: Path) -> None:
    page = run(state, "statement", "--tenant", "search", "--period", "2026-11", "-o", "-", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert page.stdout.startswith("<!doctype html>")
    assert page.stdout.rstrip().endswith("</html>"), "and nothing behind it"
    arguments = ("usage", "--by", "tenant", "--period", "2026-11", "--format", "csv")
    assert run(state, *arguments, "-o", "-", cwd=tmp_path).stdout == run(state, *arguments).stdout
    books = ("journal", "--period", "2026-11", "--format", "csv")
    assert run(state, *books, "-o", "-", cwd=tmp_path).stdout == run(state, *books).stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("usage", "--by", "tenants"), "--by 'tenants' is unknown; there are tenant, model, key, endpoint, status"),
        (("usage", "--by", ","), "--by names nothing"),
        (("usage", "--period", "november"), "'november' is no period"),
        (("usage", "--period", "2026-11", "--since", "1h"), "leave one out"),
        (("usage", "--period", "2026-11", "--limit", "3"), "--limit is for the listing"),
        (("usage", "--by", "day", "--time-zone", "Berlin"), "did you mean Europe/Berlin?"),
        (("usage", "--format", "xlsx"), "there are table, csv, json, parquet, focus"),
        (("usage", "--format", "table", "-o", "x"), "a table is for the screen"),
        (("usage", "--format", "csv", "--json"), "contradict each other"),
        (("usage", "--format", "parquet"), "-o FILE.parquet"),
        (("usage", "--format", "focus", "--by", "tenant"), "groups of its own"),
        (("usage", "--format", "focus", "--time-zone", "Europe/Berlin"), "the calendar of UTC"),
        (("usage", "--by", "tenant", "-o", "nowhere/x.csv"), "cannot be written"),
        (("statement", "--tenant", "serch", "--period", "2026-11", "-o", "x.html"), "has no requests in 2026-11"),
        (
            ("statement", "--tenant", "search", "--period", "2026-11", "-o", "-", "--json"),
            "both write to standard output",
        ),
        (("usage", "--by", "tenant", "--format", "parquet", "-o", "-"), "Parquet goes into a file"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_sentence(
    state: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    ended = run(state, *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert sentence in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def server(shared_swell_up: SwellUp, shared_upstream: UpstreamThread) -> SwellProcess:
    server = shared_swell_up(PRICED.format(url=shared_upstream.url))
    server.create_key("reports", "--tenant", "search")
    assert server.chat().status == 200
    assert server.chat().status == 200
    return server


def test_a_running_server_sums_what_it_served_up_to_now(server: SwellProcess) -> None:
    listed = server.command("usage", "--tenant", "search")
    document = server.command("usage", "--by", "tenant,model,status,hour", "--period", "day", "--tenant", "search")
    assert document["total"]["requests"] == len(listed) == 2
    assert document["total"]["charge_usd_nanos"] == sum(record["charge_usd_nanos"] for record in listed) > 0
    assert {(group["tenant"], group["model"], group["status"]) for group in document["groups"]} == {
        ("search", "m", "settled")
    }


def test_a_running_server_s_usage_is_exported_and_stated(server: SwellProcess, tmp_path: Path) -> None:
    spec = server.state.parent / "swell.yaml"
    total = server.command("usage", "--by", "tenant", "--period", "month", "--tenant", "search")["total"]
    written, stated = tmp_path / "focus.csv", tmp_path / "statement.html"
    exported = run(
        server.state, "usage", "--format", "focus", "--tenant", "search", "-f", str(spec), "-o", str(written)
    )
    assert exported.returncode == 0, exported.stderr
    with written.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(total["charge_usd"])
    assert {row["BillingAccountName"] for row in rows} == {"Example Ltd"}
    made = server.command("statement", "--tenant", "search", "-f", str(spec), "-o", str(stated))
    del total["cached_tokens"]  # which change nothing of what is charged
    assert made["total"] == total
    text = stated.read_text()
    assert "$20.00" in text
    assert "Example Ltd" in text
    empty = server.command("statement", "--tenant", "idle", "-f", str(spec), "-o", str(stated))
    assert empty["total"]["requests"] == 0


def test_a_server_refuses_groups_that_there_are_not(server: SwellProcess) -> None:
    import httpx

    transport = httpx.HTTPTransport(uds=str(server.state / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://swell", trust_env=False) as client:
        refused = client.post("/api/usage/groups", json={"by": ["secret"]})
        assert refused.status_code == 400
        assert "secret" in refused.json()["error"]
        assert client.post("/api/usage/groups", json={"bucket": "week"}).status_code == 400
        assert len(client.get("/api/usage/span").json()) == 2


def test_a_report_of_a_length_of_time_says_since_when_by_the_zones_clock() -> None:
    wish = wish_of("tenant", None, "Asia/Kathmandu", 1_795_942_800.0)
    assert period_of(wish, None).label == "since 2026-11-29 14:45"


def test_nothing_since_then_is_a_sentence(state: Path) -> None:
    assert run(state, "usage", "--by", "tenant", "--since", "1s").stdout.startswith("No usage since 20")
