"""The fleet over real processes: kept, restarted, adopted after the supervising process was killed, ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import supervising
from supervising import Supervisor, little_servers

from swell.adapters.providers import proc
from swell.state.replica import Phase


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    running = Supervisor(tmp_path, little_servers(tmp_path, 2))
    running.fleet.want([running.workload])
    yield running
    known = {replica.child_id for replica in running.fleet.replicas} | _stored(tmp_path)
    for child_id in known:
        proc.kill_marked(child_id)
    await running.close()


def _stored(folder: Path) -> set[str]:
    path = folder / "intents.json"
    return set(json.loads(path.read_text())) if path.exists() else set()


def _supervise_and_be_killed(folder: Path, count: int) -> set[str]:
    """Run a supervising process until its children are ready, and kill it; their ids."""
    argv = [sys.executable, supervising.__file__, str(folder), str(count)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        child_ids = server.stdout.readline().split()
        server.kill()
    return set(child_ids)


async def test_a_killed_replica_is_replaced(supervisor: Supervisor, tmp_path: Path) -> None:
    before = await supervisor.ready(2)
    victim = supervisor.fleet.replicas[0]
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    await supervisor.fleet.run(lambda: victim.child_id not in supervisor.routable())
    after = await supervisor.ready(2)
    assert len(after & before) == 1
    replaced = supervisor.fleet.replicas[0]
    assert (replaced.restarts, replaced.phase) == (1, Phase.READY)
    assert "killed by signal 9" in replaced.last_error
    await supervisor.end()
    assert _stored(tmp_path) == set()
    assert not any(list(proc.find_marked(child_id)) for child_id in before | after)


async def test_children_of_a_killed_server_are_adopted_and_none_is_started_twice(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    started = _supervise_and_be_killed(tmp_path, 2)
    assert len(started) == 2
    await supervisor.fleet.adopt()
    assert supervisor.routable() == started
    await supervisor.fleet.run(lambda: True)
    assert await supervisor.ready(2) == started
    await supervisor.end()
    assert not any(list(proc.find_marked(child_id)) for child_id in started)


async def test_what_a_killed_server_left_and_nobody_wants_is_ended(supervisor: Supervisor, tmp_path: Path) -> None:
    started = _supervise_and_be_killed(tmp_path, 3)
    await supervisor.fleet.adopt()
    await supervisor.fleet.run(lambda: len(supervisor.fleet.replicas) == 2)
    living = {child_id for child_id in started if any(list(proc.find_marked(child_id)))}
    assert living == supervisor.routable() == _stored(tmp_path)
    assert len(living) == 2


async def test_a_child_that_cannot_run_says_so_from_its_log(tmp_path: Path) -> None:
    workload = little_servers(tmp_path, 1, code="raise SystemExit('no such model; name another')")
    supervisor = Supervisor(tmp_path, workload)
    supervisor.fleet.want([workload])
    await supervisor.fleet.run(lambda: any(replica.last_error for replica in supervisor.fleet.replicas))
    (replica,) = supervisor.fleet.replicas
    assert replica.phase is Phase.FAILED
    assert replica.last_error == "ended before it was ready (exit code 1)\nno such model; name another"
    await supervisor.end()
