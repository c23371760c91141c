"""`swell costs`: from the store, and from a running server whose replicas are processes."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from swell.server.assembly import open_store
from swell.server.state_directory import StateDirectory
from swell.state.records import SpoolPosition
from swell.testing.run_suite import replica_run
from swell.testing.store_suite import usage_change

START_MS = 1_793_491_200_000  # 2026-11-01T00:00:00Z
HOUR_MS = 3_600_000
SPEC = """
models:
  - {name: chat, source: /models/llama-3.1-8b, lora: {tuned: /adapters/tuned}, accelerators: [L4]}
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory without a server: two hours of chat, of which the first quarter started; one hour of embed."""
    root = tmp_path_factory.mktemp("costs") / "state"
    directory = StateDirectory(root)
    directory.create()
    store = open_store(directory)
    chat = replica_run(
        "chat-0", usd_nanos_per_hour=1_000_000_000, accelerator="L4", started_unix_ms=START_MS,
        ready_unix_ms=START_MS + HOUR_MS // 4, ended_unix_ms=START_MS + 2 * HOUR_MS,
    )  # fmt: skip
    embed = replace(chat, replica_id="embed-0", model="embed", market="spot", usd_nanos_per_hour=7,
                    ended_unix_ms=None, seen_unix_ms=START_MS + HOUR_MS)  # fmt: skip
    store.put_runs([chat, embed])
    asked = [("a", "search", "k1", "chat", 3000), ("b", "ads", "k2", "chat", 600), ("c", "ads", "k3", "tuned", 600)]
    asked += [("d", "ads", "k2", "far", 10), ("e", "search", "k1", "embed", 10)]
    store.apply_usage(
        [
            usage_change(
                name, "pair", reserved_at_unix_ms=START_MS + HOUR_MS // 2, tenant=tenant, key_id=key, model=model,
                prompt_tokens=prompt, completion_tokens=0, charge_usd_nanos=prompt * 1_000_000,
            )
            for name, tenant, key, model, prompt in asked
        ],
        SpoolPosition("w1", 1, 1),
    )  # fmt: skip
    store.close()
    (root.parent / "swell.yaml").write_text(SPEC)
    return root


def run(state: Path, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "costs", *arguments, "--state", str(state)],
        capture_output=True, text=True, timeout=60, check=False, cwd=cwd or state.parent,
    )  # fmt: skip


def document(state: Path, *arguments: str) -> Any:
    ended = run(state, *arguments, "--period", "2026-11", "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def amounts(found: Any, *names: str) -> dict[tuple[str, ...], int]:
    return {tuple(line[name] for name in (*names, "line")): line["cost_usd_nanos"] for line in found["lines"]}


def test_lines_of_tenants_starting_and_idle_add_up_to_the_cost(state: Path) -> None:
    found = document(state)
    lines = amounts(found, "model", "tenant")
    assert found["total"]["cost_usd_nanos"] == sum(lines.values()) == 2_000_000_007
    assert lines["chat", "", "starting"] == 250_000_000
    assert lines["chat", "search", "used"] > lines["chat", "ads", "used"] > 0
    [chat, embed] = found["models"]
    assert chat["replica_hours"] == {"own": "2.000"}
    assert embed["replica_hours"] == {"spot": "1.000"}
    assert (chat["work"], embed["work"]) == ("llama-3.1-8b@L4", "tokens, no profile")
    assert chat["cost_usd"] == "2.000000000"
    assert chat["charge_usd_nanos"] == 4_200_000_000, "the adapter's requests included; those for far are elsewhere"
    assert chat["recovery_usd_nanos"] == 2_200_000_000
    assert sum(line["recovery_usd_nanos"] for line in found["lines"]) == found["total"]["recovery_usd_nanos"]


def test_without_the_file_work_is_tokens_and_an_hour_with_requests_is_used(state: Path, tmp_path: Path) -> None:
    ended = run(state, "--period", "2026-11", "--json", cwd=tmp_path)
    lines = amounts(json.loads(ended.stdout), "model", "tenant")
    assert lines["chat", "search", "used"] == 625_000_000, "3,000 of the 3,600 tokens in three quarters of an hour"
    assert lines["chat", "", "idle"] == 1_000_000_000


def test_idle_is_spread_in_proportion_to_what_was_used(state: Path) -> None:
    own, spread = document(state), document(state, "--idle", "spread")
    before, after = amounts(own, "model", "tenant"), amounts(spread, "model", "tenant")
    assert after["chat", "", "idle"] == 0
    assert sum(after.values()) == sum(before.values())
    share = after["chat", "search", "used"] * before["chat", "ads", "used"]
    assert share == pytest.approx(after["chat", "ads", "used"] * before["chat", "search", "used"], rel=1e-4)


@pytest.mark.parametrize(
    ("by", "used"), [("key", {"k1", "k2", "k3"}), ("tenant", {"search", "ads"}), ("model", {"chat", "embed"})]
)
def test_groups_can_be_chosen(state: Path, by: str, used: set[str]) -> None:
    found = document(state, "--by", by)
    name = "key_id" if by == "key" else by
    assert {line[name] for line in found["lines"] if line["line"] == "used"} == used
    assert sum(line["cost_usd_nanos"] for line in found["lines"]) == 2_000_000_007


@pytest.mark.parametrize(
    ("arguments", "nanos"),
    [
        (("--period", "all"), 2_000_000_007),
        (("--period", "2026-11-01"), 2_000_000_007),
        (("--period", "2026-10"), 0),
        (("--period", "2026-10-31", "--time-zone", "Atlantic/Azores"), 1_000_000_005),  # an hour behind: one of two
    ],
)
def test_periods_bound_what_is_added_up(state: Path, arguments: tuple[str, ...], nanos: int) -> None:
    ended = run(state, *arguments, "--json")
    assert json.loads(ended.stdout)["total"]["cost_usd_nanos"] == pytest.approx(nanos, abs=2), ended.stderr


def test_people_get_a_table_with_a_total(state: Path) -> None:
    shown = run(state, "--period", "2026-11").stdout.splitlines()
    assert shown[0] == "2026-11, UTC"
    total = next(line.split() for line in shown if line.split()[:1] == ["total"])
    assert total == ["total", "$2.000000007", "$4.21", "$2.209999993"]
    assert "chat: replica-hours 2.000 own; work by llama-3.1-8b@L4" in shown
    assert "No replica cost anything in 2026-10 (UTC)." in run(state, "--period", "2026-10").stdout


@pytest.mark.parametrize("arguments", [("--by", "colour"), ("--by", ","), ("--period", "soon"), ("--idle", "mine")])
def test_what_is_not_understood_is_refused(state: Path, arguments: tuple[str, ...]) -> None:
    ended = run(state, *arguments)
    assert ended.returncode == 2
    assert ended.stderr


def test_a_profile_of_ones_own_is_found_without_an_accelerator(state: Path, tmp_path: Path) -> None:
    profile = tmp_path / "own.yaml"
    profile.write_text(
        "- {model: embed, accelerator: cpu, accelerator_count: 1, prefill_fixed_ms: 20, prefill_ms_per_token: 2, "
        "prefill_ms_per_token2: 0, step_fixed_ms: 20, step_ms_per_sequence: 8, step_ms_per_context_token: 0, "
        "kv_tokens: 8192, source: measured}\n"
    )
    found = document(state, "--profiles", str(profile))
    assert {model["model"]: model["work"] for model in found["models"]}["embed"] == "tokens, no profile", "it has an L4"
    assert Decimal(found["total"]["cost_usd"]) == Decimal("2.000000007")
