"""Each peer gets a Python environment of its own, made on first use and kept."""

import subprocess
import sys
from pathlib import Path

from benchmarks.gateway.processes import BenchmarkError

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"


def program(name: str, requirement: str, command: str) -> Path:
    """The path of `command` in the environment `name`, with `requirement` installed."""
    folder = CACHE / name
    stamp = folder / "installed"
    if not (stamp.exists() and stamp.read_text() == requirement):
        print(f"installing {requirement} into {folder.relative_to(ROOT)}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", requirement)
        stamp.write_text(requirement)
    return folder / "bin" / command


def _run(*argv: str) -> None:
    finished = subprocess.run(argv, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise BenchmarkError(
            f"{' '.join(argv[-2:])} failed; leave the contender out, or see why:\n{finished.stderr[-1500:]}"
        )
