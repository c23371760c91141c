"""`python -m benchmarks.engine_model`: the simulated engine against a live llama.cpp replica.

Each round measures the replica's latency profile as `swell profile` does, then runs closed loops of clients whose
numbers and lengths are not in that sweep, and gives the very requests to the simulated engine with that profile. What
is compared is the mean time per output token of each loop. The replica has core 0 and one thread, the clients core 1. A
replica that shares its core is slower by as much, and not always by the same: the share that others took is shown.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.gateway.processes import (
    CONTENDER_CORE,
    LOAD_CORE,
    BenchmarkError,
    core_seconds,
    cpu_seconds,
    free_port,
    launch,
    require_cores,
    stop,
    wait_http,
)
from swell.adapters.engines.llama_cpp import LlamaCpp
from swell.adapters.sources import SOURCES, ModelCache, default_cache_folder
from swell.clock import SystemClock
from swell.errors import SwellError
from swell.server.profile_client import Prompts, Replica, TimedStream
from swell.server.profiling import Sweep, measure
from swell.simulator.engine import Engine, Job
from swell.spec import ModelSpec
from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE
from swell.state.scaling import LatencyProfile

MODEL = "smollm2"
PARALLEL = 8
CONTEXT_TOKENS = 1024
SWEEP_PROMPT_TOKENS = 512
REQUESTS_PER_CLIENT = 3
SPREAD = 0.1  # of the lengths, so that clients do not run in lockstep
LIMIT = 0.2  # of the median error of the mean time per output token
MIN_SWEEP_BATCHES = 6  # fewer say too little of how a step grows


@dataclass(frozen=True, slots=True)
class Loop:
    """So many clients, each with one request after the other."""

    clients: int
    prompt: int  # tokens, about
    output: int


LOOPS = (
    Loop(1, 90, 48), Loop(1, 350, 40), Loop(2, 180, 40), Loop(3, 100, 40), Loop(3, 300, 32), Loop(5, 60, 40),
    Loop(6, 90, 32), Loop(7, 45, 40),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compared:
    """One loop, live and simulated. Milliseconds, means over its requests."""

    loop: Loop
    live_tpot: float
    simulated_tpot: float
    live_ttft: float
    simulated_ttft: float

    @property
    def tpot_error(self) -> float:
        """Of the simulated, as a share of the live."""
        return self.simulated_tpot / self.live_tpot - 1

    @property
    def ttft_error(self) -> float:
        return self.simulated_ttft / self.live_ttft - 1


@dataclass(frozen=True, slots=True)
class Round:
    """A profile and what came of it."""

    profile: LatencyProfile
    batches: int  # that its decode step was fitted to
    compared: tuple[Compared, ...]
    others: float  # share of the replica's core that others took


async def run_live(replica: Replica, prompts: Prompts, loop: Loop) -> list[list[TimedStream]]:
    """What each client got, in order."""
    dice = random.Random(f"{loop}")

    async def client() -> list[TimedStream]:
        sizes = [
            tuple(round(size * dice.uniform(1 - SPREAD, 1 + SPREAD)) for size in (loop.prompt, loop.output))
            for _ in range(REQUESTS_PER_CLIENT)
        ]
        return [await replica.stream(prompts.write(prompt), output) for prompt, output in sizes]

    return await asyncio.gather(*(client() for _ in range(loop.clients)))


def simulate(profile: LatencyProfile, clients: Sequence[Sequence[TimedStream]]) -> tuple[float, float]:
    """Mean times to the first token and per output token, in milliseconds, of the same requests in the same loops."""
    engine, left = Engine(profile, 0.0), [list(streams) for streams in clients]
    running: dict[Job, tuple[list[TimedStream], int]] = {}
    ttft: list[float] = []
    tpot: list[float] = []

    def send(queue: list[TimedStream], now: float) -> None:
        if queue:
            stream = queue.pop(0)
            job = Job(len(ttft) + len(running), now, stream.computed_tokens, stream.tokens, float("inf"))
            running[job] = queue, stream.tokens
            engine.submit(job, now)

    for queue in left:
        send(queue, 0.0)
    while running:
        now = engine.next_event()
        ended = engine.run_to(now)
        for job in ended:
            queue, tokens = running.pop(job)
            ttft.append((job.first_at - job.arrival) * 1000)
            tpot.append((now - job.first_at) * 1000 / max(1, tokens - 1))
            send(queue, now)
    return statistics.mean(ttft), statistics.mean(tpot)


def compare(profile: LatencyProfile, loop: Loop, clients: Sequence[Sequence[TimedStream]]) -> Compared:
    """One loop's means."""
    streams = [stream for client in clients for stream in client]
    tpot = statistics.mean(
        (stream.events_at[-1] - stream.events_at[0]) * 1000 / max(1, stream.tokens - 1) for stream in streams
    )
    ttft = statistics.mean(stream.first_ms for stream in streams)
    simulated_ttft, simulated_tpot = simulate(profile, clients)
    return Compared(loop, tpot, simulated_tpot, ttft, simulated_ttft)


