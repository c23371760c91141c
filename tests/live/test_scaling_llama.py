"""llama.cpp replicas: from zero, a burst of clients, silence, zero again, a last request."""

import json
from pathlib import Path

import live_load
import pytest
from live_load import Clients, check_stream, check_trail, replicas_of, trail_of, until_none

from swell_process import SwellUp

pytestmark = [pytest.mark.process, pytest.mark.model]

MODEL = "smollm2"
REACTIVE = (str(Path(live_load.__file__).with_name("reactive_swell.py")),)


def spec_of(model_file: Path) -> str:
    scaling = {"interval_seconds": 0.5, "idle_seconds": 2.0, "start_seconds": 2.0}
    model = {
        "name": MODEL, "source": str(model_file), "engine": "llama.cpp", "replicas": "0..2", "scaling": scaling,
        "objectives": {"ttft_ms": 3000.0, "itl_ms": 500.0},
    }  # fmt: skip
    return json.dumps({"models": [model]})


def test_real_replicas_come_and_go_and_nobody_is_failed(swell_up: SwellUp, model_file: Path) -> None:
    server = swell_up(spec_of(model_file), program=REACTIVE)
    assert replicas_of(server) == []
    burst = Clients(server, count=6, asks=2, model=MODEL, fields={"max_tokens": 8})
    burst.start()
    burst.join()
    burst.check_whole()
    until_none(server)
    last = server.chat(MODEL, stream=True, max_tokens=8)
    check_stream(last)
    numbers = check_trail(trail_of(server))
    assert numbers[0] == 0
    assert max(numbers) == 2
    assert 0 in numbers[1:]
    rows = server.command("usage")
    assert [row["status"] for row in rows] == ["settled"] * 13
    assert server.stop() == 0
    assert server.children() == []
