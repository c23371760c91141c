"""Qwen-Bailian usage traces of Alibaba Cloud Model Studio (to consumers, to businesses, coder, thinking).

Published at github.com/alibaba-edu/qwen-bailian-usagetraces-anon (README, "Data Specification"), JSON lines:

    chat_id         randomised
    parent_chat_id  -1 for the first turn of a conversation
    timestamp       seconds from the start of the trace
    input_length    tokens of the prompt
    output_length   tokens of the answer
    type            text, search, image or file
    turn            of the conversation, from 1
    hash_ids        salted hashes of the prompt's blocks of 16 tokens, remapped to sequential integers
"""

from swell.simulator.traffic.format import Rows, TraceFormat, moments, needs, tokens
from swell.simulator.traffic.table import Chunk


def _rows(chunk: Chunk) -> Rows:
    return Rows(
        moments(chunk, "timestamp"),
        tokens(chunk, "input_length"),
        tokens(chunk, "output_length"),
        is_unix=False,
        prefixes=chunk.prefixes("hash_ids"),
    )


BAILIAN = TraceFormat(
    name="bailian",
    title="Qwen-Bailian",
    lacking=needs("chat_id", "timestamp", "input_length", "output_length"),
    rows=_rows,
    container="json",
    block_tokens=16,
)
