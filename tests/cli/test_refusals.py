"""What `swell up` refuses: exit code 2, one sentence that says what to do, nothing left running."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

EXTERNAL = 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9"]}]'


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swell-") as name:  # tmp_path is too long for a Unix socket
        yield Path(name)


def refused(folder: Path, spec: str | None, *arguments: str) -> str:
    """Run `swell up`, which must refuse; what it said."""
    options = ["--state", str(folder / "s"), *arguments]
    if spec is not None:
        (folder / "swell.yaml").write_text(spec)
        options += ["-f", str(folder / "swell.yaml")]
    ended = subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "up", *options],
        capture_output=True,
        timeout=30,
        cwd=folder,
        check=False,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_taken_port(folder: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # even one that would let workers in
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(folder, EXTERNAL, "--port", str(port))
    assert said.startswith(f"swell: port {port} on 127.0.0.1 is taken by another program; ")
    assert "--port" in said


def test_a_locked_state_directory(folder: Path, free_port: int) -> None:
    (folder / "s").mkdir()
    with (folder / "s" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        said = refused(folder, EXTERNAL, "--port", str(free_port))
    assert f"is in use by process {os.getpid()}; stop it with: swell down --state {folder / 's'}" in said


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("models: [", "swell.yaml:1:10"),
        ("models: [{name: m, engine: lama.cpp, source: x.gguf}]", "did you mean llama.cpp?"),
        ("models: [{name: m, engine: llama.cpp, source: ./missing.gguf}]", "missing.gguf"),
        ("models: [{name: m, engin: vllm, source: x}]", "did you mean engine?"),
        (
            'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9"], api_key_env: SWELL_TEST_UNSET}]',
            "SWELL_TEST_UNSET",
        ),
        (
            EXTERNAL + "\nserver: {tls: {certificate: gone.pem, private_key: gone.key}}",
            "gone.pem cannot be read",
        ),
    ],
)
def test_a_spec_that_cannot_be_served(folder: Path, free_port: int, spec: str, sentence: str) -> None:
    said = refused(folder, spec, "--port", str(free_port))
    assert sentence in said


def test_a_missing_file_and_a_plaintext_listener_for_everybody(folder: Path, free_port: int) -> None:
    assert "no such file" in refused(folder, None, "-f", "nowhere.yaml")
    assert "allow_plaintext_off_loopback" in refused(folder, EXTERNAL, "--host", "192.0.2.1")


def test_a_refusal_in_json(folder: Path) -> None:
    said = json.loads(refused(folder, "models: []", "--json"))
    assert list(said) == ["error"]
    assert "models" in said["error"]
