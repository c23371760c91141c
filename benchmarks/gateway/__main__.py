"""`python -m benchmarks.gateway`: Swell's gateway beside nginx and other routers, on this machine."""

import argparse
import json
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.gateway import report, suite
from benchmarks.gateway.contenders import CONTENDERS, ON_DEMAND
from benchmarks.gateway.processes import LOAD_CORE, BenchmarkError, raise_open_files, require_cores
from swell.testing.upstream_script import Writes

_PLAIN = tuple(name for name in CONTENDERS if not name.endswith("+tls"))
_USUAL = tuple(name for name in _PLAIN if name not in ON_DEMAND)


def main() -> int:
    """Exit code 0 when it ran, 1 when `--check` and a bar is not met, 2 when it cannot run."""
    options = _options()
    console = Console(width=None if sys.stdout.isatty() else 140)
    left_out = {name for name in _PLAIN if getattr(options, f"no_{name.replace('-', '_')}")}
    settings = suite.Settings(
        contenders=tuple(name for name in options.only or _USUAL if name not in left_out),
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        tls=not options.no_tls,
        latency=not options.no_latency,
        writes=options.writes,
    )
    if options.quick:
        settings = replace(settings, rounds=1, seconds=min(options.seconds, 1.0), warm_seconds=0.5)
    try:
        require_cores()
        os.sched_setaffinity(0, {LOAD_CORE})
        raise_open_files()
        outcome = suite.run(settings, lambda line: console.print(line, highlight=False, markup=False))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    report.show(outcome, settings, console)
    if options.json:
        options.json.write_text(json.dumps(report.document(outcome, settings, _machine()), indent=1) + "\n")
    if options.check and any(bar.verdict != "met" for bar in report.bars(outcome)):
        return 1
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=_PLAIN, metavar="NAME", help=f"of {', '.join(_PLAIN)}")
    for name in _PLAIN:
        parser.add_argument(f"--no-{name}", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--no-tls", action="store_true", help="leave out TLS")
    parser.add_argument("--no-latency", action="store_true", help="leave out latency at half load")
    parser.add_argument("--rounds", type=int, default=3, help="the median is of so many (3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (4)")
    parser.add_argument("--connections", type=int, default=32, help="kept alive, closed loop (32)")
    parser.add_argument(
        "--writes", choices=list(Writes), default=Writes.RUSH, help="the upstream's way to write streams"
    )
    parser.add_argument("--quick", action="store_true", help="one short round: does it run, not how fast")
    parser.add_argument("--check", action="store_true", help="exit with 1 unless every bar is met")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    return parser.parse_args()


def _machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    sys.exit(main())
