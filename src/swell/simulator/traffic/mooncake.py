"""Mooncake traces of Kimi (conversation, toolagent, synthetic, and the one of the arXiv paper).

Published at github.com/kvcache-ai/Mooncake (FAST25-release/traces), JSON lines:

    timestamp      milliseconds from the start of the trace
    input_length   tokens of the prompt
    output_length  tokens of the answer
    hash_ids       of the prompt's blocks of 512 tokens, remapped; equal leading ids mean equal text. Load generators
                   that write the same schema leave it out where prompts share nothing.
"""

from swell.simulator.traffic.format import Rows, TraceFormat, moments, needs, tokens
from swell.simulator.traffic.table import Chunk


def _rows(chunk: Chunk) -> Rows:
    return Rows(
        moments(chunk, "timestamp", per_second=1000),
        tokens(chunk, "input_length"),
        tokens(chunk, "output_length"),
        is_unix=False,
        prefixes=chunk.prefixes("hash_ids"),
    )


MOONCAKE = TraceFormat(
    name="mooncake",
    title="Mooncake",
    lacking=needs("timestamp", "input_length", "output_length"),
    rows=_rows,
    container="json",
    block_tokens=512,
)
