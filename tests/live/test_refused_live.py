"""A real server answers requests that nobody will serve: no money for a replica, or it stops while they are held."""

import json
import threading
import time
from pathlib import Path

import pytest
from fake_engine import make_engine, make_model, spec_of
from test_infrastructure_budget_live import budgeted

from swell_process import Reply, SwellProcess, SwellUp, wait_until

pytestmark = pytest.mark.process

AT_ONCE_SECONDS = 3.0
DRAIN_SECONDS = 20.0


def test_a_budget_too_small_for_one_replica_refuses_at_once_and_is_named(swell_up: SwellUp, tmp_path: Path) -> None:
    server = swell_up(budgeted(tmp_path, 10, replicas="0..2"), workers=2, environment=make_engine(tmp_path))
    warning = "the infrastructure budget of m is $10.00 a year, less than the $"
    assert warning in server.output
    began = time.monotonic()
    answer = server.chat()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert answer.status == 429
    assert answer.json["error"]["code"] == "infrastructure_budget_exhausted"
    assert "the whole of the infrastructure budget of $10.00 for model 'm' in " in answer.json["error"]["message"]
    assert 0 < int(answer.headers["retry-after"]) <= 366 * 86_400
    assert server.stop() == 0


class Held:
    """Requests in threads."""

    def __init__(self, server: SwellProcess) -> None:
        self.replies: dict[bool, Reply] = {}
        self._server = server
        self._threads = [threading.Thread(target=self._ask, args=(stream,)) for stream in (False, True)]
        for thread in self._threads:
            thread.start()

    def _ask(self, stream: bool) -> None:
        self.replies[stream] = self._server.chat(stream=stream)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(DRAIN_SECONDS)


@pytest.mark.parametrize("engine", ["fails", "never begins"])
def test_who_is_held_when_the_server_stops_is_told_so(swell_up: SwellUp, tmp_path: Path, engine: str) -> None:
    environment = make_engine(tmp_path, start_seconds=600)
    if engine == "fails":
        Path(environment["SWELL_VLLM_PYTHON"]).write_text("#!/bin/sh\nexit 3\n")
    drain = DRAIN_SECONDS if engine == "fails" else 2.0
    spec = json.loads(spec_of(make_model(tmp_path)))
    spec["server"] = {"timeouts": {"drain_seconds": drain}}
    server = swell_up(json.dumps(spec), workers=1, environment=environment)
    held = Held(server)

    def is_held() -> bool:
        status = server.command("status")
        [worker] = status["workers"]
        phases = {replica["phase"] for replica in status["replicas"]}
        return worker["queued"] == 2 and ("failed" in phases if engine == "fails" else "starting" in phases)

    wait_until(is_held, seconds=20, what="two requests are held")
    began = time.monotonic()
    assert server.stop() == 0
    held.join()
    assert time.monotonic() - began < DRAIN_SECONDS, "nobody waits for what will not come"
    plain, stream = held.replies[False], held.replies[True]
    assert (plain.status, plain.json["error"]["code"]) == (503, "server_stopping")
    assert plain.headers["retry-after"] == "5"
    assert stream.status in (200, 503), "200 where it had begun with comments"
    assert b'"code":"server_stopping"' in stream.body
