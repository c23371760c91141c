"""The whole comparison: contenders alternate inside every round, so that a slow minute hurts them all alike."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.gateway import certificate
from benchmarks.gateway.contenders import CONTENDERS, Contender, Setup
from benchmarks.gateway.load import Plan
from benchmarks.gateway.measure import Measurement, Upstream, measure
from benchmarks.gateway.processes import BenchmarkError, free_port
from benchmarks.gateway.work import WORKS

TLS_PAIRS = {"nginx": "nginx+tls", "swell": "swell+tls"}
OPEN_LOOP_CONNECTIONS = 128
SLOW_CONTENDERS = frozenset({"litellm"})  # so few requests per second that a warm-up needs longer
SLOW_WARM_SECONDS = 3.0


@dataclass(frozen=True)
class Settings:
    """How much to run. Seconds are per measurement."""

    contenders: tuple[str, ...]
    rounds: int = 3
    seconds: float = 4.0
    warm_seconds: float = 1.0
    connections: int = 32
    tls: bool = True
    latency: bool = True
    writes: str = "rush"  # how the upstream lays events over writes, as in `swell.testing.upstream_script.Writes`
    seed: int = 1


@dataclass
class Outcome:
    """Measurements by name and kind of work; `missing` says why a contender did not run."""

    closed: dict[tuple[str, str], list[Measurement]] = field(default_factory=dict)
    half_load: dict[tuple[str, str], list[Measurement]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def measurements(self) -> Iterator[Measurement]:
        """All of them."""
        for runs in (*self.closed.values(), *self.half_load.values()):
            yield from runs

    def cpu_us(self, name: str, work: str, group: str = "all") -> float | None:
        """Median CPU time per request in microseconds; none where it was not measured."""
        values = [m.cpu_us[group] for m in self.closed.get((name, work), ()) if group in m.cpu_us]
        return median(values) if values else None

    def per_second(self, name: str, work: str) -> float | None:
        values = [m.per_second for m in self.closed.get((name, work), ())]
        return median(values) if values else None

    def added_ms(self, name: str, work: str, percentile: str) -> float | None:
        """Median over rounds of what `name` adds to direct at the same rate, in milliseconds."""
        mine, direct = self.half_load.get((name, work), []), self.half_load.get(("direct", work), [])
        added = [a.latency_ms[percentile] - b.latency_ms[percentile] for a, b in zip(mine, direct, strict=True)]
        return median(added) if added else None


@contextmanager
def laboratory(script: str = "{}") -> Iterator[tuple[Upstream, Setup]]:
    """A folder, a certificate and a running upstream, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="swell-bench-"))
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        port = free_port()
        upstream = Upstream(port, folder, script)
        cleanup.callback(upstream.stop)
        yield upstream, Setup(port, folder, *certificate.make(folder))


def start(names: Sequence[str], setup: Setup, cleanup: ExitStack, missing: dict[str, str]) -> dict[str, Contender]:
    """Those contenders that can run here; the others get an entry in `missing`."""
    running = {}
    for name in names:
        contender = CONTENDERS[name](setup)
        cleanup.callback(contender.stop)
        try:
            contender.start()
        except BenchmarkError as error:
            missing[name] = str(error)
            contender.stop()
            continue
        running[name] = contender
    return running


def run(settings: Settings, say: Callable[[str], None]) -> Outcome:
    """Everything, in order: closed loops, TLS, latency at half of Swell's throughput."""
    outcome = Outcome()
    # A pair's two halves run one after the other, since their difference is what counts.
    pairs = TLS_PAIRS if settings.tls else {}
    names = [each for name in settings.contenders for each in (name, pairs.get(name)) if each]
    with laboratory(json.dumps({"writes": settings.writes})) as (upstream, setup), ExitStack() as cleanup:
        running = start(names, setup, cleanup, outcome.missing)
        for name, reason in outcome.missing.items():
            say(f"without {name}: {reason}")
        for number in range(settings.rounds):
            order = _rotated(list(running), number)
            for work in WORKS:
                for name in order:
                    plan = _plan(settings, name, running[name], work)
                    result = measure(name, running[name], plan, upstream)
                    outcome.closed.setdefault((name, work), []).append(result)
                    say(_line(number, result))
        if settings.latency:
            _half_load(settings, running, upstream, outcome, say)
    return outcome


def _half_load(
    settings: Settings,
    running: dict[str, Contender],
    upstream: Upstream,
    outcome: Outcome,
    say: Callable[[str], None],
) -> None:
    """Direct, nginx and Swell at one rate: half of what Swell (without it, nginx) carried in the closed loop."""
    names = [name for name in ("direct", "nginx", "swell") if name in running]
    reference = names[-1]
    for work in WORKS:
        carried = outcome.per_second(reference, work)
        if reference == "direct" or "direct" not in names or not carried:
            say(f"no latency at half load for {work}: it needs direct and a gateway to compare")
            continue
        for number in range(settings.rounds):
            for name in names:
                plan = _plan(settings, name, running[name], work, rate=carried / 2, seed=settings.seed + number)
                result = measure(name, running[name], plan, upstream)
                outcome.half_load.setdefault((name, work), []).append(result)
                say(_line(number, result, f" at half load, p99 {result.latency_ms['p99']:.2f} ms"))


def _plan(settings: Settings, name: str, contender: Contender, work: str, *, rate: float = 0.0, seed: int = 1) -> Plan:
    warm = max(SLOW_WARM_SECONDS, settings.warm_seconds) if name in SLOW_CONTENDERS else settings.warm_seconds
    return Plan(
        port=contender.port,
        work=work,
        key=contender.key,
        tls=contender.tls,
        connections=OPEN_LOOP_CONNECTIONS if rate else settings.connections,
        warm_seconds=warm,
        seconds=settings.seconds,
        rate=rate,
        seed=seed,
    )


def _rotated(names: list[str], number: int) -> list[str]:
    shift = number % max(1, len(names))
    return names[shift:] + names[:shift]


def _line(number: int, result: Measurement, more: str = "") -> str:
    cpu = ", ".join(f"{group} {value:.1f}" for group, value in result.cpu_us.items())
    errors = f", errors {dict(result.errors)}" if result.errors else ""
    return (
        f"round {number + 1}: {result.work:6} {result.contender:13} {result.per_second:9,.0f}/s"
        f"{', CPU µs ' + cpu if cpu else ''}, load core {result.load_core:.0%}{more}{errors}"
    )
