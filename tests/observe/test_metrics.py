"""Prometheus text over several workers."""

from swell.observe.metrics import METRICS, exposition, family


def test_samples_of_equal_name_and_labels_are_summed() -> None:
    text = exposition(
        [
            ("swell_refusals_total", (("model", "m"),), 2.0),
            ("swell_refusals_total", (("model", "m"),), 3.0),
            ("swell_refusals_total", (("model", 'a"\n\\'),), 1.0),
        ]
    ).decode()
    assert text.splitlines() == [
        "# HELP swell_refusals_total Requests that Swell itself refused, by error code.",
        "# TYPE swell_refusals_total counter",
        'swell_refusals_total{model="a\\"\\n\\\\"} 1',
        'swell_refusals_total{model="m"} 5',
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
