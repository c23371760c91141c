"""CSV with a header line. Cells are found and read for all rows of a chunk at once, with no object per row or cell."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic.numerals import PADDING, decimals, instants
from swell.simulator.traffic.prefixes import PrefixColumn
from swell.simulator.traffic.table import Chunk, Table, wrong

_SHOWN = 40  # characters of a wrong cell
_NEWLINE, _RETURN = b"\n\r"
_UNIT = b"\x1f"  # the ASCII unit separator, in place of the delimiter where cells are quoted


def open_csv(path: Path, texts: Iterator[bytes]) -> Table:
    """From the file's pieces of whole lines; reads the first of them."""
    first = next(texts)
    cut = first.find(b"\n")
    header, rest = (first, b"") if cut < 0 else (first[:cut], first[cut + 1 :])
    try:
        line = header.decode().strip()
    except UnicodeDecodeError:
        raise UserError(f"{path}, line 1: is not UTF-8 text; give CSV or JSON lines") from None
    delimiter = max(",;\t", key=line.count)  # the comma, unless another occurs more often
    names = tuple(name.strip() for name in next(csv.reader([line], delimiter=delimiter), []))
    columns = {name.lower(): place for place, name in enumerate(names)}
    if len(columns) != len(names):
        raise UserError(f"{path}, line 1: the header names a column twice; rename one of them")
    return Table(path, True, tuple(columns), _chunks(path, rest, texts, delimiter.encode(), names))


def _chunks(
    path: Path, rest: bytes, texts: Iterator[bytes], delimiter: bytes, names: tuple[str, ...]
) -> Iterator[Chunk]:
    line, text, is_last = 2, rest, False
    while not is_last:
        following = next(texts, None)
        is_last = following is None
        body = text.rstrip(b"\r\n") if is_last else text
        if body:
            chunk = CsvChunk(path, line, body if body.endswith(b"\n") else body + b"\n", delimiter, names)
            yield chunk
            line += len(chunk)
        text = following or b""


class CsvChunk:
    """Whole lines of a CSV file."""

    def __init__(self, path: Path, first_line: int, text: bytes, delimiter: bytes, names: tuple[str, ...]) -> None:
        self._path, self._first_line, self._names = path, first_line, names
        self._columns = {name.lower(): place for place, name in enumerate(names)}
        if b'"' in text:
            text, delimiter = self._unquoted(text, delimiter), _UNIT
        pad = b"\0" * PADDING
        self._buffer = np.frombuffer(pad + text + pad, dtype=np.uint8)
        is_newline = self._buffer == _NEWLINE
        ends = np.flatnonzero(is_newline | (self._buffer == ord(delimiter)))
        self._rows = int(np.count_nonzero(is_newline))
        width = len(names)
        if len(ends) != self._rows * width or not is_newline[ends[width - 1 :: width]].all():
            raise self._ragged(text, delimiter)
        self._starts = (np.concatenate(([PADDING - 1], ends[:-1])) + 1).reshape(-1, width)
        self._ends = ends.reshape(-1, width).copy()
        last = self._ends[:, -1]
        last -= (self._buffer[last - 1] == _RETURN) & (last > self._starts[:, -1])

    def _unquoted(self, text: bytes, delimiter: bytes) -> bytes:
        """The same lines without quotes. A quoted cell may hold the delimiter, but no line's end."""
        try:
            lines = text.decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            line = self._first_line + text.count(b"\n", 0, error.start)
            raise UserError(f"{self._path}, line {line}: is not UTF-8 text; give CSV or JSON lines") from None
        rows = (next(csv.reader([line], delimiter=delimiter.decode()), []) for line in lines)
        return "".join("\x1f".join(row) + "\n" for row in rows).encode()

    def _ragged(self, text: bytes, delimiter: bytes) -> UserError:
        for place, line in enumerate(text.split(b"\n")[:-1]):
            cells = line.count(delimiter) + 1
            if not line.strip():
                break
            if cells != len(self._names):
                why = f"has {cells} cells, but the header has {len(self._names)}; mend or remove the line"
                return UserError(f"{self._path}, line {self._first_line + place}: {why}")
        return UserError(f"{self._path}, line {self._first_line + place}: is empty; remove it")

    def __len__(self) -> int:
        return self._rows

    def has(self, column: str) -> bool:
        return column in self._columns

    def is_number(self, column: str) -> bool:
        return _is_number(self._cell(0, column))

    def numbers(self, column: str, *, missing: float | None = None) -> NDArray[np.float64]:
        starts, ends = self._spans(column)
        values, odd = decimals(self._buffer, starts, ends)
        for row in np.flatnonzero(odd).tolist():  # negative, in powers of ten, spaced, empty, very long, or wrong
            text = self._cell(row, column)
            if not text and missing is not None:
                values[row] = missing
            elif _is_number(text):
                values[row] = float(text)
            else:
                what = f"{text[:_SHOWN]!r} is not a number" if text else "is empty, a number is needed"
                raise self.wrong(row, column, f"{what}; mend or remove the line")
        return values

    def instants(self, column: str) -> NDArray[np.int64]:
        starts, ends = self._spans(column)
        values, odd = instants(self._buffer, starts, ends)
        for row in np.flatnonzero(odd).tolist():
            values[row] = self._instant(row, column)
        return values

    def _instant(self, row: int, column: str) -> int:
        text = self._cell(row, column)
        moment = moment_of(text)
        if moment is None:
            wanted = "a date and time such as 2023-11-16 18:17:03.9799600"
            raise self.wrong(row, column, f"{text[:_SHOWN]!r} is not {wanted}; mend or remove the line")
        return moment

    def words(self, column: str) -> NDArray[np.str_]:
        return np.array([self._cell(row, column) for row in range(len(self))], dtype=np.str_)

    def prefixes(self, column: str) -> PrefixColumn:
        raise self.wrong(0, column, "lists of block hashes cannot be read from CSV; give JSON lines")

    def wrong(self, row: int, column: str, why: str) -> UserError:
        return wrong(self._path, f"line {self._first_line + row}", self._names[self._columns[column]], why)

    def _spans(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        place = self._columns[column]
        return self._starts[:, place], self._ends[:, place]

    def _cell(self, row: int, column: str) -> str:
        starts, ends = self._spans(column)
        return self._buffer[starts[row] : ends[row]].tobytes().decode(errors="replace").strip()


def moment_of(text: str) -> int | None:
    """Any ISO 8601 date and time as nanoseconds since 1970 (to the microsecond), or None."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
