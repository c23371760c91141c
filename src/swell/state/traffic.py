"""Requests over time, as columns. What traces hold, what the simulator replays, what forecasts learn from."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests in order of arrival. Columns have equal length.

    `arrival_seconds` counts from the start of the trace and never falls. Tokens are at least 1. `prefix_blocks` holds,
    per request, the hashes of its prompt's leading blocks of `block_tokens` tokens, equal leading hashes meaning equal
    text; empty where the trace does not tell. `start_unix` is when the trace begins, where it tells (for times of day
    and days of the week), else None. `batch` says which requests are of priority batch; None: none of them.
    """

    arrival_seconds: NDArray[np.float64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    prefix_blocks: Sequence[tuple[int, ...]] = field(default=())
    block_tokens: int = 512
    start_unix: float | None = None
    name: str = ""
    batch: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        count = len(self.arrival_seconds)
        if len(self.prompt_tokens) != count or len(self.output_tokens) != count:
            raise ValueError("the columns of a trace must have equal length")
        if self.prefix_blocks and len(self.prefix_blocks) != count:
            raise ValueError("prefix_blocks must be empty or as long as the other columns")
        if self.batch is not None and len(self.batch) != count:
            raise ValueError("batch must be None or as long as the other columns")
        if count and (np.any(np.diff(self.arrival_seconds) < 0) or self.arrival_seconds[0] < 0):
            raise ValueError("arrivals must not go back in time")
        if count and (self.prompt_tokens.min() < 1 or self.output_tokens.min() < 1):
            raise ValueError("every request has at least one prompt token and one output token")

    def __len__(self) -> int:
        return len(self.arrival_seconds)

    @property
    def batch_count(self) -> int:
        """Requests of priority batch."""
        return 0 if self.batch is None else int(self.batch.sum())

    @property
    def seconds(self) -> float:
        """From the start of the trace to its last arrival."""
        return float(self.arrival_seconds[-1]) if len(self) else 0.0
