"""`python -m benchmarks.gateway.slow_streams`: thousands of slow streams held open on one worker."""

import argparse
import json
import os
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway.contenders import CONTENDERS, Contender
from benchmarks.gateway.measure import Load
from benchmarks.gateway.processes import (
    LOAD_CORE,
    BenchmarkError,
    cpu_seconds,
    memory_bytes,
    raise_open_files,
    require_cores,
)
from benchmarks.gateway.slow_load import SlowPlan
from benchmarks.gateway.suite import laboratory

LIMIT_BYTES = 400 * 1000 * 1000
SAMPLE_SECONDS = 0.5
_MEGABYTE = 1e6
_SPARE_FILES = 200


@dataclass
class Peak:
    """The most memory that one process had, in bytes."""

    rss: int = 0
    pss: int = 0


def run(name: str, plan_of: dict[str, Any]) -> dict[str, Any]:
    """Hold the streams and return what was seen. BenchmarkError says what is missing."""
    allowed = raise_open_files()
    if 2 * plan_of["streams"] + _SPARE_FILES > allowed:
        raise BenchmarkError(
            f"{plan_of['streams']} streams need {2 * plan_of['streams'] + _SPARE_FILES} open files in the gateway and "
            f"{allowed} are allowed; raise the hard limit (ulimit -Hn) or ask for fewer with --streams"
        )
    with laboratory() as (upstream, setup), ExitStack() as cleanup:
        contender = CONTENDERS[name](setup)
        cleanup.callback(contender.stop)
        contender.start()
        plan = SlowPlan(port=contender.port, key=contender.key, **plan_of)
        peaks: dict[int, Peak] = {}
        _sample(contender, peaks)
        idle = {group: sum(peaks[pid].rss for pid in pids) for group, pids in contender.groups().items()}
        load = Load(plan, setup.folder, "benchmarks.gateway.slow_load")
        before, started = cpu_seconds(contender.groups().get("all", [])), time.monotonic()
        load.go()
        while load.process.poll() is None and time.monotonic() - started < plan.chunks * plan.interval_seconds:
            _sample(contender, peaks)
            time.sleep(SAMPLE_SECONDS)
        used = cpu_seconds(contender.groups().get("all", [])) - before
        core = used / (time.monotonic() - started)
        results = load.results()
        at_once = upstream.stats()["peak_in_flight"]
        groups = {
            group: {
                "rss": sum(peaks[pid].rss for pid in pids if pid in peaks),
                "pss": sum(peaks[pid].pss for pid in pids if pid in peaks),
                "idle_rss": idle[group],
            }
            for group, pids in contender.groups().items()
        }
        return {"plan": asdict(plan), "memory": groups, "at_once": at_once, "contender_core": core, **results}


def _sample(contender: Contender, peaks: dict[int, Peak]) -> None:
    for pid in contender.groups().get("all", []):
        now = memory_bytes(pid)
        peak = peaks.setdefault(pid, Peak())
        peak.rss, peak.pss = max(peak.rss, now.rss), max(peak.pss, now.pss)


def main() -> int:
    """Exit code 0, 1 where the bar is missed, 2 where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.slow_streams", description=__doc__)
    parser.add_argument("--contender", choices=list(CONTENDERS), default="swell")
    parser.add_argument("--streams", type=int, default=5000)
    parser.add_argument("--interval", type=float, default=1.0, help="seconds between a stream's chunks (1)")
    parser.add_argument("--hold", type=float, default=20.0, help="seconds that all streams are open together (20)")
    parser.add_argument("--open-rate", type=int, default=500, help="streams opened per second (500)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    chunks = round((options.streams / options.open_rate + options.hold) / options.interval) + 1
    plan = {
        "streams": options.streams,
        "interval_seconds": options.interval,
        "chunks": chunks,
        "opened_per_second": options.open_rate,
    }
    try:
        require_cores()
        os.sched_setaffinity(0, {LOAD_CORE})
        found = run(options.contender, plan)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return _show(options.contender, found)


def _show(name: str, found: dict[str, Any]) -> int:
    plan = found["plan"]
    print(f"{name}: {plan['streams']} streams of {plan['chunks']} chunks, one per {plan['interval_seconds']:g} s each;")
    print(f"  open at once {found['at_once']}, completed {found['completed']}, errors {found['errors'] or 'none'}")
    late = found["lateness_ms"]
    print(f"  chunks late by p50 {late['p50']:.1f}, p99 {late['p99']:.1f}, at most {late['max']:.1f} ms")
    print(f"  share of its core {found['contender_core']:.0%}")
    for group, memory in found["memory"].items():
        rss, pss, idle = (memory[key] / _MEGABYTE for key in ("rss", "pss", "idle_rss"))
        print(f"  {group}: RSS {rss:.0f} MB (idle {idle:.0f}), PSS {pss:.0f} MB")
    judged = found["memory"].get("worker") or found["memory"].get("all")
    if judged is None:
        return 0
    met = judged["rss"] < LIMIT_BYTES and not found["errors"] and found["completed"] == plan["streams"]
    print(f"  bar: under {LIMIT_BYTES / _MEGABYTE:.0f} MB and no error: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
