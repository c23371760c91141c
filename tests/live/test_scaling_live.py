"""A real server scales real processes of a fake engine: from zero, up, down with streams running, and back to zero."""

import subprocess
import sys
from pathlib import Path

import live_load
import pytest
from fake_engine import make_engine, make_model, spec_of
from live_load import Clients, check_stream, check_trail, replicas_of, status_of, trail_of, until_none, until_ready

from swell_process import SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

REACTIVE = (str(Path(live_load.__file__).with_name("reactive_swell.py")),)
ATTEMPTS = 6
LONG = '{"chunks": 40, "delay_ms": 50}'  # 2 seconds: what runs while its replica is let go


def scaled(swell_up: SwellUp, folder: Path, script: str | None = None, workers: int = 1) -> SwellProcess:
    environment = make_engine(folder, script) if script else make_engine(folder)
    return swell_up(spec_of(make_model(folder)), workers=workers, environment=environment, program=REACTIVE)


def test_from_zero_through_a_burst_and_back_to_zero(swell_up: SwellUp, tmp_path: Path) -> None:
    server = scaled(swell_up, tmp_path, workers=2)
    assert replicas_of(server) == []
    check_stream(server.chat(stream=True))
    burst = Clients(server, count=8, asks=3)
    burst.start()
    assert len(until_ready(server, 3)) == 3
    burst.join()
    burst.check_whole()
    until_none(server)
    assert server.chat().status == 200, "the last request finds nobody, waits, and is answered"
    numbers = check_trail(trail_of(server))
    assert numbers[0] == 0
    assert max(numbers) == 3
    assert 0 in numbers[1:]
    rows = server.command("usage")
    assert [row["status"] for row in rows] == ["settled"] * 26
    assert {row["completion_tokens"] for row in rows} == {20}
    assert server.stop() == 0
    assert server.children() == []


def test_streams_end_whole_on_replicas_that_are_let_go(swell_up: SwellUp, tmp_path: Path) -> None:
    """Two long streams begin on replicas of their own while a burst ends: one of the two replicas is let go.

    On a slow machine the burst may be over, and its replicas gone, before they begin: then it is tried again.
    """
    server = scaled(swell_up, tmp_path, LONG)
    for _ in range(ATTEMPTS):
        burst = Clients(server, count=6, asks=1)
        burst.start()
        until_ready(server, 3)
        long_ones = Clients(server, count=2, asks=2)
        wait_until(lambda: len(burst.replies) >= 4, seconds=20, what="most of the burst is over")  # noqa: B023
        long_ones.start()
        was_seen = _sees_a_stream_on_a_replica_that_is_let_go(server, long_ones)
        for clients in (burst, long_ones):
            clients.join()
            clients.check_whole()
        if was_seen:
            break
    assert was_seen
    until_none(server)
    check_trail(trail_of(server))


def _sees_a_stream_on_a_replica_that_is_let_go(server: SwellProcess, clients: Clients) -> bool:
    while len(clients.replies) < clients.count * clients.asks:
        if any(replica["phase"] == "draining" and replica["in_flight"] for replica in replicas_of(server)):
            return True
    return False


def test_a_slow_start_is_told_to_the_client_that_waits(swell_up: SwellUp, tmp_path: Path) -> None:
    environment = make_engine(tmp_path, start_seconds=2)
    server = swell_up(spec_of(make_model(tmp_path)), environment=environment, program=REACTIVE)
    reply = server.chat(stream=True)
    check_stream(reply)
    assert reply.body.startswith(b": warming up\n\n")
    assert [row["status"] for row in server.command("usage")] == ["settled"]


@pytest.mark.kill
def test_a_server_killed_while_it_scales_leaves_no_orphan_and_starts_nothing_twice(
    swell_up: SwellUp, tmp_path: Path
) -> None:
    server = scaled(swell_up, tmp_path, '{"chunks": 30, "delay_ms": 50}')
    answers = 0
    for moment in ("starting", "ready", "draining"):
        burst = Clients(server, count=6, asks=1)
        burst.start()
        wait_until(lambda: _any_is(server, moment), seconds=20, what=moment)  # noqa: B023 - asked before it changes
        server.kill()
        left = {process.pid for process in server.replicas()}
        assert len(left) <= 3
        server.start()
        burst.join()
        burst.check_whole()
        wait_until(lambda: _is_accounted_for(server), seconds=20, what="what runs is what the server knows")
        answers += len(burst.replies)
    until_none(server)
    check_stream(server.chat(stream=True))
    rows = server.command("usage")
    assert [row["status"] for row in rows] == ["settled"] * (answers + 1)
    assert server.stop() == 0
    assert server.children() == []


def _any_is(server: SwellProcess, phase: str) -> bool:
    return any(replica["phase"] == phase for replica in replicas_of(server))


def _is_accounted_for(server: SwellProcess) -> bool:
    status = status_of(server)
    if status is None:
        return False
    known = {replica["pid"] for replica in status["replicas"]} - {None}
    return len(known) <= 3 and {process.pid for process in server.replicas()} == known


def test_swells_own_policy_serves_a_burst_from_zero(swell_up: SwellUp, tmp_path: Path) -> None:
    server = swell_up(spec_of(make_model(tmp_path)), environment=make_engine(tmp_path))
    burst = Clients(server, count=8, asks=2)
    burst.start()
    burst.join()
    burst.check_whole()
    numbers = check_trail(trail_of(server))
    assert numbers[0] == 0
    assert 1 <= max(numbers) <= 3
    assert [row["status"] for row in server.command("usage")] == ["settled"] * 16


def test_what_is_shown_to_people(swell_up: SwellUp, tmp_path: Path) -> None:
    server = scaled(swell_up, tmp_path)
    assert server.chat().status == 200
    shown = _run(server, "status", "--why")
    assert "m has 1 of 0 to 3 replicas." in shown
    assert "0 -> 1  [load] 1 requests are open" in shown
    assert "    not 0: what there is" in shown
    assert "stays at 0" in shown
    assert "Decisions" not in _run(server, "status")
    assert "There are no decisions yet." in _run(server, "status", "--why", "--model", "nobody")


def _run(server: SwellProcess, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", *arguments, "--state", str(server.state)],
        capture_output=True, text=True, timeout=30, check=True, env=server.environment,
    )  # fmt: skip
    return ended.stdout
