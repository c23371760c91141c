"""Azure LLM inference traces of 2023 and 2024, and the multimodal trace of 2025.

Published at github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023.md and 2024.md,
AzureLMMInferenceDataset2025.md):

    TIMESTAMP        invocation time, such as `2023-11-16 18:17:03.9799600` or `2024-05-12 00:00:00.12+00:00`: with
                     a fraction of any length or none, and an offset or none (it is then taken as UTC).
    NumImages        2025 only: images in the request
    ContextTokens    number of context tokens
    GeneratedTokens  number of generated tokens

Images are not modelled: `ContextTokens` is the prompt. Rows with 0 generated tokens were served and count as 1.
"""

from swell.simulator.traffic.format import Rows, TraceFormat, needs, tokens
from swell.simulator.traffic.table import Chunk


def _rows(chunk: Chunk) -> Rows:
    return Rows(
        chunk.instants("timestamp"), tokens(chunk, "contexttokens"), tokens(chunk, "generatedtokens"), is_unix=True
    )  # fmt: skip


AZURE = TraceFormat(
    name="azure",
    title="Azure LLM inference trace (2023, 2024, 2025 multimodal)",
    lacking=needs("timestamp", "contexttokens", "generatedtokens"),
    rows=_rows,
    container="csv",
)
