"""Alerts of a real server at a real webhook receiver: each arrives once, signed, over a SIGKILL and a restart."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alert_receiver import Received, Receiver

from scripted_upstream import UpstreamThread
from swell.testing.upstream_script import Script
from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

SECRET = bytes(range(32))
SPEC = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"], max_tokens: {{default: 100, max: 200}}}}
prices: {{m: {{usd_per_million_prompt_tokens: 10, usd_per_million_completion_tokens: 40}}}}
tenants:
  - {{name: default, budget: {{usd: 0.10, period: once}}}}
alerts:
  sinks:
    - {{kind: webhook, name: pager, url: "{hook}", secret_env: ALERT_SECRET, allow_private: true}}
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def server(swell_up: SwellUp, upstream: UpstreamThread, receiver: Receiver) -> SwellProcess:
    upstream.set_script(Script(chunks=100))  # 0.4 cents and a little, as much as was reserved
    secret = "whsec_" + base64.b64encode(SECRET).decode()
    spec = SPEC.format(url=upstream.url, hook=receiver.url)
    started = swell_up(spec, environment={"ALERT_SECRET": secret})
    started.wait_model("m")
    return started


def is_signed(received: Received) -> bool:
    """By the code that docs/alerts.md shows."""
    page = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    shown = re.search(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert shown
    names: dict[str, Any] = {}
    exec(shown[1], names)  # noqa: S102 - our own page
    is_ours, secret = names["is_ours"], "whsec_" + base64.b64encode(SECRET).decode()
    assert not is_ours(secret, received.headers, received.body + b" ")
    return bool(is_ours(secret, received.headers, received.body))


def spend(server: SwellProcess, requests: int) -> list[int]:
    return [server.chat(max_tokens=100).status for _ in range(requests)]


def kill_and_restart(server: SwellProcess) -> None:
    """The worker lives on and says that it is ready: wait for the new server itself."""
    server.kill()
    server.start()
    wait_until(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30, what="it answers")


def alert_states(server: SwellProcess) -> dict[str, list[str]]:
    """States of deliveries by threshold, as `swell alerts` lists them."""
    listed = server.command("alerts")
    return {alert["threshold"]: [each["state"] for each in alert["deliveries"]] for alert in listed}


def test_every_threshold_arrives_once_over_a_kill_and_a_restart(server: SwellProcess, receiver: Receiver) -> None:
    assert spend(server, 14) == [200] * 14
    wait_until(lambda: receiver.thresholds() == ["50%"], what="half is told")

    receiver.status = 503
    assert spend(server, 7) == [200] * 7
    wait_until(lambda: receiver.refused, what="the receiver was asked")
    kill_and_restart(server)
    wait_until(lambda: len(receiver.refused) >= 2, seconds=30, what="the new server goes on with it")
    receiver.status = 200
    wait_until(lambda: "80%" in receiver.thresholds(), seconds=60, what="80% arrives")

    assert 429 in spend(server, 10)
    wait_until(lambda: "100%" in receiver.thresholds(), seconds=30, what="100% arrives")
    every = {"50%": ["delivered"], "80%": ["delivered"], "100%": ["delivered"]}
    wait_until(lambda: alert_states(server) == every, what="all is delivered")

    kill_and_restart(server)
    assert server.command("alerts", "test") == [{"sink": "pager", "accepted": True, "problem": None}]
    assert server.stop() == 0  # which tries what is due once more
    *alerts, test = receiver.taken
    assert [alert.json["data"]["values"]["threshold"] for alert in alerts] == ["50%", "80%", "100%"]
    assert test.json["type"] == "alert.test"
    assert all(map(is_signed, (*receiver.taken, *receiver.refused)))
    assert {refused.headers["webhook-id"] for refused in receiver.refused} == {alerts[1].headers["webhook-id"]}
    assert server.output.count("Alert (") == 3
    assert alert_states(server) == every, "without a server as well"


def test_a_test_says_which_sink_does_not_take_it(server: SwellProcess, receiver: Receiver) -> None:
    receiver.status = 403
    (outcome,) = server.command("alerts", "test", "--sink", "pager", check=False)
    assert not outcome["accepted"]
    assert outcome["problem"].startswith("alert sink pager: 127.0.0.1 answered 403")
    refusal = server.command("alerts", "test", "--sink", "pagr", check=False)
    assert refusal == {"error": "there is no alert sink 'pagr'; there is pager"}
    assert server.command("alerts") == []
