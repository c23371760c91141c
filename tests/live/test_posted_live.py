"""Rates that follow from cost, with a real server: posted once, charged, shown, and over at once where fixed."""

import json
import time
from pathlib import Path

import pytest
from fake_engine import make_engine, make_model, spec_of

from swell_process import SwellUp

pytestmark = pytest.mark.process


def test_posted_rates_are_charged_shown_and_recovered(swell_up: SwellUp, tmp_path: Path) -> None:
    spec = json.loads(spec_of(make_model(tmp_path), replicas="1..1"))
    spec["models"][0]["usd_per_replica_hour"] = "3600"  # a dollar a second
    terms = {"tokens_per_second": 1000, "utilisation": 1, "markup_percent": 10, "max_usd_per_million_tokens": 9999}
    spec["prices"] = {"m": {"posted": terms}}
    spec["tenants"] = [{"name": "default", "budget": 1000}]
    server = swell_up(json.dumps(spec), workers=1, environment=make_engine(tmp_path))
    [rate] = server.command("prices", "posted")
    assert rate["basis"] == "capacity"
    assert rate["usd_per_million_completion_tokens"] == "1100.000000000", "a dollar a thousand, and the markup"
    assert rate["usd_per_million_prompt_tokens"] == "275.000000000"
    assert rate["start_unix_ms"] <= time.time() * 1000 < rate["end_unix_ms"]
    assert server.chat().status == 200
    server.kill()
    server.start()
    server.wait_ready()
    assert server.chat().status == 200
    assert server.command("prices", "posted", "--model", "m") == [rate], "posted once, over a kill"
    assert server.command("prices", "posted", "--model", "other") == []
    charged = server.command("usage")
    rates = {(row["prompt_rate"], row["completion_rate"]) for row in charged}
    assert rates == {(rate["prompt_rate"], rate["completion_rate"])}
    assert server.stop() == 0
    found = server.command("costs")
    whole = found["total"]["charge_usd_nanos"]
    assert whole == sum(row["charge_usd_nanos"] for row in charged) > 0
    assert found["total"]["recovery_usd_nanos"] == whole - found["total"]["cost_usd_nanos"]
    assert sum(line["recovery_usd_nanos"] for line in found["lines"]) == found["total"]["recovery_usd_nanos"]
    spec["prices"] = {"m": {"input": 1, "output": 2}}
    server.state.with_name("swell.yaml").write_text(json.dumps(spec))
    server.start()
    server.wait_ready()
    assert server.chat().status == 200
    newest = server.command("usage", "--limit", "1")[0]
    assert (newest["prompt_rate"], newest["completion_rate"]) == (10**9, 2 * 10**9), "fixed rates hold at once"
    assert server.command("prices", "posted") == [rate]
