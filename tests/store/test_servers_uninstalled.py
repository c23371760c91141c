"""Before Helm takes several servers away: all leave, and then one ends what they have run, by the chart's program."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
import trustme
from test_servers_over_one_store import TAKEN_SECONDS, Scene, ended, paused, scene, status

from swell_process import SwellProcess, wait_until

pytestmark = [pytest.mark.services, pytest.mark.process]

FILES = Path(__file__).resolve().parents[2] / "deploy" / "helm" / "swell" / "files"
PROGRAM = FILES / "end_servers.py"
__all__ = ["scene"]  # a fixture


@contextmanager
def api_server(account: Path, answer: int = 200) -> Iterator[tuple[dict[str, str], "Queue[tuple[str, str, bytes]]"]]:
    """What a Pod knows of its cluster's API, and what is asked there."""
    asked: Queue[tuple[str, str, bytes]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_PATCH(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.put((self.path, self.headers["authorization"], body))
            self.send_response(answer)
            self.end_headers()

    authority = trustme.CA()
    account.mkdir()
    authority.cert_pem.write_to_path(account / "ca.crt")
    (account / "token").write_text("the-token")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    port = str(server.server_address[1])
    try:
        yield (
            {
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": port,
                "SERVICE_ACCOUNT_FOLDER": str(account),
            },
            asked,
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_one_that_leads_and_one_that_waits_are_ready_and_one_that_stands_still_is_not(scene: Scene) -> None:
    first, second = scene.up(), scene.waiting()
    wait_until(lambda: status(second).get("waiting"), seconds=TAKEN_SECONDS, what="it answers commands")

    def asked(server: SwellProcess) -> int:
        words = [sys.executable, "-SI", str(FILES / "answers.py"), str(server.state / "admin.sock"), "1"]
        return subprocess.run(words, check=False, timeout=60).returncode

    assert (asked(first), asked(second)) == (0, 0)
    with paused(second):
        assert (asked(first), asked(second)) == (0, 1)
    assert (asked(first), asked(second)) == (0, 0)


def test_all_leave_and_the_last_one_ends_everything(scene: Scene, tmp_path: Path) -> None:
    first, second, last = scene.up(), scene.waiting(), scene.waiting()
    assert last.stop() == 0
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with api_server(tmp_path / "account") as (environment, asked):
        last.environment |= {**environment, "PATH": path, "SWELL_STATE": str(last.state)}
        last.program = (str(PROGRAM), "serving", "swell", str(TAKEN_SECONDS))
        last.start()
        assert asked.get(timeout=TAKEN_SECONDS) == (
            "/apis/apps/v1/namespaces/serving/deployments/swell/scale",
            "Bearer the-token",
            b'{"spec": {"replicas": 0}}',
        )
        wait_until(lambda: status(last).get("waiting"), seconds=TAKEN_SECONDS, what="the last one waits for its turn")
        for server in (second, first):  # as kubelets do now
            assert server.stop() == 0
        assert ended(last) == 0, last.output
    assert last.output.splitlines()[-1] == "The servers are gone, and their replicas with them"
    audited = [row[0] for row in scene.postgres.run("SELECT action FROM audit ORDER BY at_unix", scene.database)]
    assert [act for act in audited if act in ("up", "leave", "down")] == ["up", "leave", "up", "down"]


def test_what_it_may_not_do_is_said_and_nothing_was_started(scene: Scene, tmp_path: Path) -> None:
    last = scene.up()
    assert last.stop() == 0
    with api_server(tmp_path / "account", answer=403) as (environment, _):
        last.environment |= environment
        last.program = (str(PROGRAM), "serving", "swell", "5")
        last.start()
        assert ended(last) == 1
    assert "swell: 403" in last.output
