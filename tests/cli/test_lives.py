"""Ends and beginnings with real processes: drain, down, kills, adoption, changed settings."""

import json
import os
import signal
import subprocess
import sys
import threading

from scripted_upstream import UpstreamThread
from swell.testing.upstream_script import Script
from swell_process import Reply, SwellProcess, SwellUp, choose_free_port

WARM_START_SECONDS = 5.0  # 2 is the aim; test machines are busy
SPEC = 'models: [{{name: m, engine: external, endpoints: ["{url}"]}}]'


def down(server: SwellProcess) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "down", "--state", str(server.state), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def worker_pids(server: SwellProcess) -> set[int]:
    return {process.pid for process in server.workers()}


class Held:
    """A request whose answer stands still (`hang_after`) while something happens around it."""

    def __init__(self, server: SwellProcess, upstream: UpstreamThread, eventually) -> None:
        self._replies: list[Reply | Exception] = []
        before = (
            upstream.held
        )  # not what is in flight: a health check may be, and `release` passes by whoever is not held
        self._thread = threading.Thread(target=self._ask, args=(server,))
        self._thread.start()
        eventually(lambda: upstream.held > before)

    def _ask(self, server: SwellProcess) -> None:
        try:
            self._replies.append(server.chat(stream=True))
        except Exception as error:
            self._replies.append(error)

    def reply(self) -> Reply:
        self._thread.join(20)
        [reply] = self._replies
        assert isinstance(reply, Reply), reply
        return reply


def test_it_is_ready_without_any_replica(swell_up: SwellUp) -> None:
    server = swell_up(SPEC.format(url=f"http://127.0.0.1:{choose_free_port()}"))
    assert server.get("/readyz").status == 200
    assert [replica["phase"] for replica in server.command("status")["replicas"]] != ["ready"]
    assert server.stop() == 0


def test_sigterm_finishes_what_runs_and_leaves_nothing(swell_up: SwellUp, upstream: UpstreamThread, eventually) -> None:
    upstream.set_script(Script(hang_after=1))
    server = swell_up(SPEC.format(url=upstream.url))
    held = Held(server, upstream, eventually)
    os.kill(server.pid, signal.SIGTERM)
    eventually(lambda: not _accepts(server), seconds=10)
    upstream.release()
    reply = held.reply()
    assert reply.status == 200
    assert reply.body.rstrip().endswith(b"data: [DONE]")
    assert server.stop() == 0
    assert server.children() == []
    assert [record["status"] for record in server.command("usage")] == ["settled"]
    left = {path.name for path in server.state.iterdir()}
    assert left & {"admin.sock", "control.sock"} == set()


def test_a_second_signal_ends_at_once(swell_up: SwellUp, upstream: UpstreamThread, eventually) -> None:
    upstream.set_script(Script(hang_after=1))
    server = swell_up(SPEC.format(url=upstream.url), "--json")
    eventually(lambda: "base_url" in server.output)
    assert json.loads(server.output.splitlines()[0])["base_url"] == server.base_url
    held = Held(server, upstream, eventually)
    os.kill(server.pid, signal.SIGINT)
    eventually(lambda: "Draining" in server.output)
    os.kill(server.pid, signal.SIGINT)
    assert server.stop() == 0
    upstream.release()
    held._thread.join(20)
    assert server.children() == []
    assert [record["status"] for record in server.command("usage")] in (["estimated"], ["reserved"])


def test_down_stops_it_and_is_no_error_where_nothing_runs(swell_up: SwellUp, upstream: UpstreamThread) -> None:
    server = swell_up(SPEC.format(url=upstream.url), workers=2)
    assert len(worker_pids(server)) == 2
    assert json.loads(down(server).stdout) == {"stopped": "server"}
    assert server.stop() == 0
    assert server.children() == []
    again = down(server)
    assert (again.returncode, json.loads(again.stdout)) == (0, {"stopped": ""})


def test_a_killed_server_is_not_missed_and_its_successor_adopts(
    swell_up: SwellUp, upstream: UpstreamThread, eventually
) -> None:
    server = swell_up(SPEC.format(url=upstream.url), workers=2)
    before = worker_pids(server)
    server.kill()
    assert server.chat().status == 200
    server.start()
    eventually(lambda: _serving(server) == 2, seconds=20)
    assert worker_pids(server) == before
    assert server.chat().status == 200
    assert [record["status"] for record in server.command("usage")] == ["settled", "settled"]
    kept = (server.state / "secrets" / "default.key").read_text()
    eventually(lambda: server.output.count(kept) >= 2)
    assert server.stop() == 0
    assert server.children() == []


