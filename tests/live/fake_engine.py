"""An engine that starts in a fraction of a second: the scripted upstream behind vLLM's launch line."""

import json
import struct
import sys
from pathlib import Path

SCRIPT = '{"chunks": 20, "delay_ms": 20}'
_INTERPRETER = """#!/bin/sh
for word in "$@"; do
  case "$word" in --port=*) port="${{word#--port=}}" ;; esac
done
sleep {start_seconds}
exec {python} -m swell.testing.upstream --port "$port" --model m --script '{script}'
"""


def make_engine(folder: Path, script: str = SCRIPT, start_seconds: float = 0) -> dict[str, str]:
    """The environment in which engine vllm is the fake one."""
    path = folder / "fake-vllm"
    path.write_text(_INTERPRETER.format(python=sys.executable, script=script, start_seconds=start_seconds))
    path.chmod(0o755)
    return {"SWELL_VLLM_PYTHON": str(path)}


def make_model(folder: Path) -> Path:
    """A folder with what may pass for weights."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    model = folder / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    return model


def spec_of(model: Path, replicas: str = "0..3", **scaling: float) -> str:
    """A swell.yaml with that one model, called m."""
    settings = {"interval_seconds": 0.5, "idle_seconds": 2.0, "start_seconds": 1.0, "hold_seconds": 30.0, **scaling}
    fields = {
        "name": "m", "source": str(model), "engine": "vllm", "replicas": replicas, "parallel": 2, "max_in_flight": 2,
        "objectives": {"ttft_ms": 2000.0, "itl_ms": 200.0}, "scaling": settings,
    }  # fmt: skip
    return json.dumps({"models": [fields]})
