"""The prompts' block hashes of a whole trace as one flat column; a request's tuple is made when it is asked for.

A trace of a few ten thousand long conversations holds many million hashes: as tuples of Python integers they take a
gigabyte, as this column 8 bytes each.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

Blocks = tuple[int, ...]

_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: the increment of Vigna's splitmix64


class PrefixColumn(Sequence[Blocks]):
    """Per request, the hashes of its prompt's leading blocks."""

    __slots__ = ("_ends", "_hashes")

    def __init__(self, hashes: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._hashes = hashes
        self._ends = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        if self._ends[-1] != len(hashes):
            raise ValueError("the counts of a prefix column must add up to its hashes")

    @classmethod
    def of(cls, blocks: Iterable[Iterable[int]]) -> "PrefixColumn":
        """From tuples or lists. Hashes of more than 63 bits keep their lowest 63."""
        rows = [list(row) for row in blocks]
        flat = [value for row in rows for value in row]
        try:
            hashes = np.array(flat, dtype=np.int64)
        except OverflowError:
            hashes = np.array([value & (2**63 - 1) for value in flat], dtype=np.int64)
        return cls(hashes, np.array([len(row) for row in rows], dtype=np.int64))

    @classmethod
    def joined(cls, columns: Iterable["PrefixColumn"]) -> "PrefixColumn":
        """One after the other."""
        parts = list(columns)
        empty = np.empty(0, dtype=np.int64)
        return cls(
            np.concatenate([empty, *(part._hashes for part in parts)]),
            np.concatenate([empty, *(part._counts for part in parts)]),
        )

    @property
    def _counts(self) -> NDArray[np.int64]:
        return np.diff(self._ends)

    @property
    def blocks(self) -> int:
        """Over all requests."""
        return len(self._hashes)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Blocks: ...
    @overload
    def __getitem__(self, index: slice) -> "PrefixColumn": ...
    def __getitem__(self, index: int | slice) -> "Blocks | PrefixColumn":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        place = range(len(self))[index]
        return tuple(self._hashes[self._ends[place] : self._ends[place + 1]].tolist())

    def __iter__(self) -> Iterator[Blocks]:
        return map(self.__getitem__, range(len(self)))

    def take(self, order: NDArray[np.int64]) -> "PrefixColumn":
        """The requests at these places, in this order."""
        counts = self._counts[order]
        ends = np.cumsum(counts)
        # The hash at place j of the result lies in the row r it belongs to, as far from its row's start as before.
        shifts = np.repeat(self._ends[:-1][order] - (ends - counts), counts)
        return PrefixColumn(self._hashes[shifts + np.arange(len(shifts))], counts)

    def renamed(self, copy: int) -> "PrefixColumn":
        """Other hashes, equal exactly where these are equal: another user's texts. Copy 0 keeps them."""
        return PrefixColumn(self._hashes ^ np.int64(_scattered(copy)), self._counts) if copy else self


def _scattered(number: int) -> int:
    """63 bits, far apart for any two numbers: the output function of splitmix64."""
    z = number * _GOLDEN % _WORD
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % _WORD
    return (z ^ (z >> 31)) & (2**63 - 1)
