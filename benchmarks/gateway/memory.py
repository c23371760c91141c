"""`python -m benchmarks.gateway.memory`: whether one worker's memory stays flat over many requests."""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path

from benchmarks.gateway.contenders import CONTENDERS
from benchmarks.gateway.load import Plan
from benchmarks.gateway.measure import Load
from benchmarks.gateway.processes import (
    LOAD_CORE,
    BenchmarkError,
    memory_bytes,
    raise_open_files,
    require_cores,
    wait_quiet,
)
from benchmarks.gateway.suite import laboratory

SEGMENTS = 20  # samples; each segment opens fresh connections
STREAM_SHARE = 0.2  # of the requests; the others are JSON
SETTLING_SHARE = 0.25  # of the samples, left out of the slope: caches fill and the allocator finds its size
FLAT_BYTES_PER_REQUEST = 16.0

Sample = tuple[int, int]  # requests so far, resident bytes


def run(name: str, requests: int) -> tuple[dict[str, list[Sample]], int]:
    """Samples by group of processes, and the errors."""
    samples: dict[str, list[Sample]] = {}
    done = errors = 0
    with laboratory('{"writes":"burst"}') as (_, setup), ExitStack() as cleanup:
        contender = CONTENDERS[name](setup)
        cleanup.callback(contender.stop)
        contender.start()
        for _ in range(SEGMENTS):
            streams = round(requests / SEGMENTS * STREAM_SHARE)
            for work, count in (("json", requests // SEGMENTS - streams), ("stream", streams)):
                plan = Plan(port=contender.port, key=contender.key, work=work, warm_seconds=0, requests=count)
                load = Load(plan, setup.folder)
                load.go()
                results = load.results()
                done += results["completed"]
                errors += sum(results["errors"].values())
            groups = contender.groups()
            wait_quiet(groups["all"])
            for group, pids in groups.items():
                memories = [memory_bytes(pid) for pid in pids]
                samples.setdefault(group, []).append((done, sum(memory.rss for memory in memories)))
                private = f"{group} without files"
                samples.setdefault(private, []).append((done, sum(memory.anonymous for memory in memories)))
            print(", ".join(f"{group} {points[-1][1] / 1e6:.1f} MB" for group, points in samples.items()), end="")
            print(f" after {done:,} requests", flush=True)
    return samples, errors


def slope(points: list[Sample]) -> float:
    """Bytes per request, by least squares over the samples after settling."""
    kept = points[round(len(points) * SETTLING_SHARE) :]
    mean_x = sum(x for x, _ in kept) / len(kept)
    mean_y = sum(y for _, y in kept) / len(kept)
    spread = sum((x - mean_x) ** 2 for x, _ in kept)
    return sum((x - mean_x) * (y - mean_y) for x, y in kept) / spread if spread else 0.0


def main() -> int:
    """Exit code 0, 1 where memory grows or a request failed, 2 where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway.memory", description=__doc__)
    parser.add_argument("--contender", choices=[name for name in CONTENDERS if name != "direct"], default="swell")
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        require_cores()
        os.sched_setaffinity(0, {LOAD_CORE})
        raise_open_files()
        samples, errors = run(options.contender, options.requests)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    slopes = {group: slope(points) for group, points in samples.items()}
    for group, bytes_per_request in slopes.items():
        print(f"{group}: {bytes_per_request:+.2f} bytes per request")
    if options.json:
        options.json.write_text(json.dumps({"samples": samples, "slopes": slopes, "errors": errors}, indent=1) + "\n")
    judged = slopes.get("worker", slopes.get("all", 0.0))
    met = judged <= FLAT_BYTES_PER_REQUEST and not errors
    print(f"bar: at most {FLAT_BYTES_PER_REQUEST:g} bytes per request and no error: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
