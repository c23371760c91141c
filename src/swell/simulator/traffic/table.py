"""A trace file as columns, be it CSV, JSON lines or one JSON array. Read in chunks, so that memory is bounded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic.prefixes import PrefixColumn


class Chunk(Protocol):
    """Some rows of a file. Columns that the file lacks must not be asked for; wrong cells raise UserError."""

    def __len__(self) -> int: ...

    def has(self, column: str) -> bool:
        """Whether the file has the column; in JSON lines, whether this chunk's first row has it."""

    def is_number(self, column: str) -> bool:
        """Whether the first cell of the column is a number (and not a date)."""

    def numbers(self, column: str, *, missing: float | None = None) -> NDArray[np.float64]:
        """The column as numbers. An empty cell is `missing`; without that, it is an error."""

    def instants(self, column: str) -> NDArray[np.int64]:
        """The column's dates and times as nanoseconds since 1970, in UTC where they tell no offset."""

    def words(self, column: str) -> NDArray[np.str_]:
        """The column as text."""

    def prefixes(self, column: str) -> PrefixColumn:
        """The column's lists of block hashes. Only JSON has lists."""

    def wrong(self, row: int, column: str, why: str) -> UserError:
        """To be raised: names the file, the row's line in it, the column, and `why`, which also says what to do."""


@dataclass(frozen=True, slots=True)
class Table:
    """A file that has been opened far enough to know its columns."""

    path: Path
    is_csv: bool
    columns: tuple[str, ...]  # of the header, in lower case; or the keys of the first JSON object, as they are
    chunks: Iterator[Chunk]


def wrong(path: Path, place: str, column: str, why: str) -> UserError:
    """The error for one cell; `place` is such as `line 17`."""
    return UserError(f"{path}, {place}, column {column}: {why}")
