"""A real engine as a child: it outlives its server, and is started again where it is killed itself."""

import os
import signal
from pathlib import Path

import pytest
from kill_world import StartSwell, ask_server, status_of

from swell_process import SwellProcess, wait_until

pytestmark = [pytest.mark.kill, pytest.mark.process, pytest.mark.model]

MODEL = "smollm2"
START_SECONDS = 60.0
TOKENS = 150  # a good part of a second of decoding, so that the stream is not over before its server is dead


def replica_pids(server: SwellProcess) -> list[int]:
    """Of the replicas that are ready, as the server knows them."""
    status = status_of(server) or {"replicas": []}
    return [replica["pid"] for replica in status["replicas"] if replica["phase"] == "ready"]


def until_replica(server: SwellProcess) -> int:
    [pid] = wait_until(lambda: replica_pids(server), seconds=START_SECONDS, what="the replica is ready")
    return int(pid)


def test_a_real_replica_through_both_kills(swell_up: StartSwell, model_file: Path) -> None:
    assert model_file.exists()
    server = swell_up(None)
    server.wait_model(MODEL)
    first = until_replica(server)

    words = {"max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    stream = server.open_chat(MODEL, **words)
    assert stream.readline().startswith(b"data: ")
    server.kill()
    assert server.chat(MODEL, max_tokens=2).status == 200
    server.start()
    assert until_replica(server) == first
    assert stream.read().rstrip().endswith(b"data: [DONE]")
    assert len(server.replicas()) == 1

    os.kill(first, signal.SIGKILL)
    second = wait_until(lambda: [pid for pid in replica_pids(server) if pid != first], seconds=START_SECONDS)
    assert second
    server.wait_model(MODEL)
    assert ask_server(server, "GET", "/api/status")["replicas"][0]["restarts"] == 1
    rows = server.command("usage")
    assert len({row["request_id"] for row in rows}) == len(rows)
    assert sorted(row["completion_tokens"] for row in rows if row["status"] == "settled")[-2:] == [2, TOKENS]
    assert server.stop() == 0
    assert server.children() == []
