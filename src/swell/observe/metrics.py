"""Every metric's name, once: OpenTelemetry's, and how Prometheus spells it.

OpenTelemetry's GenAI conventions name a metric with dots and a unit; Prometheus wants underscores, the
unit and `_total` in the name. Swell counts under the Prometheus spelling (that is what a `Sample` of the
control channel carries) and keeps the other beside it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True)
class Metric:
    """`telemetry` is OpenTelemetry's name, `name` Prometheus's. `labels` are all that its samples have."""

    telemetry: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_ANSWERED = ("gen_ai_request_model", "endpoint", "status")
METRICS = (
    Metric("gen_ai.server.request.duration", "gen_ai_server_request_duration_seconds", "histogram",
           "From a request's arrival to the end of its response.", _ANSWERED),
    Metric("gen_ai.server.time_to_first_token", "gen_ai_server_time_to_first_token_seconds", "histogram",
           "From a request's arrival to the first content of its stream.", _ANSWERED),
    Metric("gen_ai.server.time_per_output_token", "gen_ai_server_time_per_output_token_seconds", "histogram",
           "Mean time between output tokens of a stream after the first.", _ANSWERED),
    Metric("gen_ai.client.usage.input_tokens", "gen_ai_client_usage_input_tokens_total", "counter",
           "Prompt tokens of requests that have ended.", _ANSWERED),
    Metric("gen_ai.client.usage.output_tokens", "gen_ai_client_usage_output_tokens_total", "counter",
           "Completion tokens of requests that have ended.", _ANSWERED),
    Metric("swell.gateway.overhead", "swell_gateway_overhead_seconds", "histogram",
           "From a request's arrival until it was first sent to a replica, what it waited included.", _ANSWERED),
    Metric("swell.gateway.requests", "swell_gateway_requests_total", "counter",
           "Requests that have ended: settled, estimated or void as in the ledger, or the code of the error.",
           ("outcome",)),
    Metric("swell.gateway.retries", "swell_gateway_retries_total", "counter", "Tries on another replica."),
    Metric("swell.gateway.connections", "swell_gateway_connections", "gauge", "Connections of clients."),
    Metric("swell.in_flight", "swell_in_flight", "gauge", "Requests that were sent to replicas.", ("model",)),
    Metric("swell.queued", "swell_queued", "gauge", "Requests waiting for a replica.", ("model",)),
    Metric("swell.replica.in_flight", "swell_replica_in_flight", "gauge", "Requests at a replica.",
           ("model", "replica")),
    Metric("swell.replica.outstanding_tokens", "swell_replica_outstanding_tokens", "gauge",
           "Upper bound of the tokens that a replica still has to process.", ("model", "replica")),
    Metric("swell.replica.ejected", "swell_replica_ejected", "gauge", "Gateway workers that avoid a replica.",
           ("model", "replica")),
    Metric("swell.server.replicas", "swell_server_replicas", "gauge", "Replicas by model and phase.",
           ("model", "phase")),
    Metric("swell.server.workers", "swell_server_workers", "gauge", "Gateway workers that are connected."),
    Metric("swell.server.store_seconds", "swell_server_store_seconds", "gauge",
           "How long the last write to the store took."),
    Metric("swell.server.refused_connections", "swell_server_refused_connections_total", "counter",
           "Connections to `server.gateways` from addresses that open more than they prove to be a gateway's."),
    Metric("swell.server.up", "swell_server_up", "gauge", "1 while the server runs."),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}
_PARTS = ("_bucket", "_sum", "_count")

Labels = tuple[tuple[str, str], ...]


def family(sample_name: str) -> str:
    """The metric that a sample belongs to: `x_bucket`, `x_sum` and `x_count` are of histogram `x`."""
    for part in _PARTS:
        base = sample_name.removesuffix(part)
        if base != sample_name and (base not in BY_NAME or BY_NAME[base].kind == "histogram"):
            return base
    return sample_name


def exposition(samples: Iterable[tuple[str, Labels, float]]) -> bytes:
    """Prometheus text of `samples`; those of equal name and labels are summed."""
    totals: dict[tuple[str, Labels], float] = {}
    for name, labels, value in samples:
        key = (name, tuple(labels))
        totals[key] = totals.get(key, 0.0) + value
    families: dict[str, list[str]] = {}
    for (name, labels), value in sorted(totals.items(), key=lambda item: (family(item[0][0]), _order(*item[0]))):
        families.setdefault(family(name), []).append(f"{name}{_braces(labels)} {_number(value)}")
    lines: list[str] = []
    for base, rows in families.items():
        metric = BY_NAME.get(base)
        if metric:
            lines += [f"# HELP {base} {metric.help}", f"# TYPE {base} {metric.kind}"]
        lines += rows
    return ("\n".join(lines) + "\n").encode() if lines else b""


def _order(name: str, labels: Labels) -> tuple[tuple[tuple[str, str], ...], str, float]:
    """Buckets of one histogram in rising order of their bound, as Prometheus expects."""
    bound = next((value for label, value in labels if label == "le"), "")
    others = tuple(pair for pair in labels if pair[0] != "le")
    return others, name, float("inf") if bound in ("", "+Inf") else float(bound)


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels)
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
