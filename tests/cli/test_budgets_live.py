"""Budgets on a real server: raised by hand with it and without it, and rolling ones over its restart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
from swell.cli import access
from swell_process import Reply, SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

# A request with max_tokens 100 has a bound of about $0.007 and is charged half a cent of it at most.
SPEC = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"], max_tokens: {{default: 100, max: 200}}}}
prices: {{m: {{usd_per_million_prompt_tokens: 10, usd_per_million_completion_tokens: 40}}}}
tenants:
  - {{name: default, budget: {{usd: 0.01, period: day}}}}
"""


def use_up(server: SwellProcess) -> None:
    for _ in range(50):
        reply = server.chat(max_tokens=100)
        if reply.status == 429:
            assert reply.json["error"]["code"] == "budget_exceeded"
            return
    raise AssertionError("the budget is never used up")


def test_a_raise_lets_requests_in_again_and_its_end_keeps_them_out(swell_up: SwellUp, upstream: UpstreamThread) -> None:
    server = swell_up(SPEC.format(url=upstream.url), workers=2)
    server.wait_model("m")
    use_up(server)
    made = server.command("budget", "raise", "default", "--by", "0.05", "--reason", "the launch")
    assert (made["scope"], made["owner"], made["by_usd_nanos"]) == ("tenant", "default", 50_000_000)
    assert server.chat(max_tokens=100).status == 200
    (row,) = server.command("budget")
    assert (row["cap_usd"], row["raised_usd"]) == ("0.060000000", "0.050000000")
    ended = server.command("budget", "end-override", made["override_id"])
    assert ended["ended_at_unix"] is not None
    wait_until(lambda: server.chat(max_tokens=100).status == 429, what="the cap has fallen")

    short = server.command("budget", "raise", "default", "--by", "0.05", "--for", "3s", "--reason", "a moment")
    assert server.chat(max_tokens=100).status == 200
    wait_until(lambda: standing(server)["raised_usd_nanos"] == 0, what="the raise is over")
    wait_until(lambda: server.chat(max_tokens=100).status == 429, what="the cap has fallen by itself")
    assert [each["override_id"] for each in server.command("budget", "overrides")] == [
        short["override_id"],
        made["override_id"],
    ]


def test_without_a_server_it_goes_into_the_store_and_holds_when_one_starts(
    swell_up: SwellUp, upstream: UpstreamThread
) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    server.wait_model("m")
    use_up(server)
    assert server.stop() == 0
    file = str(Path(server.state).with_name("swell.yaml"))
    refused = server.command("budget", "raise", "defualt", "--by", "1", "--reason", "x", "-f", file, check=False)
    assert refused == {"error": "'defualt' has no budget; did you mean tenant:default?"}
    made = server.command("budget", "raise", "default", "--by", "1", "--reason", "x", "-f", file)
    (row,) = server.command("budget", "-f", file)
    assert (row["cap_usd"], row["raised_usd"]) == ("1.010000000", "1.000000000")
    server.start()
    server.wait_ready()
    server.wait_model("m")
    server.command("budget", "end-override", made["override_id"])
    wait_until(lambda: server.chat(max_tokens=100).status == 429, what="the cap has fallen")
    assert server.stop() == 0
    assert server.command("budget", "overrides")[0]["ended_at_unix"] is not None
    again = server.command("budget", "end-override", made["override_id"], check=False)
    assert "none does" in again["error"]


def test_rolling_budgets_of_a_tenant_and_of_a_key_say_when_room_comes_back(
    swell_up: SwellUp, upstream: UpstreamThread
) -> None:
    spec = SPEC.format(url=upstream.url).replace("period: day", "period: rolling 24h")
    server = swell_up(spec, workers=2)
    server.wait_model("m")
    for _ in range(50):
        reply = server.chat(max_tokens=100)
        if reply.status == 429:
            break
    message = reply.json["error"]["message"]
    assert "Of the budget of $0.01 for tenant 'default' (rolling 24h) $0." in message
    assert "Enough of it comes back in 24 h" in message
    assert 24 * 3600 - 60 <= int(reply.headers["retry-after"]) <= 25 * 3600
    server.kill()
    server.start()
    wait_until(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30, what="it answers")
    assert server.chat(max_tokens=100).status == 429
    (row,) = server.command("budget")
    assert (row["period"], row["ends_unix"]) == ("rolling 24h", None)
    assert row["frees_unix"] is not None
    server.command("budget", "raise", "default", "--by", "1", "--reason", "x")
    server.create_key("rolls", "--budget", "0.01 / rolling 7d")
    assert server.chat(max_tokens=100).status == 200
    rows = {each["scope"]: each for each in server.command("budget")}
    assert rows["key"]["period"] == "rolling 7d"
    assert rows["tenant"]["raised_usd"] == "1.000000000"


