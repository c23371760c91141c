"""What a worker counts, as samples that the server sums over workers. Names are Prometheus spellings of
OpenTelemetry's GenAI conventions where one exists, else `swell_*`."""

from bisect import bisect_left

from swell.state.messages import Sample

# Bucket bounds in seconds, from OpenTelemetry's GenAI semantic conventions.
DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_BUCKETS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
OVERHEAD_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1, 1.0, 10.0)

_DURATION = "gen_ai_server_request_duration_seconds"
_FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - a metric's name
_PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"  # noqa: S105 - a metric's name
_OVERHEAD = "swell_gateway_overhead_seconds"


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def samples(self, name: str, labels: tuple[tuple[str, str], ...]) -> list[Sample]:
        found: list[Sample] = []
        running = 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            le = "+Inf" if bound is None else f"{bound:g}"
            found.append(Sample(f"{name}_bucket", (*labels, ("le", le)), running))
        found.append(Sample(f"{name}_sum", labels, self.total))
        found.append(Sample(f"{name}_count", labels, running))
        return found


class _Series:
    __slots__ = ("completion_tokens", "duration", "first_token", "overhead", "per_token", "prompt_tokens")

    def __init__(self) -> None:
        self.duration = _Histogram(DURATION_BUCKETS)
        self.first_token = _Histogram(FIRST_TOKEN_BUCKETS)
        self.per_token = _Histogram(FIRST_TOKEN_BUCKETS)
        self.overhead = _Histogram(OVERHEAD_BUCKETS)
        self.prompt_tokens = 0
        self.completion_tokens = 0


class Counters:
    """Monotonic counts since the worker started. Series are bounded: models x endpoints x statuses."""

    def __init__(self) -> None:
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._outcomes: dict[str, int] = {}
        self.retries = 0

    def finished(
        self,
        model: str,
        endpoint: str,
        status: int,
        *,
        seconds: float,
        overhead_seconds: float,
        first_token_seconds: float,
        prompt_tokens: int,
        completion_tokens: int,
    ) -> None:
        """A request that reached a replica has ended. `first_token_seconds` is negative without one."""
        key = (model, endpoint, status)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
        duration, overhead = series.duration, series.overhead
        duration.counts[bisect_left(DURATION_BUCKETS, seconds)] += 1
        duration.total += seconds
        overhead.counts[bisect_left(OVERHEAD_BUCKETS, overhead_seconds)] += 1
        overhead.total += overhead_seconds
        if first_token_seconds >= 0:  # streams only: elsewhere the first token comes with the last
            series.first_token.observe(first_token_seconds)
            if completion_tokens > 1:
                series.per_token.observe((seconds - first_token_seconds) / (completion_tokens - 1))
        series.prompt_tokens += prompt_tokens
        series.completion_tokens += completion_tokens

    def outcome(self, code: str) -> None:
        """How a request ended; `code` is from a fixed set: settled, estimated, void, or a refusal's code."""
        self._outcomes[code] = self._outcomes.get(code, 0) + 1

    def samples(self) -> tuple[Sample, ...]:
        """Everything, for the server."""
        found: list[Sample] = []
        for (model, endpoint, status), series in self._series.items():
            labels = (("gen_ai_request_model", model), ("endpoint", endpoint), ("status", str(status)))
            found += series.duration.samples(_DURATION, labels)
            found += series.first_token.samples(_FIRST_TOKEN, labels)
            found += series.per_token.samples(_PER_TOKEN, labels)
            found += series.overhead.samples(_OVERHEAD, labels)
            found.append(Sample("gen_ai_client_usage_input_tokens_total", labels, series.prompt_tokens))
            found.append(Sample("gen_ai_client_usage_output_tokens_total", labels, series.completion_tokens))
        for code, count in self._outcomes.items():
            found.append(Sample("swell_gateway_requests_total", (("outcome", code),), count))
        found.append(Sample("swell_gateway_retries_total", (), self.retries))
        return tuple(found)
