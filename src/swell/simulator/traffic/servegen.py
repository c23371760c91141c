"""Requests that were drawn from ServeGen's published rates and lengths (github.com/alibaba/ServeGen, arXiv 2505.09999).

ServeGen publishes per-client rate curves and length distributions, not requests. This is a request list made from them:

    arrival_ms     milliseconds from the start of the first day
    prompt_tokens  length of the prompt
    output_tokens  length of the answer
    client         number of the client that sends it
"""

from swell.simulator.traffic.format import Rows, TraceFormat, moments, needs, tokens
from swell.simulator.traffic.table import Chunk


def _rows(chunk: Chunk) -> Rows:
    return Rows(
        moments(chunk, "arrival_ms", per_second=1000),
        tokens(chunk, "prompt_tokens"),
        tokens(chunk, "output_tokens"),
        is_unix=False,
    )


SERVEGEN = TraceFormat(
    name="servegen",
    title="requests drawn from ServeGen",
    lacking=needs("arrival_ms", "prompt_tokens", "output_tokens", "client"),
    rows=_rows,
)
