"""Tables of medians, and the bars: what the figures must be, and whether they are."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gateway.contenders import RUST_ROUTERS
from benchmarks.gateway.suite import TLS_PAIRS, Outcome, Settings
from benchmarks.gateway.work import CHUNKS, WORKS

NGINX_RATIO = {"json": 2.5, "stream": 1.3}
ROUTER_RATIO = 0.6
TLS_RATIO = 1.25
ADDED_MS = {"p50": 0.5, "p99": 3.0}
FOREIGN_SHARE = 0.05  # of the contender's core, used by others, from which figures are not to be trusted


@dataclass(frozen=True)
class Bar:
    """One thing that is promised. `value` is none where something that it needs did not run."""

    name: str
    value: float | None
    limit: float
    unit: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.limit else "NOT MET"


def bars(outcome: Outcome) -> list[Bar]:
    """Every bar. Swell's CPU time is that of worker and server together."""
    found = []
    for work in WORKS:
        swell, nginx = outcome.cpu_us("swell", work), outcome.cpu_us("nginx", work)
        routers = [cpu for name in RUST_ROUTERS if (cpu := outcome.cpu_us(name, work))]
        best = min(routers) if routers else None
        found.append(Bar(f"{work}: CPU time ÷ nginx's", _ratio(swell, nginx), NGINX_RATIO[work]))
        found.append(Bar(f"{work}: CPU time ÷ the best Rust router's", _ratio(swell, best), ROUTER_RATIO))
    for work in WORKS:
        mine, nginx = _tls_added(outcome, "swell", work), _tls_added(outcome, "nginx", work)
        found.append(Bar(f"{work}: CPU time that TLS adds ÷ what it adds to nginx", _ratio(mine, nginx), TLS_RATIO))
    for work in WORKS:
        for percentile, limit in ADDED_MS.items():
            added = outcome.added_ms("swell", work, percentile)
            found.append(Bar(f"{work}: latency added at half load, {percentile}", added, limit, " ms"))
    errors = sum(sum(m.errors.values()) for runs in outcome.closed.values() for m in runs if m.contender == "swell")
    found.append(Bar("errors", float(errors) if outcome.per_second("swell", "json") else None, 0))
    return found


def show(outcome: Outcome, settings: Settings, console: Console) -> None:
    """Print everything."""
    for work in WORKS:
        console.print(_closed_table(outcome, work, settings))
    if settings.tls:
        console.print(_tls_table(outcome))
    if outcome.half_load:
        console.print(_latency_table(outcome))
    table = Table("bar", "value", "limit", "", title="Bars")
    for bar in bars(outcome):
        value = "" if bar.value is None else f"{bar.value:.2f}{bar.unit}"
        table.add_row(bar.name, value, f"{bar.limit:g}{bar.unit}", bar.verdict)
    console.print(table)
    for name, reason in outcome.missing.items():
        console.print(f"without {name}: {reason}", markup=False)
    foreign = max((m.foreign_core for m in outcome.measurements()), default=0.0)
    if foreign > FOREIGN_SHARE:
        console.print(f"Others used up to {foreign:.0%} of the contender's core: run again on a quiet machine.")


def document(outcome: Outcome, settings: Settings, machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, for `--json`."""
    return {
        "machine": machine,
        "settings": asdict(settings),
        "closed_loop": [asdict(m) for runs in outcome.closed.values() for m in runs],
        "half_load": [asdict(m) for runs in outcome.half_load.values() for m in runs],
        "bars": [{**asdict(bar), "verdict": bar.verdict} for bar in bars(outcome)],
        "missing": outcome.missing,
    }


def _closed_table(outcome: Outcome, work: str, settings: Settings) -> Table:
    what = "JSON requests" if work == "json" else f"Streams of {CHUNKS} chunks"
    table = Table(title=f"{what}, {settings.connections} connections, median of {settings.rounds}")
    for column in ("", "CPU µs", "÷ nginx", "÷ best router", "per second", "p50 ms", "p99 ms", "own core", "load core"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    table.add_column("errors", justify="right")
    nginx = outcome.cpu_us("nginx", work)
    routers = [cpu for name in RUST_ROUTERS if (cpu := outcome.cpu_us(name, work))]
    for label, name, group in _rows(outcome, work):
        runs = outcome.closed[name, work]
        cpu = outcome.cpu_us(name, work, group)
        middle = sorted(runs, key=lambda m: m.per_second)[len(runs) // 2]
        table.add_row(
            label,
            _number(cpu, 1),
            _number(_ratio(cpu, nginx), 2),
            _number(_ratio(cpu, min(routers, default=None)), 2),
            f"{outcome.per_second(name, work) or 0:,.0f}",
            _number(middle.latency_ms["p50"], 2),
            _number(middle.latency_ms["p99"], 2),
            f"{middle.contender_core:.0%}" if cpu is not None else "",
            f"{middle.load_core:.0%}",
            str(sum(sum(m.errors.values()) for m in runs)),
        )
    return table


def _rows(outcome: Outcome, work: str) -> Iterator[tuple[str, str, str]]:
    """Label, contender and group of processes of each row."""
    for name, found in outcome.closed:
        if found == work and name not in TLS_PAIRS.values():
            groups = list(outcome.closed[name, work][0].cpu_us) or ["all"]
            for group in groups:
                yield (name if group == "all" else f"  its {group} alone"), name, group


def _tls_table(outcome: Outcome) -> Table:
    columns = ("", "work", "plain CPU µs", "TLS CPU µs", "added", "added ÷ plain", "TLS per second")
    table = Table(*columns, title="What TLS 1.3 adds")
    for name, secured in TLS_PAIRS.items():
        for work in WORKS:
            plain, tls = outcome.cpu_us(name, work), outcome.cpu_us(secured, work)
            if tls is not None:
                added = _tls_added(outcome, name, work)
                share = "" if added is None or not plain else f"{added / plain:+.0%}"
                rate = f"{outcome.per_second(secured, work):,.0f}"
                table.add_row(name, work, _number(plain, 1), _number(tls, 1), _number(added, 1), share, rate)
    return table


def _latency_table(outcome: Outcome) -> Table:
    table = Table("", "work", "rate", "p50 ms", "p99 ms", "added p50", "added p99", title="Latency at half load")
    for (name, work), runs in outcome.half_load.items():
        middle = sorted(runs, key=lambda m: m.latency_ms["p50"])[len(runs) // 2]
        p50, p99 = (_number(outcome.added_ms(name, work, part), 3) for part in ADDED_MS)
        table.add_row(
            name, work, f"{middle.per_second:,.0f}/s",
            _number(middle.latency_ms["p50"], 3), _number(middle.latency_ms["p99"], 3), p50, p99,
        )  # fmt: skip
    return table


def _tls_added(outcome: Outcome, name: str, work: str) -> float | None:
    plain, tls = outcome.cpu_us(name, work), outcome.cpu_us(TLS_PAIRS[name], work)
    return None if plain is None or tls is None else tls - plain


def _ratio(value: float | None, base: float | None) -> float | None:
    return None if value is None or not base or base < 0 else value / base


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
