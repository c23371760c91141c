"""Alerts about models, of a real server at a real webhook: told once over a SIGKILL and a restart."""

import json
import time

import pytest
from alert_receiver import Receiver

from scripted_upstream import UpstreamThread
from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

SPEC = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"], objectives: {{ttft_ms: 0.001, attainment: 0.9}}}}
alerts:
  sinks:
    - {{kind: webhook, name: pager, url: "{hook}", secret_env: ALERT_SECRET, allow_private: true}}
"""
SECRET = "whsec_" + "A" * 44


def test_a_missed_objective_is_told_once_over_a_kill_and_a_restart(swell_up: SwellUp, upstream: UpstreamThread) -> None:
    with Receiver() as receiver:
        server = swell_up(SPEC.format(url=upstream.url, hook=receiver.url), environment={"ALERT_SECRET": SECRET})
        server.wait_model("m")
        assert server.stop() == 0
        counts = [[150.0, 10, 10], [90.0, 10, 10]]  # two minutes of misses, as an earlier server kept them
        kept = {"version": 1, "at_unix": time.time(), "counts": {"m": counts}}
        (server.state / "objectives.json").write_text(json.dumps(kept))
        server.start()
        server.wait_model("m")
        wait_until(lambda: _misses(server), seconds=40, what="the misses of a third minute make an alert")
        wait_until(lambda: len(receiver.taken) == 1, seconds=20, what="it arrives")
        (received,) = receiver.taken
        assert received.json["type"] == "alert.objective"
        data = received.json["data"]
        assert (data["severity"], data["subject"], data["values"]["state"]) == ("critical", "model m", "open")
        assert len(server.command("alerts", "--kind", "objective")) == 1
        assert server.command("alerts", "--kind", "budget") == []
        server.kill()
        server.start()
        server.wait_model("m")
        before = time.monotonic()
        wait_until(
            lambda: _misses(server) and time.monotonic() - before > 13, seconds=40, what="the watch had its turn"
        )
        assert len(server.command("alerts")) == 1
        assert len(receiver.taken) == 1
        assert server.stop() == 0
        assert len(server.command("alerts", "--kind", "objective")) == 1, "without a server as well"
        assert server.command("alerts", "--kind", "capacity") == []


def _misses(server: SwellProcess) -> bool:
    """Ask once more; whether there is an alert."""
    assert server.chat(max_tokens=4).status == 200
    return bool(server.command("alerts"))
