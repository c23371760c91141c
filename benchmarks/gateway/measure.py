"""One measurement: a load process against one contender, with the contender's CPU time read around it."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.contenders import Contender
from benchmarks.gateway.load import Plan
from benchmarks.gateway.processes import (
    CONTENDER_CORE,
    LOAD_CORE,
    BenchmarkError,
    core_seconds,
    cpu_seconds,
    launch,
    stop,
    wait_http,
    wait_quiet,
)
from benchmarks.gateway.slow_load import SlowPlan

LOAD_SECONDS = 600.0  # the longest that a load process may take beyond its plan


@dataclass(frozen=True)
class Measurement:
    """`cpu_us` is CPU time per completed request in microseconds, by group of processes."""

    contender: str
    work: str
    per_second: float
    completed: int
    errors: Mapping[str, int]
    latency_ms: Mapping[str, float]
    cpu_us: Mapping[str, float]
    load_core: float  # share of the measured time that load and upstream used of their core
    contender_core: float  # the same for the contender
    foreign_core: float  # share of the contender's core that processes outside the benchmark used


class Upstream:
    """The scripted upstream as a process on the load's core."""

    def __init__(self, port: int, folder: Path, script: str = "{}") -> None:
        self.port = port
        self._log = folder / "upstream.log"
        module = [sys.executable, "-m", "swell.testing.upstream", "--port", str(port), "--model", "m"]
        self._process = launch([*module, "--script", script], core=LOAD_CORE, log=self._log)
        wait_http(f"http://127.0.0.1:{port}/health", self._process, self._log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def stats(self) -> dict[str, int]:
        """Its counts, as in `swell.testing.upstream_connection.Stats`."""
        url = f"http://127.0.0.1:{self.port}/_upstream/stats"
        with urllib.request.urlopen(url, timeout=10) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts

    def stop(self) -> None:
        stop(self._process)


class Load:
    """A load process that is connected and warm, and runs when told to."""

    def __init__(self, plan: Plan | SlowPlan, folder: Path, module: str = "benchmarks.gateway.load") -> None:
        self._log = folder / "load.log"
        argv = [sys.executable, "-m", module, json.dumps(asdict(plan))]
        pipe = subprocess.PIPE
        self.process = launch(argv, core=LOAD_CORE, log=self._log, stdin=pipe, stdout=pipe)
        self._line("ready")

    def go(self) -> None:
        """Begin the measured part."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def results(self) -> dict[str, Any]:
        """Wait for the end. BenchmarkError where the load gave up."""
        document: dict[str, Any] = json.loads(self._line("{"))
        self.process.wait(LOAD_SECONDS)
        return document

    def _line(self, start: str) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(start):
            stop(self.process)
            tail = self._log.read_text(errors="replace")[-1500:]
            raise BenchmarkError(f"the load process gave up; the end of {self._log}:\n{line}{tail}")
        return line


def measure(name: str, contender: Contender, plan: Plan, upstream: Upstream) -> Measurement:
    """Run `plan` against a running contender."""
    load = Load(plan, contender.setup.folder)
    groups = contender.groups()
    everything = sorted({pid for pids in groups.values() for pid in pids})
    wait_quiet(everything)
    before = _read(groups)
    upstream_before, core_before = cpu_seconds([upstream.pid]), core_seconds(CONTENDER_CORE)
    load.go()
    results = load.results()
    core_used = core_seconds(CONTENDER_CORE) - core_before
    upstream_used = cpu_seconds([upstream.pid]) - upstream_before
    busy = _used(before, _read(groups)).get("all", 0.0)
    wait_quiet(everything)
    used = _used(before, _read(groups))
    completed, seconds = results["completed"], results["seconds"]
    return Measurement(
        contender=name,
        work=plan.work,
        per_second=completed / seconds,
        completed=completed,
        errors=results["errors"],
        latency_ms=results["latency_ms"],
        cpu_us={group: value / max(1, completed) * 1e6 for group, value in used.items()},
        load_core=(upstream_used + results["load_cpu_seconds"]) / seconds,
        contender_core=busy / seconds,
        foreign_core=max(0.0, core_used - busy) / seconds,
    )


def _read(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    return {group: cpu_seconds(pids) for group, pids in groups.items()}


def _used(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {group: after[group] - before[group] for group in before}