def standing(server: SwellProcess) -> dict[str, Any]:
    """The only budget, asked of the server itself: a command takes its time to start."""
    with access.server(server.state) as running:
        (row,) = running.budgets(Path())
    return dict(row)


LADDER = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"], max_tokens: {{default: 100, max: 200}}, cheaper_variant: s}}
  - {{name: s, engine: external, endpoints: ["{url}"], max_tokens: {{default: 100, max: 150}}}}
prices:
  m: {{usd_per_million_prompt_tokens: 10, usd_per_million_completion_tokens: 40}}
  s: {{usd_per_million_prompt_tokens: 5, usd_per_million_completion_tokens: 20}}
"""
TENANTS_BUDGET = """
tenants:
  - name: default
    budget:
      usd: 0.10
      period: day
      alerts: [100%]
      at_limit: [shed_batch 30%, cheaper_variant 50%, throttle 80%]
      throttle_requests_per_minute: 3
"""
KEYS_BUDGET = ("--budget", "0.10 / day", "--at-limit", "throttle 80%", "--at-limit", "shed_batch 30%",
               "--at-limit", "cheaper_variant 50%", "--throttle-rpm", "3")  # fmt: skip


@pytest.mark.parametrize("whose", ["tenant", "key"])
def test_a_budget_goes_down_its_ladder_before_it_blocks(
    swell_up: SwellUp, upstream: UpstreamThread, whose: str
) -> None:
    server = swell_up((LADDER + (TENANTS_BUDGET if whose == "tenant" else "")).format(url=upstream.url), workers=2)
    server.wait_model("m")
    if whose == "key":
        server.create_key("ladder", *KEYS_BUDGET)
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
    batch: dict[str, str | None] = {"x-swell-priority": "batch"}

    def spend_until(stage: str) -> None:
        """Carefully: the server looks once a second, and a budget of ten cents is gone in less."""

        def is_there() -> bool:
            server.command("usage", "--limit", "1")  # books what has been written, so that nothing is spent twice
            row = standing(server)
            share = {"shed_batch": 30, "cheaper_variant": 50, "throttle": 80}[stage]
            missing = row["cap_usd_nanos"] * share // 100 - row["spent_usd_nanos"]
            for _ in range(-(-missing // 5_000_000)):  # a request costs less
                assert server.chat(max_tokens=100).status == 200
            return bool(row["stage"] == stage)

        wait_until(is_there, seconds=60, what=f"the stage is {stage}")

    def until(is_right: Callable[[Reply], bool], what: str, headers: dict[str, str | None] | None = None) -> Reply:
        """Ask again and again: each worker is told by itself."""

        def reply() -> Reply | None:
            found = server.request("POST", "/v1/chat/completions", body, headers=headers)
            return found if is_right(found) else None

        found: Reply = wait_until(reply, seconds=60, what=what)
        return found

    assert server.request("POST", "/v1/chat/completions", body, headers=batch).status == 200
    spend_until("shed_batch")
    shed = until(lambda reply: reply.status == 429, "batch is shed", batch)
    assert shed.json["error"]["code"] == "budget_batch_shed"
    assert 0 < int(shed.headers["retry-after"]) <= 86_400

    spend_until("cheaper_variant")
    switched = until(lambda reply: "x-swell-served-model" in reply.headers, "another model answers")
    assert (switched.status, switched.headers["x-swell-served-model"]) == (200, "s")
    too_long = server.chat(max_tokens=200)  # more than the variant allows
    assert (too_long.status, too_long.headers.get("x-swell-served-model")) == (200, None)
    rates = {each["model"]: each["completion_rate"] for each in server.command("usage")}
    assert rates == {"m": 40 * 10**9, "s": 20 * 10**9}

    spend_until("throttle")
    throttled = until(lambda reply: reply.status == 429, "the rate is low")
    assert throttled.json["error"]["code"] == "budget_throttled"
    assert throttled.headers["x-ratelimit-limit-requests"] == "3"
    (row,) = server.command("budget")
    assert (row["steps"], row["stage"]) == (["shed_batch", "cheaper_variant", "throttle"], "throttle")
    assert (row["scope"], row["owner"]) == (whose, "default" if whose == "tenant" else server.key_id)

    def told() -> set[str]:
        thresholds = {each["threshold"] for each in server.command("alerts")}
        return {text for text in thresholds if text.startswith("step")}

    wait_until(lambda: len(told()) == 3, what="each step is told")
    assert told() == {"step shed_batch", "step cheaper_variant", "step throttle"}
    server.command("budget", "raise", f"{whose}:{row['owner']}", "--by", "1", "--reason", "go on")
    until(lambda reply: reply.status == 200 and "x-swell-served-model" not in reply.headers, "the ladder is left")
    assert server.command("budget")[0]["stage"] == ""
