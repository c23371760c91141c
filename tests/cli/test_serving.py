"""One running server with one worker: what it prints, keys, usage, status, logs and metrics."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripted_upstream import UpstreamThread
from swell.observe.metrics import METRICS, family
from swell_process import SwellProcess, SwellUp

SPEC = """
models: [{{name: m, engine: external, endpoints: ["{url}"]}}]
tenants: [{{name: search, limits: {{requests_per_minute: 1000}}}}, {{name: research}}]
"""


@pytest.fixture(scope="module")
def server(shared_swell_up: SwellUp, shared_upstream: UpstreamThread) -> SwellProcess:
    return shared_swell_up(SPEC.format(url=shared_upstream.url))


def run(server: SwellProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", *arguments, "--state", str(server.state)],
        capture_output=True, text=True, timeout=30, check=False, env=server.environment,
    )  # fmt: skip


def test_it_prints_what_to_copy(server: SwellProcess, eventually) -> None:
    eventually(lambda: "Stop with Ctrl-C" in server.output)
    assert f"Base URL  http://127.0.0.1:{server.port}/v1" in server.output
    assert f"curl http://127.0.0.1:{server.port}/v1/chat/completions" in server.output
    kept = (server.state / "secrets" / "default.key").read_text()
    assert f"Key       {kept}" in server.output


def test_a_key_that_shall_be_hidden_is_not_printed(swell_up: SwellUp, upstream: UpstreamThread, eventually) -> None:
    hiding = swell_up(SPEC.format(url=upstream.url), "--hide-key")
    eventually(lambda: "Stop with Ctrl-C" in hiding.output)
    kept = (hiding.state / "secrets" / "default.key").read_text()
    assert kept.startswith("sk-swell-")
    assert kept not in hiding.output
    assert "make one with: swell keys create NAME" in hiding.output


def test_the_key_that_up_made_works_and_is_listed(server: SwellProcess) -> None:
    kept = (server.state / "secrets" / "default.key").read_text()
    reply = server.request("GET", "/v1/models", headers={"authorization": f"Bearer {kept}"})
    assert reply.status == 200
    assert [key["name"] for key in server.command("keys", "list")][:2] == ["default", "tests"]


def test_a_request_is_in_the_ledger_at_once(server: SwellProcess) -> None:
    assert server.chat().status == 200
    newest = server.command("usage", "--key", server.key_id)[0]
    assert newest["status"] == "settled"
    assert (newest["key_id"], newest["model"]) == (server.key_id, "m")
    assert newest["prompt_tokens"] > 0
    assert newest["completion_tokens"] > 0
    assert newest["request_id"]
    assert server.command("usage", "--model", "other") == []
    assert len(server.command("usage", "--limit", "1", "--since", "1h")) == 1


def test_a_new_key_serves_at_once_and_a_revoked_one_is_refused_within_a_second(server: SwellProcess) -> None:
    made = server.command("keys", "create", "short", "--tenant", "search", "--rpm", "100")
    headers = {"authorization": f"Bearer {made['key']}"}
    assert list(made)[:2] == ["id", "key"]
    assert server.request("GET", "/v1/models", headers=headers).status == 200
    revoked = server.command("keys", "revoke", made["id"])
    answered = time.monotonic()
    while server.request("GET", "/v1/models", headers=headers).status == 200:
        assert time.monotonic() - answered < 1.0
    assert revoked["state"] == "revoked"
    assert server.request("GET", "/v1/models", headers=headers).status == 401


def test_rotation_has_two_live_secrets_and_then_one(server: SwellProcess) -> None:
    made = server.command("keys", "create", "turning")
    for grace, old_status in (("1h", 200), ("0s", 401)):
        rotated = server.command("keys", "rotate", made["id"], "--grace", grace)
        for key, status in ((made["key"], old_status), (rotated["key"], 200)):
            headers = {"authorization": f"Bearer {key}"}
            assert server.request("GET", "/v1/models", headers=headers).status == status
        made = rotated


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("keys", "create", "x", "--tenant", "serch"), "did you mean search or research?"),
        (("keys", "create", "x", "--priority", "batches"), "did you mean batch?"),
        (("keys", "create", "x", "--expires", "soon"), "'soon' is no length of time"),
        (("keys", "create", "x", "--expires", "99999999d"), "longer than 100 years"),
        (("keys", "create", "x", "--rpm", "9" * 20), "requests_per_minute must lie between 0"),
        (("keys", "revoke", "nokeynokey12"), "no key has the id 'nokeynokey12'"),
        (("keys", "rotate", "../status"), "is no key id"),
        (("usage", "--status", "done"), "valid are: reserved, settled, estimated, void"),
        (("logs", "sever"), "there are: server"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(
    server: SwellProcess, arguments: tuple[str, ...], sentence: str
) -> None:
    plain, as_json = run(server, *arguments), run(server, *arguments, "--json")
    assert (plain.returncode, as_json.returncode) == (2, 2)
    assert (plain.stdout, as_json.stdout) == ("", "")
    assert sentence in plain.stderr
    assert sentence in json.loads(as_json.stderr)["error"]


def test_status_tells_what_runs(server: SwellProcess) -> None:
    seen = server.command("status")
    assert (seen["pid"], seen["url"]) == (server.pid, f"http://127.0.0.1:{server.port}")
    assert [(r["model"], r["phase"]) for r in seen["replicas"]] == [("m", "ready")]
    assert [(w["worker_id"], w["state"]) for w in seen["workers"]] == [(0, "serving")]
    assert [w["pid"] for w in seen["workers"]] == [process.pid for process in server.workers()]
    table = run(server, "status").stdout
    assert "gateway-0" in table
    assert "ready" in table


def test_tables_do_not_fold_long_values_in_a_pipe(server: SwellProcess) -> None:
    listed = run(server, "keys", "list")
    assert server.key_id in listed.stdout
    assert server.key not in listed.stdout


def test_logs_are_listed_and_shown(server: SwellProcess) -> None:
    assert {log["name"] for log in server.command("logs")} == {"server", "gateway-0"}
    shown = server.command("logs", "server", "-n", "1")
    assert json.loads(shown["lines"][0])["level"]
    assert run(server, "logs", "server").stdout.startswith("{")


def test_metrics_over_workers_and_server(server: SwellProcess) -> None:
    assert server.chat().status == 200
    text = server.get("/metrics").body.decode()
    assert 'swell_server_replicas{model="m",phase="ready"} 1' in text
    assert "swell_server_workers 1" in text
    assert "gen_ai_server_request_duration_seconds_count" in text
    assert 'swell_in_flight{model="m"} 0' in text


def test_every_metric_that_is_declared_is_told_with_its_labels_and_no_other(server: SwellProcess) -> None:
    assert server.chat().status == 200
    rows = [row for row in server.get("/metrics").body.decode().splitlines() if not row.startswith("#")]
    names = [(family(row.partition("{")[0].partition(" ")[0]), re.findall(r'(\w+)="', row)) for row in rows]
    told = {(name, frozenset(labels) - {"le"}) for name, labels in names}
    assert told == {(metric.name, frozenset(metric.labels)) for metric in METRICS}


def test_a_second_server_is_refused_with_the_pid_of_the_first(server: SwellProcess) -> None:
    refused = run(server, "up", *server.arguments)
    assert refused.returncode == 2
    assert f"in use by process {server.pid};" in refused.stderr


def test_no_secret_is_in_any_log(server: SwellProcess) -> None:
    kept = (server.state / "secrets" / "default.key").read_text()
    for path in [*(server.state / "logs").iterdir(), *(server.state / "workers").iterdir()]:
        assert server.key not in path.read_text()
        assert kept not in path.read_text()


def test_everything_in_the_state_directory_is_private(server: SwellProcess) -> None:
    for path in [server.state, *server.state.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_administrative_acts_are_audited(shared_swell_up: SwellUp, server: SwellProcess) -> None:
    made = server.command("keys", "create", "audited")
    server.command("keys", "revoke", made["id"])
    assert server.stop() == 0
    acts = audit(server.state)
    assert [(entry.action, entry.subject) for entry in acts[:3]] == [
        ("down", str(server.state)),
        ("key.revoke", made["id"]),
        ("key.create", made["id"]),
    ]
    assert acts[-1].action == "up"
    assert all(entry.principal.endswith(")") for entry in acts)
    assert made["key"] not in repr(acts)


def audit(state: Path):
    from swell.server.assembly import open_store
    from swell.server.state_directory import StateDirectory

    store = open_store(StateDirectory(state))
    try:
        return store.list_audit(1000)
    finally:
        store.close()
