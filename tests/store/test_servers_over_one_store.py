"""`swell up --ha`: two real servers over one Postgres, of which one leads, whatever becomes of the other."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
from swell.testing.postgres_server import PostgresServer
from swell_process import STOP_SECONDS, SwellProcess, SwellUp, wait_until

pytestmark = [pytest.mark.services, pytest.mark.process]

SPEC = """
models: [{{name: m, engine: external, endpoints: ["{upstream}"], max_tokens: {{default: 5, max: 5}}}}]
server: {{store: {{url: "{url}"}}}}
"""
TAKEN_SECONDS = 40.0  # from one server's end to the other's readiness; a takeover takes one or two


class Scene:
    """A database, an upstream, and servers that share a pepper."""

    def __init__(self, postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp, folder: Path) -> None:
        self.postgres, self.upstream, self.swell_up = postgres, upstream, swell_up
        self.database = postgres.new_database()
        self.pepper = folder / "pepper"
        self.pepper.write_bytes(secrets.token_bytes(32))
        self.pepper.chmod(0o600)

    def up(self, *, ready: bool = True, pepper: bool = True) -> SwellProcess:
        """A server of `--ha`; one that is not ready is left alone."""
        spec = SPEC.format(upstream=self.upstream.url, url=self.postgres.url(self.database))
        environment = {"SWELL_PEPPER_FILE": str(self.pepper)} if pepper else {}
        return self.swell_up(spec, "--ha", ready=ready, environment=environment)

    def waiting(self) -> SwellProcess:
        """A server that waits."""
        server = self.up(ready=False)
        wait_until(lambda: "Waiting: swell " in server.output, seconds=TAKEN_SECONDS, what="it waits")
        return server

    def leads(self, server: SwellProcess) -> None:
        """Wait until it does, and serves."""
        server.wait_ready(TAKEN_SECONDS)
        wait_until(lambda: status(server).get("workers"), seconds=TAKEN_SECONDS, what="it answers commands")


def status(server: SwellProcess) -> dict[str, Any]:
    return dict(server.command("status", check=False))


def ended(server: SwellProcess) -> int:
    assert server._process is not None
    return server._process.wait(STOP_SECONDS)


@contextmanager
def paused(server: SwellProcess) -> Iterator[None]:
    """A server whose machine stands still."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


@pytest.fixture
def scene(own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp, tmp_path: Path) -> Scene:
    return Scene(own_postgres, upstream, swell_up, tmp_path)


def test_one_leads_and_when_it_leaves_the_other_does_with_its_keys_and_ledger(scene: Scene) -> None:
    first = scene.up()
    assert first.chat().status == 200
    second = scene.waiting()
    assert f" {first.pid} (" in second.output, "who leads"
    known = status(second)
    assert known["waiting"]
    assert f" {first.pid} (" in known["leader"]
    refused = second.command("keys", "list", check=False)
    assert "leads; ask that one" in refused["error"]
    assert second.workers() == []
    assert first.stop() == 0
    assert "Leaving: running requests are finished, and replicas run on" in first.output
    assert first.workers() == []
    scene.leads(second)
    second.key = first.key
    assert second.chat().status == 200
    assert second.command("usage", "--by", "tenant", "--period", "month")["groups"][0]["requests"] >= 2
    installations = {(server.state / "installation").read_text() for server in (first, second)}
    assert len(installations) == 1
    audited = [row[0] for row in scene.postgres.run("SELECT action FROM audit ORDER BY at_unix", scene.database)]
    assert [act for act in audited if act in ("up", "leave", "down")] == ["up", "leave", "up"]
    first.start()
    wait_until(lambda: status(first).get("waiting"), seconds=TAKEN_SECONDS, what="the first one waits now")
    assert subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "down", "--state", str(second.state)],
        env=second.environment, capture_output=True, timeout=60, check=False,
    ).returncode == 0  # fmt: skip
    assert ended(second) == 0
    scene.leads(first)


