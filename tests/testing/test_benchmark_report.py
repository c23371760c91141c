"""The bars are computed from medians as `docs/benchmarks.md` says."""

from benchmarks.gateway.measure import Measurement
from benchmarks.gateway.memory import slope
from benchmarks.gateway.report import bars
from benchmarks.gateway.suite import Outcome


def measured(name: str, work: str, cpu_us: float, *, p50: float = 1.0, errors: int = 0) -> Measurement:
    return Measurement(
        contender=name,
        work=work,
        per_second=1000.0,
        completed=1000,
        errors={"status 500": errors} if errors else {},
        latency_ms={"p50": p50, "p90": p50, "p99": p50 * 2, "max": p50 * 3},
        cpu_us={"all": cpu_us, "worker": cpu_us / 2},
        load_core=0.5,
        contender_core=0.5,
        foreign_core=0.0,
    )


def outcome(swell_cpu_us: float, *, errors: int = 0) -> Outcome:
    found = Outcome()
    for work in ("json", "stream"):
        cpu = {"nginx": 20.0, "swell": swell_cpu_us, "vllm-router": 100.0, "sglang-router": 90.0}
        cpu |= {"nginx+tls": 24.0, "swell+tls": swell_cpu_us + 4.5}
        for name, value in cpu.items():
            values = (value, value * 3, value)  # one slow round must not show
            found.closed[name, work] = [measured(name, work, each, errors=errors) for each in values]
        for name, p50 in (("direct", 1.0), ("swell", 1.4)):
            found.half_load[name, work] = [measured(name, work, 1.0, p50=p50)] * 3
    return found


def test_every_bar_is_met_by_a_cheap_gateway() -> None:
    assert {bar.name: bar.verdict for bar in bars(outcome(25.0)) if bar.verdict != "met"} == {}


def test_a_dear_gateway_misses_the_bars_it_misses() -> None:
    values = {bar.name: (round(bar.value or 0, 2), bar.verdict) for bar in bars(outcome(60.0))}
    assert values["json: CPU time ÷ nginx's"] == (3.0, "NOT MET")
    assert values["json: CPU time ÷ the best Rust router's"] == (0.67, "NOT MET")
    assert values["json: CPU time that TLS adds ÷ what it adds to nginx"] == (1.12, "met")
    assert values["json: latency added at half load, p50"] == (0.4, "met")
    assert values["json: latency added at half load, p99"] == (0.8, "met")


def test_errors_miss_their_bar() -> None:
    assert next(bar for bar in bars(outcome(25.0, errors=1)) if bar.name == "errors").verdict == "NOT MET"


def test_what_did_not_run_is_not_judged() -> None:
    found = outcome(25.0)
    del found.closed["nginx", "json"]
    verdicts = {bar.name: bar.verdict for bar in bars(found)}
    assert verdicts["json: CPU time ÷ nginx's"] == "not measured"
    assert verdicts["stream: CPU time ÷ nginx's"] == "met"


def test_the_slope_leaves_out_the_settling() -> None:
    settling = [(number * 100, 10**6 + number * 10**5) for number in range(5)]
    flat = [(number * 100, 2 * 10**6 + number * 300) for number in range(5, 20)]
    assert round(slope([*settling, *flat]), 6) == 3.0
