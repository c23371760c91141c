"""What real replicas cost: noted while they run, over a kill of the server, and at their end."""

import json
from pathlib import Path

import pytest
from fake_engine import make_engine, make_model, spec_of

from swell_process import SwellUp, wait_until

pytestmark = pytest.mark.process


def priced(folder: Path) -> str:
    spec = json.loads(spec_of(make_model(folder), replicas="1..1"))
    spec["models"][0]["usd_per_replica_hour"] = "3600"  # a dollar a second
    spec["prices"] = {"m": {"input": 1, "output": 1}}
    return json.dumps(spec)


def test_a_replica_costs_until_it_ends_whoever_watches(swell_up: SwellUp, tmp_path: Path) -> None:
    server = swell_up(priced(tmp_path), workers=1, environment=make_engine(tmp_path))
    assert server.chat().status == 200
    [first] = server.command("costs", "--period", "all")["models"]
    assert first["starting_usd_nanos"] > 0
    assert first["cost_usd_nanos"] == sum(first[f"{line}_usd_nanos"] for line in ("starting", "used", "idle"))
    assert first["charge_usd_nanos"] > 0
    server.kill()
    server.start()
    server.wait_ready()
    wait_until(
        lambda: server.command("costs", "--period", "all")["total"]["cost_usd_nanos"] > first["cost_usd_nanos"],
        seconds=20, what="the adopted replica costs more",
    )  # fmt: skip
    assert server.stop() == 0
    ended = server.command("costs", "--period", "all")
    assert server.command("costs", "--period", "all") == ended, "nothing runs, nothing costs"
    [model] = ended["models"]
    assert list(model["replica_hours"]) == ["own"]
    assert model["cost_usd_nanos"] > first["cost_usd_nanos"]
