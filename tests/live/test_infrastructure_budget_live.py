"""A real server keeps an infrastructure budget: what runs is let go in time, and a kill makes nobody forget."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_engine import make_engine, make_model, spec_of
from live_load import replicas_of, status_of

from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

USD_AN_HOUR = 3600  # a dollar a second


def budgeted(folder: Path, usd: int, replicas: str = "0..3") -> str:
    """A drain of a second: of what a replica is bound to cost, most is the minute that a turn may be late."""
    spec = json.loads(spec_of(make_model(folder), replicas=replicas, drain_seconds=1.0, idle_seconds=300.0))
    [model] = spec["models"]
    model |= {"usd_per_replica_hour": USD_AN_HOUR, "infrastructure_budget": {"usd": usd, "period": "year"}}
    model |= {"drain_seconds": 1.0}
    return json.dumps(spec)


def budget_of(server: SwellProcess) -> dict[str, Any]:
    [row] = server.command("budget", "-f", str(server.state.parent / "swell.yaml"))
    return row


def why(server: SwellProcess) -> list[dict[str, Any]]:
    return [line for line in server.command("status", "--why")["decisions"] if line["binding"] == "budget"]


def test_replicas_are_let_go_before_the_money_is_out(swell_up: SwellUp, tmp_path: Path) -> None:
    server = swell_up(budgeted(tmp_path, 115), workers=1, environment=make_engine(tmp_path))
    assert server.chat().status == 200
    assert len(replicas_of(server)) == 1
    wait_until(lambda: replicas_of(server) == [], seconds=90, what="the replica is let go")
    row = budget_of(server)
    assert 0 < row["spent_usd_nanos"] <= row["cap_usd_nanos"]
    assert row["ceiling_usd_nanos"] == 0
    reasons = why(server)
    assert any("replicas: 100% of what is asked for is given up" in line["reason"] for line in reasons)
    assert any("the infrastructure budget of m for " in line["reason"] for line in reasons)
    server.kill()
    server.start()
    wait_until(lambda: status_of(server), seconds=20, what="the restarted server answers")
    again = budget_of(server)
    assert again["spent_usd_nanos"] == row["spent_usd_nanos"], "nothing ran meanwhile"
    assert server.stop() == 0
    assert budget_of(server)["spent_usd_nanos"] == row["spent_usd_nanos"], "also where no server runs"


def test_a_fixed_number_of_replicas_is_bounded_too_and_from_the_first_moment(swell_up: SwellUp, tmp_path: Path) -> None:
    server = swell_up(budgeted(tmp_path, 10, replicas="2..2"), workers=1, environment=make_engine(tmp_path))
    wait_until(lambda: why(server), seconds=30, what="a turn was taken")
    assert replicas_of(server) == []
    assert budget_of(server)["spent_usd_nanos"] == 0
    assert server.stop() == 0
