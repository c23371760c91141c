"""`swell up` on Postgres: requests, usage, a budget, killed servers, and commands without a server."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
from swell.testing.postgres_server import PASSWORD, USER, PostgresServer
from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = [pytest.mark.services, pytest.mark.process]

CAP_USD = 0.05
SPEC = """
models: [{{name: m, engine: external, endpoints: ["{upstream}"], max_tokens: {{default: 5, max: 5}}}}]
prices: {{m: {{usd_per_million_prompt_tokens: 10, usd_per_million_completion_tokens: 1000}}}}
tenants: [{{name: default, budget: "{cap} / month"}}]
server: {{store: {{url: "{url}", password_file: "{password}"}}}}
"""
MOST_REQUESTS = 40


@pytest.fixture
def spec(postgres: PostgresServer, upstream: UpstreamThread, tmp_path: Path) -> str:
    """Over the loopback port with a password, in a database that nobody has prepared."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    url = postgres.url_of_port(postgres.new_database())
    return SPEC.format(upstream=upstream.url, cap=CAP_USD, url=url, password=password)


def spent(server: SwellProcess) -> tuple[int, int]:
    """Requests of the default tenant, and nano-dollars, by the ledger."""
    rows = server.command("usage", "--by", "tenant", "--period", "month")["groups"]
    return next((row["requests"], row["charge_usd_nanos"]) for row in rows if row["tenant"] == "default")


def budget(server: SwellProcess) -> dict[str, Any]:
    (row,) = server.command("budget", "-f", str(server.state.parent / "swell.yaml"))
    return dict(row)


def test_a_server_on_postgres_serves_counts_and_holds_its_budget_over_kills(spec: str, swell_up: SwellUp) -> None:
    server = swell_up(spec)
    server.wait_model("m")
    assert not (server.state / "swell.db").exists()
    answers = [server.chat().status for _ in range(MOST_REQUESTS)]
    allowed = answers.count(200)
    assert 0 < allowed < MOST_REQUESTS
    assert set(answers[allowed:]) == {429}, "once it is used up it stays so"
    requests, charged = spent(server)
    assert requests == allowed + 1, "the one that found the model ready"
    assert 0 < charged <= CAP_USD * 1e9
    assert budget(server)["spent_usd_nanos"] <= charged
    server.kill()
    server.start()
    server.wait_ready()  # by the workers, which never ended; who grants leases is there later
    wait_until(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=40, what="it answers")
    assert server.chat().status == 429
    assert spent(server) == (requests, charged)
    assert server.stop() == 0
    assert spent(server) == (requests, charged), "a command without a server finds the store"
    assert budget(server)["spent_usd_nanos"] == charged
    (named,) = [key for key in server.command("keys", "list") if key["id"] == server.key_id]
    assert named["name"] == "tests"


def test_requests_are_served_while_postgres_is_gone_and_counted_when_it_is_back(
    own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp
) -> None:
    url = own_postgres.url(own_postgres.new_database())
    text = f'models: [{{name: m, engine: external, endpoints: ["{upstream.url}"]}}]\n'
    server = swell_up(f'{text}server: {{store: {{url: "{url}"}}}}')
    server.wait_model("m")
    own_postgres.kill()
    assert [server.chat().status for _ in range(5)] == [200] * 5
    own_postgres.start()
    wait_until(lambda: _requests(server) == 6, seconds=40, what="all requests are in the ledger")
    assert server.stop() == 0


def _requests(server: SwellProcess) -> int:
    answer = server.command("usage", "--by", "tenant", "--period", "month", check=False)
    return sum(row["requests"] for row in answer.get("groups", []))


