"""What a Pod does before its engine is asked to end, run as a kubelet runs it: against an engine that is busy first."""

import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

import pytest
from kube_children import METRICS

from swell.adapters.providers.kubernetes import idle
from swell.ports.engine import EngineMetrics
from swell.ports.provider import Lifecycle

BUSY = '# HELP engine:running requests\nengine:running{model="m"} 1.0\nengine:waiting 0\n'
IDLE = BUSY.replace("1.0", "0.0")


class _Engine(ThreadingHTTPServer):
    """Answers what it was told to, one after the other; the last one again and again."""

    def __init__(self, *answers: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers)
        self.keys: list[str | None] = []
        self.held = Lock()  # while somebody has it, nobody is answered


class _Handler(BaseHTTPRequestHandler):
    server: _Engine

    def do_GET(self) -> None:
        self.server.held.acquire()
        self.server.held.release()
        self.server.keys.append(self.headers["authorization"])
        text = self.server.answers.pop(0) if len(self.server.answers) > 1 else self.server.answers[0]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def engine() -> Iterator[_Engine]:
    with _Engine(BUSY, BUSY, IDLE) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def _run(command: list[str], **env: str) -> int:
    """With no wait for gateways to hear of it, and this interpreter for the image's."""
    return subprocess.run([sys.executable, *command[1:-1], "0"], env=env, check=False, timeout=30).returncode


def test_the_end_waits_until_nothing_runs(engine: _Engine) -> None:
    command = idle.wait_until_idle(engine.server_address[1], METRICS, {"ENGINE_KEY": "secret", "OTHER": "1"})
    assert "secret" not in " ".join(command)
    assert _run(command, ENGINE_KEY="secret") == 0
    assert engine.keys == ["Bearer secret"] * 3


def test_an_engine_that_is_gone_or_tells_nothing_is_not_waited_for(engine: _Engine) -> None:
    port = engine.server_address[1]
    engine.answers = ["nothing that anybody knows"]
    assert _run(idle.wait_until_idle(port, METRICS, {})) == 0
    engine.shutdown()
    engine.server_close()
    assert _run(idle.wait_until_idle(port, METRICS, {})) == 0
    assert engine.keys == [None]


def test_an_engine_that_is_too_busy_to_answer_is_waited_for(engine: _Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = idle.SCRIPT.replace(f"timeout={idle.ASK_SECONDS:g}", "timeout=0.1")
    assert hasty != idle.SCRIPT
    monkeypatch.setattr(idle, "SCRIPT", hasty)
    command = idle.wait_until_idle(engine.server_address[1], METRICS, {})
    with engine.held, subprocess.Popen([sys.executable, *command[1:-1], "0"]) as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(2.0)
        engine.answers = [IDLE]
        engine.held.release()
        assert waiting.wait(30) == 0
        engine.held.acquire()


def test_an_engine_without_metrics_gets_the_time_in_which_gateways_hear_of_it() -> None:
    assert idle.wait_until_idle(8000, EngineMetrics(), {})[2] == "import time; time.sleep(2)"


def test_the_grace_of_a_pod_holds_all_that_comes_before_its_end() -> None:
    assert idle.termination_seconds(Lifecycle(drain_seconds=30.0, stop_grace_seconds=15.5)) == 48


def test_a_worker_waits_for_its_leader(engine: _Engine) -> None:
    command = idle.wait_until_idle(engine.server_address[1], METRICS, {}, "${LEADER}")
    assert _run(command, LEADER="127.0.0.1") == 0
    assert len(engine.keys) == 3
    assert _run(command, LEADER="127.0.0.2") == 0, "one that is gone is not waited for"
    assert len(engine.keys) == 3