def test_a_killed_leader_is_followed_and_waits_when_it_is_back(scene: Scene) -> None:
    first = scene.up()
    second = scene.waiting()
    first.kill()
    scene.leads(second)
    second.key = first.key
    assert second.chat().status == 200
    wait_until(lambda: not first.workers(), seconds=TAKEN_SECONDS, what="the workers that it left have been replaced")
    first.start()
    wait_until(lambda: status(first).get("waiting"), seconds=TAKEN_SECONDS, what="it waits")


def test_one_that_waits_is_ended_at_once_by_a_signal_or_a_command(scene: Scene) -> None:
    scene.up()
    for number in (signal.SIGTERM, signal.SIGINT):
        waiting = scene.waiting()
        os.kill(waiting.pid, number)
        assert ended(waiting) == 0
    waiting = scene.waiting()
    assert waiting.command("down") == {"stopped": "server"}
    assert ended(waiting) == 0


def test_a_leader_that_another_one_has_replaced_stops_deciding_and_waits(scene: Scene) -> None:
    first = scene.up()
    second = scene.waiting()
    with paused(first):
        scene.postgres.end_sessions(scene.database)  # as a network does that is cut
        scene.leads(second)
    wait_until(lambda: "Another server leads now" in first.output, seconds=TAKEN_SECONDS, what="it gives up")
    wait_until(lambda: status(first).get("waiting"), seconds=TAKEN_SECONDS, what="it waits")
    assert first.workers() == []
    assert "Traceback" not in first.output
    assert second.stop() == 0
    scene.leads(first)
    assert first.chat().status == 200


def test_a_leader_whose_connection_was_cut_leads_on_where_nobody_else_does(scene: Scene) -> None:
    first = scene.up()
    scene.postgres.end_sessions(scene.database)
    first.create_key("made after that")
    assert first.chat().status == 200
    assert "Another server leads" not in first.output


def test_a_database_that_is_away_is_waited_for(scene: Scene) -> None:
    first = scene.up()
    second = scene.waiting()
    scene.postgres.kill()
    wait_until(lambda: "Waiting for the store: " in second.output, seconds=TAKEN_SECONDS, what="it is told")
    assert first.chat().status == 200
    scene.postgres.start()
    led = {True: first, False: second}
    found = wait_until(
        lambda: {bool(status(server).get("waiting")) for server in (first, second)} == {True, False} and (
            led[not status(first).get("waiting")]
        ),
        seconds=TAKEN_SECONDS,
        what="one of them leads, and one waits",
    )  # fmt: skip
    found.key = first.key
    wait_until(lambda: found.chat().status == 200, seconds=TAKEN_SECONDS, what="it serves")
    assert second.output.count("Waiting for the store: ") == 1


def test_another_pepper_is_refused_while_it_waits_and_for_commands(scene: Scene) -> None:
    first = scene.up()
    second = scene.up(ready=False, pepper=False)
    assert ended(second) == 2
    assert "name it in SWELL_PEPPER_FILE" in second.output
    assert first.stop() == 0
    refused = second.command("keys", "list", check=False)
    assert "name it in SWELL_PEPPER_FILE" in refused["error"]
    second.start()
    assert ended(second) == 2, "nor where nobody leads"


def test_what_could_not_be_taken_over_is_refused(swell_up: SwellUp) -> None:
    external = 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9"]}]\n'
    on_a_file = swell_up(external, "--ha", ready=False)
    assert ended(on_a_file) == 2
    assert "server.store: is a file" in on_a_file.output
    url = "server: {store: {url: postgresql://swell@127.0.0.1:9/swell}}"
    of_this_machine = swell_up(f"models: [{{name: m, source: m.gguf}}]\n{url}", "--ha", ready=False)
    assert ended(of_this_machine) == 2
    assert "models[0].provider: is here, whose replicas are processes" in of_this_machine.output
    assert "kind container or kubernetes" in of_this_machine.output
