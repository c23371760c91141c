"""`python -m benchmarks.kubernetes`: a thousand models with ten Pods each, on an API server of make-believe over HTTP.

One process starts them all and is killed; another, which knows only its store, adopts them. Then a little happens:
containers end, Pods are deleted, some models get one replica more or less. Told are: how long adoption took, how long
the longest turn of the loop, how many requests were made, how much memory the server has.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightkube.config.kubeconfig import Cluster, KubeConfig, User

from benchmarks.kubernetes.cluster import NAMESPACE
from swell.adapters.providers.kubernetes.client import LightkubeApi
from swell.adapters.providers.kubernetes.pacing import Pace
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.adapters.providers.kubernetes.settings import ClusterSettings
from swell.adapters.stores import open_store
from swell.clock import SystemClock
from swell.control.fleet import Fleet
from swell.control.probe import HttpAsk
from swell.control.workload import REPLICA, HealthCheck, Slot, Workload
from swell.ports.engine import LaunchCommand
from swell.ports.provider import Needs
from swell.server.stored_intents import StoredIntents
from swell.server.writer import Writer

BARS = {"adoption": 30.0, "turn": 1.0, "writes": 100.0, "memory": 500.0}
QUICK = Pace(per_second=5000.0, burst=5000)
KEY = bytes(32)
PODS_A_NODE = 100
HAPPENING_SECONDS = 30.0
CRASHED, DELETED, SCALED = 10, 5, 10
START_SECONDS = 1800.0
MEMORY = Path("/dev/shm")  # noqa: S108  where storing an intent does not wait for a disk, which is not the subject here
CLAIM_SECONDS = 600.0


class Server:
    """A fleet on the cluster, with a store of its own."""

    def __init__(self, cluster: dict[str, str], folder: Path, models: int, replicas: int, pace: Pace | None) -> None:
        config = KubeConfig.from_one(cluster=Cluster(server=cluster["url"]), user=User(token=cluster["token"])).get()
        assert config is not None
        clock = SystemClock()
        settings = ClusterSettings(NAMESPACE, "benchmark")
        self.provider = KubernetesProvider(LightkubeApi(config, NAMESPACE), settings, clock=clock, pace=pace)
        self.store, self.ask = open_store(folder / "swell.db", KEY), HttpAsk()
        self.writer = Writer()
        intents = StoredIntents(self.store, self.writer)
        self.fleet = Fleet(providers={"cluster": self.provider}, intents=intents, ask=self.ask, clock=clock)
        self.fleet.want(_workload(f"model-{number:04}", replicas, folder) for number in range(models))
        self.longest = 0.0  # turn, in seconds
        self.busiest = 0.0  # and of a processor
        self.steps = 0

    async def until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Turn until it holds; how long that took, and the longest turn on the way in `longest`."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < seconds, Counter(replica.phase for replica in self.fleet.replicas)
            turn, used = time.monotonic(), time.process_time()
            await self.fleet.step(turn)
            self.steps += 1
            self.longest = max(self.longest, time.monotonic() - turn)
            self.busiest = max(self.busiest, time.process_time() - used)
            await asyncio.sleep(0.1)
        return time.monotonic() - begun

    def ready(self) -> int:
        """Replicas that requests may be sent to."""
        return sum(replica.routable for replica in self.fleet.replicas)

    async def close(self) -> None:
        """Let go."""
        await self.fleet.close()
        await self.provider.close()
        await self.ask.close()
        self.writer.close()
        self.store.close()


def _workload(name: str, count: int, folder: Path) -> Workload:
    def launch(slot: Slot) -> LaunchCommand:
        return LaunchCommand(("engine", f"--model={name}", f"--port={slot.port}"), {"ENGINE_KEY": slot.key})

    return Workload(
        name=name,
        kind=REPLICA,
        count=count,
        provider="cluster",
        log_dir=folder,
        fingerprint="0123456789abcdef",
        launch=launch,
        key="key",
        health=HealthCheck("/health", lambda status: status == 200),
        needs=Needs(image="engine:1"),
        start_timeout_seconds=START_SECONDS,
    )


async def build(cluster: dict[str, str], folder: Path, models: int, replicas: int) -> dict[str, Any]:
    """Start everything, and let every Pod say whose it is."""
    server = Server(cluster, folder, models, replicas, QUICK)
    await server.fleet.adopt()
    seconds = await server.until(lambda: server.ready() == models * replicas, START_SECONDS)
    groups = server.provider.groups
    await server.until(lambda: all(len(group.marks) >= replicas for group in groups), CLAIM_SECONDS)
    writes = server.provider.api.writes
    await server.close()
    return {"start seconds": seconds, "start writes": writes}


async def measure(cluster: dict[str, str], folder: Path, models: int, replicas: int) -> dict[str, Any]:
    """Adopt everything, then let a little happen. Waits for a line before each thing that shall happen."""
    begun, used = time.monotonic(), time.process_time()
    server = Server(cluster, folder, models, replicas, None)
    await server.fleet.adopt()
    found: dict[str, Any] = {"adoption": time.monotonic() - begun, "adoption, processor": time.process_time() - used}
    found["adopted"] = server.ready()
    assert server.ready() == models * replicas, Counter(replica.phase for replica in server.fleet.replicas)
    for _ in range(10):
        await server.until(lambda: server.steps % 2 == 1, 60.0)
        server.steps += 1
    found |= {"quiet turn": server.longest, "quiet turn, processor": server.busiest}
    found["quiet writes"] = server.provider.api.writes
    print("adopted", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    server.longest = server.busiest = 0.0
    before = server.provider.api.writes
    for number in range(SCALED):
        server.fleet.set_count(f"model-{number:04}", replicas + (1 if number % 2 else -1))
    until = time.monotonic() + HAPPENING_SECONDS
    await server.until(lambda: time.monotonic() > until, 2 * HAPPENING_SECONDS)
    found |= {"turn": server.longest, "turn, processor": server.busiest}
    found |= {"writes": server.provider.api.writes - before, "ready": server.ready()}
    assert server.ready() == models * replicas, Counter(replica.phase for replica in server.fleet.replicas)
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    await server.close()
    return found


def _whole(models: int, replicas: int) -> dict[str, Any]:
    nodes = -(-models * (replicas + 1) // PODS_A_NODE)
    command = [sys.executable, "-m", "benchmarks.kubernetes.cluster", str(nodes)]
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.exists() else None) as folder,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster,
    ):
        assert cluster.stdin is not None
        assert cluster.stdout is not None
        where = cluster.stdout.readline()
        try:
            built = subprocess.run(_own("build", where, folder, models, replicas), check=True, stdout=subprocess.PIPE)
            _say(cluster, "pods")
            measured = subprocess.Popen(
                _own("measure", where, folder, models, replicas),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            with measured:
                assert measured.stdin is not None
                assert measured.stdout is not None
                assert measured.stdout.readline() == "adopted\n"
                _say(cluster, f"crash {CRASHED}")
                _say(cluster, f"delete {DELETED}")
                measured.stdin.write("go\n")
                measured.stdin.flush()
                told = measured.stdout.read()
            return {**json.loads(built.stdout), **json.loads(told)}
        finally:
            with suppress(BrokenPipeError):
                cluster.stdin.close()


def _say(cluster: "subprocess.Popen[str]", line: str) -> None:
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    cluster.stdin.write(f"{line}\n")
    cluster.stdin.flush()
    print(f"cluster: {line}: {cluster.stdout.readline().strip()}", file=sys.stderr, flush=True)


def _own(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.kubernetes", *map(str, words)]


def main(argv: list[str]) -> int:
    """Run all of it, or, for itself, one part."""
    if argv[:1] in (["build"], ["measure"]):
        part = build if argv[0] == "build" else measure
        print(json.dumps(asyncio.run(part(json.loads(argv[1]), Path(argv[2]), int(argv[3]), int(argv[4])))), flush=True)
        return 0
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kubernetes")
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=10)
    options = parser.parse_args(argv)
    found = _whole(options.models, options.replicas)
    for name, value in found.items():
        bar = BARS.get(name)
        print(f"{name:20} {value:10,.2f}" + (f"   bar {bar:g}: {'met' if value <= bar else 'MISSED'}" if bar else ""))
    return int(any(found[name] > bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
