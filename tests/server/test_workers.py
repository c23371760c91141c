"""What gateway workers are started with, and which of them still fit."""

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from swell.clock import ManualClock
from swell.control.workload import Slot
from swell.server.gateway_workload import forget_settings, gateway_workload, port_of
from swell.server.listener import prepare_listener
from swell.server.state_directory import StateDirectory
from swell.spec import Spec, parse_spec
from swell.state.worker import WorkerSettings

MODELS = 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9"]}]\n'


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path)
    for folder in (state.workers, state.secrets):
        folder.mkdir(mode=0o700)
    return state


def workload(state: StateDirectory, server: str = "{}"):
    spec: Spec = parse_spec(MODELS + f"server: {server}", origin="test")
    listener = prepare_listener(spec.server, state, state.secrets / "pepper", ManualClock())
    return gateway_workload(spec.server, state, listener)


def test_settings_are_private_and_say_everything_the_spec_does(state: StateDirectory) -> None:
    wanted = workload(state, "{port: 8123, timeouts: {idle_seconds: 7}, bounds: {retries: 1}}")
    assert wanted.launch is not None
    command = wanted.launch(Slot("0123456789ab", 3, 0, ""))
    path = Path(command.argv[-1])
    settings = msgspec.json.decode(path.read_bytes(), type=WorkerSettings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (settings.worker_id, settings.incarnation, settings.port) == (3, "0123456789ab", 8123)
    assert (settings.timeouts.idle_seconds, settings.bounds.retries) == (7, 1)
    assert settings.spool_dir == str(state.spool / "0123456789ab")
    assert port_of(state, "0123456789ab") == ("127.0.0.1", 8123)
    assert forget_settings(state, set()) == {"0123456789ab"}
    assert port_of(state, "0123456789ab") is None


def test_only_what_workers_are_told_makes_them_unfit(state: StateDirectory) -> None:
    fingerprint = workload(state).fingerprint
    assert workload(state, "{workers: 3, log_files: 2}").fingerprint == fingerprint
    assert workload(state, "{port: 8123}").fingerprint != fingerprint
    assert workload(state, "{queue_seconds: {batch: 5}}").fingerprint != fingerprint


def test_a_local_authority_makes_a_certificate_and_a_new_one_makes_workers_unfit(state: StateDirectory) -> None:
    first = workload(state, "{tls: {local_ca: true}}").fingerprint
    assert workload(state, "{tls: {local_ca: true}}").fingerprint == first
    (state.tls / "server.pem").unlink()
    assert workload(state, "{tls: {local_ca: true}}").fingerprint != first


def test_new_incarnations_are_twelve_hex_digits(state: StateDirectory) -> None:
    made = {workload(state).new_id("gateway", 0) for _ in range(8)}
    assert len(made) == 8
    assert all(len(name) == 12 and int(name, 16) >= 0 for name in made)


def test_the_entry_refuses_settings_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "w.json").write_text("{}")
    ended = subprocess.run(
        [sys.executable, "-m", "swell.server.gateway_worker", "--settings", str(tmp_path / "w.json")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "cannot read worker settings" in ended.stderr


def test_the_entry_is_lean() -> None:
    script = (
        "import sys, swell.server.gateway_worker;"
        "print(sorted({'pydantic', 'sqlalchemy', 'httpx', 'starlette', 'uvicorn', 'typer'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
