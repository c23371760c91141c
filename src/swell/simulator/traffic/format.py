"""What a trace format is: the columns by which it is known, and how they become requests."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swell.simulator.traffic.prefixes import PrefixColumn
from swell.simulator.traffic.table import Chunk

MAX_TOKENS = 10_000_000  # of a prompt or an output: ten times what any model takes, and a day of decoding
SECOND_NS = 1_000_000_000

_MAX_SECONDS = 9e9  # either way from 1970, in nanoseconds inside 64 bits; ends in the year 2255


@dataclass(frozen=True, slots=True)
class Rows:
    """Requests of one chunk, in the file's order. Tokens may be 0; who puts the chunks together makes them 1.

    Arrivals are nanoseconds, so that a date's 100 ns survive: since 1970 if `is_unix`, else since any moment.
    """

    arrival_ns: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    is_unix: bool
    prefixes: PrefixColumn | None = None
    batch: NDArray[np.bool_] | None = None  # which are of priority batch; None: nothing is said of that

    def only(self, keep: NDArray[np.bool_]) -> "Rows":
        """The rows that are kept."""
        prefixes = None if self.prefixes is None else self.prefixes.take(np.flatnonzero(keep))
        batch = None if self.batch is None else self.batch[keep]
        return Rows(
            self.arrival_ns[keep], self.prompt_tokens[keep], self.output_tokens[keep], self.is_unix, prefixes, batch
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TraceFormat:
    """One published schema."""

    name: str  # as users write it after --format
    title: str
    lacking: Callable[[Collection[str]], list[str]]  # of the columns it needs, those that a file has not
    rows: Callable[[Chunk], Rows]
    container: Literal["csv", "json"] | None = None  # None: either
    block_tokens: int = 512  # of one hash


def needs(*columns: str) -> Callable[[Collection[str]], list[str]]:
    """A format that needs all of these columns."""
    return lambda present: [column for column in columns if column not in present]


def tokens(chunk: Chunk, column: str, *, missing: float | None = None) -> NDArray[np.int32]:
    """A column of token counts."""
    values = chunk.numbers(column, missing=missing)
    wrong = (values < 0) | (values > MAX_TOKENS) | (values != np.floor(values))
    if wrong.any():
        row = int(np.argmax(wrong))
        if values[row] > MAX_TOKENS:
            said = f"{values[row]:,.0f} tokens are more than the {MAX_TOKENS:,} that a prompt or an answer may have"
            raise chunk.wrong(row, column, f"{said}; mend or remove the line")
        raise chunk.wrong(row, column, f"{values[row]:g} is not a number of tokens; mend or remove the line")
    return values.astype(np.int32)


def moments(chunk: Chunk, column: str, *, per_second: int = 1) -> NDArray[np.int64]:
    """A column of numeric times, of which `per_second` make a second, in nanoseconds."""
    values = chunk.numbers(column)
    wrong = np.abs(values) > _MAX_SECONDS * per_second
    if wrong.any():
        row = int(np.argmax(wrong))
        raise chunk.wrong(row, column, f"{values[row]:g} is no time of this trace; mend or remove the line")
    # Whole units are exact in 64 bits where a product of floats is not.
    whole = np.floor(values)
    unit = SECOND_NS // per_second
    return whole.astype(np.int64) * unit + np.rint((values - whole) * unit).astype(np.int64)