def _report(server: SwellProcess) -> "subprocess.Popen[bytes]":
    """`swell usage --by tenant`, under way."""
    words = ["usage", "--by", "tenant", "--period", "month", "--state", str(server.state), "--json"]
    return subprocess.Popen(
        [sys.executable, "-m", "swell.cli.main", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=server.environment,
    )  # fmt: skip


def test_serving_usage_leases_and_keys_go_on_while_a_report_runs(
    own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp, tmp_path: Path
) -> None:
    """The process of Postgres that works on the report is stopped, so that it does not end before it may."""
    name, password = own_postgres.new_database(), tmp_path / "password"
    password.write_text(PASSWORD)
    url = own_postgres.url_of_port(name)
    server = swell_up(SPEC.format(upstream=upstream.url, cap=CAP_USD, url=url, password=password))
    server.wait_model("m")
    before, _ = spent(server)
    listed = "SELECT pid FROM pg_stat_activity WHERE datname = %(name)s AND application_name LIKE '%% reports'"
    ((helper,),) = own_postgres.run(listed, name=name)
    os.kill(helper, signal.SIGSTOP)
    try:
        report = _report(server)
        served = [server.chat().status for _ in range(MOST_REQUESTS)].count(200)
        assert 0 < served < MOST_REQUESTS, "leases are granted until the budget is used up, and not beyond"
        entered = "SELECT count(*) FROM usage WHERE status = 'settled'"
        wait_until(lambda: own_postgres.run(entered, name) == [(before + served,)], what="usage is entered")
        server.create_key("made meanwhile")
        assert report.poll() is None
    finally:
        os.kill(helper, signal.SIGCONT)
    out, problem = report.communicate(timeout=30)
    assert report.returncode == 0, problem
    (group,) = json.loads(out)["groups"]
    assert before <= group["requests"] <= before + served
    assert spent(server)[0] == before + served
    assert server.stop() == 0


def test_a_report_ends_in_postgres_when_whoever_asked_is_gone(
    own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp
) -> None:
    name = own_postgres.new_database()
    text = f'models: [{{name: m, engine: external, endpoints: ["{upstream.url}"]}}]\n'
    server = swell_up(f'{text}server: {{store: {{url: "{own_postgres.url(name)}"}}}}')
    server.wait_model("m")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %(name)s"
    with own_postgres.admin(name) as other, other.transaction():
        other.execute("LOCK TABLE usage_other")  # which reports read, and usage of this month does not go to
        report = _report(server)
        wait_until(lambda: own_postgres.run(waits, name=name) == [(1,)], what="the report runs")
        report.kill()
        report.communicate()
        wait_until(lambda: own_postgres.run(waits, name=name) == [(0,)], what="it has ended")
    assert "canceling statement due to user request" in (own_postgres.folder / "log").read_text()
    assert _requests(server) == 1
    assert server.stop() == 0


def test_a_second_server_on_the_store_is_refused_and_doctor_tells_who_has_it(
    spec: str, swell_up: SwellUp, tmp_path: Path
) -> None:
    server = swell_up(spec)
    found = {row["check"]: row for row in server.command("doctor", check=False)}["database"]
    assert found["verdict"] == "fine"
    assert f"at {USER}@127.0.0.1" in found["found"]
    assert "open in swell" in found["found"]
    second = swell_up(spec, ready=False)
    wait_until(lambda: "is in use by swell" in second.output, seconds=20, what="the second server is refused")
    assert PASSWORD not in second.output + second.logs() + server.logs()
    assert server.get("/readyz").status == 200
    assert server.stop() == 0


def test_doctor_says_what_is_wrong_with_a_database(postgres: PostgresServer, tmp_path: Path, free_port: int) -> None:
    def look(url: str) -> dict[str, str]:
        ended = subprocess.run(
            [sys.executable, "-m", "swell.cli.main", "doctor", "--state", str(tmp_path / "s"), "--json"],
            capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "SWELL_STORE_URL": url},
        )  # fmt: skip
        assert PASSWORD not in ended.stdout + ended.stderr
        rows: list[dict[str, str]] = json.loads(ended.stdout)
        return next(row for row in rows if row["check"] == "database")

    gone = look(f"postgresql://{USER}@127.0.0.1:{free_port}/swell")
    assert gone["verdict"] == "wrong"
    assert "does not answer" in gone["found"]
    assert gone["advice"] == "start it, or look at its log"
    wrong = look(
        f"postgresql://{USER}:{PASSWORD[:-1].replace('@', '%40').replace('/', '%2F')}@127.0.0.1:{postgres.port}/x"
    )
    assert wrong["verdict"] == "wrong"
    assert "authentication failed" in wrong["found"]