def test_down_ends_what_a_killed_server_left(swell_up: SwellUp, upstream: UpstreamThread) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    assert server.chat().status == 200
    server.kill()
    stopped = down(server)
    assert (stopped.returncode, json.loads(stopped.stdout)) == (0, {"stopped": "leftovers"})
    assert server.children() == []
    assert [record["status"] for record in server.command("usage")] == ["settled"]


def test_keys_and_usage_work_without_a_server_and_the_next_one_starts_quickly(
    swell_up: SwellUp, upstream: UpstreamThread
) -> None:
    server = swell_up(SPEC.format(url=upstream.url) + "\ntenants: [{name: search}]")
    assert server.stop() == 0
    made = server.command("keys", "create", "offline", "--tenant", "search")
    assert "did you mean search" in server.command("keys", "create", "x", "--tenant", "serch", check=False)["error"]
    assert made["id"] in [key["id"] for key in server.command("keys", "list")]
    assert server.command("usage") == []
    server.start()
    server.wait_ready(seconds=WARM_START_SECONDS)
    reply = server.request("GET", "/v1/models", headers={"authorization": f"Bearer {made['key']}"})
    assert reply.status == 200


def test_a_tenant_that_left_the_spec_takes_its_keys_with_it(swell_up: SwellUp, upstream: UpstreamThread) -> None:
    spec = SPEC.format(url=upstream.url)
    server = swell_up(spec + "\ntenants: [{name: search, limits: {requests_per_minute: 1}}]")
    made = server.command("keys", "create", "theirs", "--tenant", "search")
    assert server.stop() == 0
    (server.state.parent / "swell.yaml").write_text(spec)
    server.start()
    server.wait_ready()
    assert server.request("GET", "/v1/models", headers={"authorization": f"Bearer {made['key']}"}).status == 401
    assert server.chat().status == 200
    assert f"clients with the key {made['id']} are refused: the spec has no tenant 'search'" in server.output
    assert list(server.command("status")["refused_keys"]) == [made["id"]]


def test_a_revoked_default_key_is_not_shown_again(swell_up: SwellUp, upstream: UpstreamThread, eventually) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    kept = server.state / "secrets" / "default.key"
    eventually(lambda: f"Key       {kept.read_text()}" in server.output)
    [default] = [key for key in server.command("keys", "list") if key["name"] == "default"]
    server.command("keys", "revoke", default["id"])
    assert not kept.exists()
    assert server.stop() == 0
    server.start()
    eventually(lambda: "Key       make one with: swell keys create NAME" in server.output, seconds=WARM_START_SECONDS)


def test_a_killed_worker_is_replaced_and_its_usage_kept(
    swell_up: SwellUp, upstream: UpstreamThread, eventually
) -> None:
    upstream.set_script(Script(hang_after=1))
    server = swell_up(SPEC.format(url=upstream.url))
    [before] = worker_pids(server)
    held = Held(server, upstream, eventually)
    os.kill(before, signal.SIGKILL)
    held._thread.join(20)
    upstream.set_script(Script())
    eventually(lambda: _serving(server) == 1 and worker_pids(server) != {before}, seconds=20)
    server.wait_ready()
    assert server.chat().status == 200
    eventually(lambda: len(server.command("usage")) == 2)
    assert sorted(record["status"] for record in server.command("usage")) == ["reserved", "settled"]
    assert [log["name"] for log in server.command("logs")] == ["gateway-0", "server"]


def test_workers_whose_settings_changed_are_replaced(
    swell_up: SwellUp, upstream: UpstreamThread, free_port: int, eventually
) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    before = worker_pids(server)
    server.kill()
    server.arguments[server.arguments.index("--port") + 1] = str(free_port)
    server.port = free_port
    server.start()
    server.wait_ready()
    assert server.chat().status == 200
    eventually(lambda: len(worker_pids(server)) == 1 and worker_pids(server) != before, seconds=20)


def _accepts(server: SwellProcess) -> bool:
    try:
        server.get("/healthz")
    except OSError:
        return False
    return True


def _serving(server: SwellProcess) -> int:
    seen = server.command("status", check=False)
    return sum(worker["state"] == "serving" for worker in seen.get("workers", []))