async def one_round(url: str, pid: int, seconds: float, number: int) -> Round:
    """BenchmarkError where the sweep ended too early to tell anything."""
    clock, prompts = SystemClock(), Prompts(seed=100 + number)
    replica = Replica(url, MODEL, "", clock, connections=2 * PARALLEL)
    begun, own, core = time.monotonic(), cpu_seconds([pid]), core_seconds(CONTENDER_CORE)
    try:
        blank = LatencyProfile(MODEL, "CPU", 1, 0, 0, 0, 0, 0, 0, 0)
        sweep = Sweep(SWEEP_PROMPT_TOKENS, PARALLEL, repetitions=2, seconds=seconds)
        found = await measure(replica, blank, sweep, clock)
        if len(found.step_samples) < MIN_SWEEP_BATCHES:
            raise BenchmarkError(f"{'; '.join(found.notes)}: the machine is too busy; give more --seconds")
        counted = [(text, (await replica.stream(text, 1)).prompt_tokens) for text in map(prompts.write, (30, 200))]
        prompts.learn(counted)
        compared = [compare(found.profile, loop, await run_live(replica, prompts, loop)) for loop in LOOPS]
    finally:
        await replica.close()
    taken = core_seconds(CONTENDER_CORE) - core - (cpu_seconds([pid]) - own)
    others = max(0.0, taken) / (time.monotonic() - begun)
    return Round(found.profile, len(found.step_samples), tuple(compared), others)


def run(rounds: int, seconds: float, niceness: int) -> list[Round]:
    """All rounds with one replica."""
    file = ModelCache(default_cache_folder(os.environ), SOURCES).ensure(DEFAULT_SOURCE, sha256=DEFAULT_SHA256).path
    fields = {"name": MODEL, "source": str(file), "parallel": PARALLEL, "context_tokens": CONTEXT_TOKENS}
    spec = ModelSpec.model_validate({**fields, "engine": "llama.cpp", "max_in_flight": 2 * PARALLEL})
    port = free_port()
    command = LlamaCpp().launch(spec, file, port, cores=1, key="")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "replica.log")
        process = launch(command.argv, core=CONTENDER_CORE, log=log, environment=command.env)
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
            wait_http(f"http://127.0.0.1:{port}/health", process, log)
            found = []
            for number in range(rounds):
                try:
                    found.append(asyncio.run(one_round(f"http://127.0.0.1:{port}", process.pid, seconds, number)))
                except BenchmarkError as error:
                    print(f"round {number + 1} is left out: {error}\n", flush=True)
                else:
                    show(found[-1])
            if not found:
                raise BenchmarkError("no round could be measured")
            return found
        finally:
            stop(process)


def show(found: Round) -> None:
    """A table for people."""
    profile = found.profile
    print(
        f"first token {profile.prefill_fixed_ms:.1f} + {profile.prefill_ms_per_token:.3f} n + "
        f"{profile.prefill_ms_per_token2:.2g} n2 ms; step {profile.step_fixed_ms:.2f} + "
        f"{profile.step_ms_per_sequence:.2f} B + {profile.step_ms_per_context_token:.2g} S ms, from {found.batches} "
        f"batches; others took {found.others:.0%} of the replica's core"
    )
    print("clients  prompt  output    TPOT live  simulated   error    TTFT live  simulated   error")
    for each in found.compared:
        loop = each.loop
        print(
            f"{loop.clients:7} {loop.prompt:7} {loop.output:7} {each.live_tpot:12.1f} {each.simulated_tpot:10.1f} "
            f"{each.tpot_error:+7.0%} {each.live_ttft:12.0f} {each.simulated_ttft:10.0f} {each.ttft_error:+7.0%}"
        )
    print(flush=True)


def median_errors(rounds: Sequence[Round]) -> tuple[float, float]:
    """Medians of the absolute errors of TPOT and TTFT over all loops of all rounds."""
    compared = [each for found in rounds for each in found.compared]
    return (
        statistics.median(abs(each.tpot_error) for each in compared),
        statistics.median(abs(each.ttft_error) for each in compared),
    )


def main() -> int:
    """Exit code 0, 1 where the error is over its limit and `--check` was given, 2 where it cannot run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_model", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=90.0, help="of a sweep, at most")
    parser.add_argument("--nice", type=int, default=0, help="the replica's niceness; below 0 needs root")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help=f"fail above {LIMIT:.0%}")
    options = parser.parse_args()
    try:
        require_cores()
        os.sched_setaffinity(0, {LOAD_CORE})
        rounds = run(options.rounds, options.seconds, options.nice)
    except (BenchmarkError, SwellError, PermissionError) as error:
        print(error, file=sys.stderr)
        return 2
    tpot, ttft = median_errors(rounds)
    if options.json:
        options.json.write_text(json.dumps([asdict(found) for found in rounds], indent=1) + "\n")
    met = tpot <= LIMIT
    print(
        f"median error of the mean TPOT {tpot:.1%}, at most {LIMIT:.0%}: {'met' if met else 'NOT MET'}; TTFT {ttft:.1%}"
    )
    return 0 if met or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
