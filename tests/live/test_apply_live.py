"""`swell apply` on a real server: another spec is served, and no request notices."""

import http.client
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scripted_upstream import UpstreamThread
from swell.server.gateway_credentials import make_server_credentials
from swell.server.state_directory import StateDirectory
from swell_process import SwellProcess, SwellUp, choose_free_port, wait_until

SPEC = """
models: [{{name: m, engine: external, endpoints: ["{url}"]}}]
tenants: [{{name: search}}]
"""
CHANGED = """
models:
  - {{name: m, engine: external, endpoints: ["{url}"]}}
  - {{name: second, engine: external, endpoints: ["{url}"]}}
tenants: [{{name: search, limits: {{requests_per_minute: 5}}}}, {{name: research}}]
server: {{workers: 2}}
"""


OTHER_STORE = """
models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9"]}]
server: {store: {url: "postgresql://somebody@127.0.0.1/d"}}
"""


@pytest.fixture
def changed(tmp_path: Path, upstream: UpstreamThread) -> Path:
    path = tmp_path / "changed.yaml"
    path.write_text(CHANGED.format(url=upstream.url))
    return path


class Load:
    """Requests one after another in a thread, each on a connection of its own; how each ended."""

    def __init__(self, server: SwellProcess) -> None:
        self.server, self.statuses = server, list[object]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.statuses.append(self.server.chat().status)
            except (OSError, http.client.HTTPException) as error:
                self.statuses.append(error)


def test_another_spec_is_served_and_no_request_fails(
    swell_up: SwellUp, upstream: UpstreamThread, changed: Path
) -> None:
    server = swell_up(SPEC.format(url=upstream.url), "--workers", "1")
    workers = {process.pid for process in server.workers()}
    with Load(server) as load:
        wait_until(lambda: len(load.statuses) > 20)
        found = server.command("apply", "-f", str(changed))
        wait_until(lambda: server.chat("second").status == 200)
        seen = len(load.statuses)
        wait_until(lambda: len(load.statuses) > seen + 20)
    assert set(load.statuses) == {200}
    assert found["applied"]
    assert {each["path"] for each in found["differences"]} >= {"models[second]", "tenants[research]"}
    assert {process.pid for process in server.workers()} >= workers  # the worker that there was serves on
    assert server.command("apply", "-f", str(changed)) == {"differences": [], "applied": False}
    booked = server.command("usage", "--limit", "1000")
    assert len([each for each in booked if each["status"] == "settled"]) >= min(1000, len(load.statuses))
    assert server.command("status")["spec"]["file"] == str(changed)
    assert server.stop() == 0
    assert server.children() == []


def test_a_limit_that_is_applied_holds_and_a_stream_goes_on(
    swell_up: SwellUp, upstream: UpstreamThread, changed: Path
) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    server.create_key("searching", "--tenant", "search")
    assert [server.chat().status for _ in range(8)] == [200] * 8
    server.command("apply", "-f", str(changed))
    wait_until(lambda: server.chat().status == 429, what="the new limit holds")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("models: []", "name at least one"),
        (OTHER_STORE, "swell down"),
        ("models: [{name: m, source: /no/such/file.gguf}]", "file"),
    ],
)  # fmt: skip
def test_a_spec_that_cannot_be_served_changes_nothing(
    swell_up: SwellUp, upstream: UpstreamThread, tmp_path: Path, text: str, problem: str
) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    answer = server.command("apply", "-f", str(path), check=False)
    assert problem in answer["error"]
    assert server.chat().status == 200
    assert server.command("status")["spec"]["changing"] is False


def test_a_certificate_that_is_half_renewed_refuses_a_change_and_ends_no_server(
    swell_up: SwellUp, upstream: UpstreamThread, tmp_path: Path
) -> None:
    make_server_credentials(StateDirectory(tmp_path / "authority"), tmp_path / "server", time.time())
    given = "ca: server/ca.crt, certificate: server/tls.crt, private_key: server/tls.key"
    spec = SPEC.format(url=upstream.url) + f"server: {{gateways: {{port: {choose_free_port()}, {given}}}}}\n"
    path = tmp_path / "changed.yaml"
    path.write_text(spec.replace("{name: search}", "{name: research}"))
    server = swell_up(spec.replace("server/", f"{tmp_path}/server/"))
    certificate = tmp_path / "server" / "tls.crt"
    before = certificate.read_bytes()
    certificate.write_text("half")
    answer = server.command("apply", "-f", str(path), check=False)
    assert "cannot be used between server and gateways" in answer["error"]
    assert server.chat().status == 200
    certificate.write_bytes(before)
    assert server.command("apply", "-f", str(path))["applied"] is True


def test_a_signal_that_comes_with_a_change_stops_the_successor(
    swell_up: SwellUp, upstream: UpstreamThread, changed: Path
) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    applying = subprocess.Popen(
        [sys.executable, "-m", "swell.cli.main", "apply", "-f", str(changed), "--state", str(server.state)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=server.environment,
    )  # fmt: skip
    try:
        log = server.state / "logs" / "server.log"
        wait_until(lambda: "changes its spec" in log.read_text())
        assert server._process is not None
        server._process.send_signal(signal.SIGTERM)
        assert server._process.wait(30.0) == 0
    finally:
        applying.kill()
        applying.wait()
    assert server.children() == []


def test_what_was_shown_before_is_what_diff_shows(swell_up: SwellUp, upstream: UpstreamThread, changed: Path) -> None:
    server = swell_up(SPEC.format(url=upstream.url))
    words = ["diff", "-f", str(changed), "--exit-code", "--state", str(server.state)]
    ended = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", *words],
        capture_output=True, text=True, timeout=60, check=False, env=server.environment,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "tenants[search].limits" in ended.stdout
    assert "models[second]" in ended.stdout
    assert server.command("diff", "-f", str(changed))["differences"]
