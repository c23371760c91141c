"""Prometheus text over several workers."""

import re
from pathlib import Path

from swell.observe.metrics import BY_NAME, METRICS, exposition, family


def test_samples_of_equal_name_and_labels_are_summed() -> None:
    name = "swell_gateway_requests_total"
    text = exposition(
        [
            (name, (("outcome", "m"),), 2.0),
            (name, (("outcome", "m"),), 3.0),
            (name, (("outcome", 'a"\n\\'),), 1.0),
        ]
    ).decode()
    assert text.splitlines() == [
        f"# HELP {name} {BY_NAME[name].help}",
        "# TYPE swell_gateway_requests_total counter",
        'swell_gateway_requests_total{outcome="a\\"\\n\\\\"} 1',
        'swell_gateway_requests_total{outcome="m"} 5',
    ]


def test_a_histogram_is_one_family_with_its_buckets_in_order() -> None:
    name = "gen_ai_server_request_duration_seconds"
    samples = [(f"{name}_bucket", (("le", bound),), 1.0) for bound in ("+Inf", "10", "0.5", "2")]
    text = exposition([*samples, (f"{name}_sum", (), 1.5), (f"{name}_count", (), 1.0)]).decode()
    rows = [line for line in text.splitlines() if not line.startswith("#")]
    bounds = ['_bucket{le="0.5"}', '_bucket{le="2"}', '_bucket{le="10"}', '_bucket{le="+Inf"}']
    assert [row.rsplit(" ", 1)[0].removeprefix(name) for row in rows] == [*bounds, "_count", "_sum"]
    assert text.count("# TYPE") == 1


def test_nothing_is_exposed_as_nothing() -> None:
    assert exposition([]) == b""


def test_every_name_is_spelled_as_prometheus_wants() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert metric.name.startswith(metric.telemetry.replace(".", "_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert family(metric.name) == metric.name


def test_the_page_has_every_metric_with_its_labels() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", page, flags=re.MULTILINE)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), says) for name, kind, labels, says in rows]
    assert told == [(metric.name, metric.kind, metric.labels, metric.help) for metric in METRICS]
