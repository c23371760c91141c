"""JSON lines, or one JSON array of objects (as `swell usage --json` prints it), as columns."""

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from swell.errors import UserError
from swell.simulator.traffic.csv_table import moment_of
from swell.simulator.traffic.prefixes import PrefixColumn
from swell.simulator.traffic.table import Chunk, Table, wrong

_OBJECTS = 20_000  # of an array, in one chunk
_ARRAY_OBJECT_CHARACTERS = 16 * 1024 * 1024  # no object of an array is longer
_SPACE = " \t\r\n"
_SHOWN = 40  # characters of a wrong value

Row = dict[str, Any]


def open_json_lines(path: Path, texts: Iterator[bytes]) -> Table:
    """From the file's pieces of whole lines; reads the first of them."""
    return _opened(path, _chunks_of_lines(path, texts))


def open_json_array(path: Path, texts: Iterator[bytes]) -> Table:
    """From the file's pieces; reads the first of them."""
    return _opened(path, _chunks_of_array(path, texts))


def _opened(path: Path, chunks: Iterator["JsonChunk"]) -> Table:
    first = next(chunks, None)
    if first is None:
        return Table(path, False, (), iter(()))
    return Table(path, False, first.keys, _with_first(first, chunks))


def _with_first(first: "JsonChunk", others: Iterator["JsonChunk"]) -> Iterator[Chunk]:
    yield first
    yield from others


def _chunks_of_lines(path: Path, texts: Iterator[bytes]) -> Iterator["JsonChunk"]:
    decoder = msgspec.json.Decoder(Row)
    line = 0
    for text in texts:
        rows: list[Row] = []
        places: list[str] = []
        for part in text.removesuffix(b"\n").split(b"\n"):
            line += 1
            if not part or part.isspace():
                continue
            try:
                rows.append(decoder.decode(part))
            except msgspec.DecodeError as error:
                why = f"is not one JSON object ({error}); give one object a line, or one array of objects"
                raise UserError(f"{path}, line {line}: {why}") from None
            places.append(f"line {line}")
        if rows:
            yield JsonChunk(path, places, rows)


def _chunks_of_array(path: Path, texts: Iterator[bytes]) -> Iterator["JsonChunk"]:
    rows: list[Row] = []
    done = 0
    for row in _objects(path, texts):
        rows.append(row)
        if len(rows) == _OBJECTS:
            yield JsonChunk(path, [f"record {done + place + 1}" for place in range(len(rows))], rows)
            done += len(rows)
            rows = []
    if rows:
        yield JsonChunk(path, [f"record {done + place + 1}" for place in range(len(rows))], rows)


def _objects(path: Path, texts: Iterator[bytes]) -> Iterator[Row]:
    """One by one. An object that is not whole yet is tried again with the next piece of text."""
    parser, decoder = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    text, at, count = "", 0, 0
    try:
        for piece in texts:
            text, at = text[at:] + decoder.decode(piece), 0
            while True:
                at = _skip(text, at, _SPACE + ("," if count else "["))
                if at == len(text) or text[at] == "]":
                    break
                try:
                    row, at = parser.raw_decode(text, at)
                except json.JSONDecodeError:
                    break
                count += 1
                if not isinstance(row, dict):
                    raise UserError(f"{path}, record {count}: is not a JSON object; give an array of objects")
                yield row
            if len(text) - at > _ARRAY_OBJECT_CHARACTERS:
                break
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; give CSV or JSON lines") from None
    if text[at : at + 1] != "]":
        raise UserError(f"{path}, record {count + 1}: is not valid JSON, or the array has no end; write the file again")


def _skip(text: str, at: int, characters: str) -> int:
    while at < len(text) and text[at] in characters:
        at += 1
    return at


class JsonChunk:
    """Some objects of a file."""

    def __init__(self, path: Path, places: list[str], rows: list[Row]) -> None:
        self._path, self._places, self._rows = path, places, rows

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the first object."""
        return tuple(self._rows[0])

    def __len__(self) -> int:
        return len(self._rows)

    def has(self, column: str) -> bool:
        return column in self._rows[0]

    def is_number(self, column: str) -> bool:
        return _is_number(self._rows[0].get(column))

    def numbers(self, column: str, *, missing: float | None = None) -> NDArray[np.float64]:
        values = [row.get(column) for row in self._rows]
        for row, value in enumerate(values):
            if type(value) is int or _is_number(value):
                continue
            if value is not None or missing is None:
                what = "is missing" if value is None else f"{str(value)[:_SHOWN]!r} is not a number"
                raise self.wrong(row, column, f"{what}; a number is needed: mend or remove it")
            values[row] = missing
        return np.array(values, dtype=np.float64)

    def instants(self, column: str) -> NDArray[np.int64]:
        moments = np.empty(len(self), dtype=np.int64)
        for row, record in enumerate(self._rows):
            value = record.get(column)
            moment = moment_of(value) if isinstance(value, str) else None
            if moment is None:
                raise self.wrong(row, column, f"{str(value)[:_SHOWN]!r} is not a date and time; mend or remove it")
            moments[row] = moment
        return moments

    def words(self, column: str) -> NDArray[np.str_]:
        return np.array([str(row.get(column, "")) for row in self._rows], dtype=np.str_)

    def prefixes(self, column: str) -> PrefixColumn:
        lists = [row.get(column) or [] for row in self._rows]
        for row, value in enumerate(lists):
            if not isinstance(value, list) or not all(type(item) is int for item in value):
                raise self.wrong(row, column, "is not a list of integers; mend or remove it")
        return PrefixColumn.of(lists)

    def wrong(self, row: int, column: str, why: str) -> UserError:
        return wrong(self._path, self._places[row], column, why)


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))
