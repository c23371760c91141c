"""Lists as files: CSV, JSON and Parquet, to standard output or to a file that is there whole or not at all."""

import csv
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from swell.errors import UserError

TABLE, CSV, JSON, PARQUET, FOCUS = "table", "csv", "json", "parquet", "focus"
FORMATS = (TABLE, CSV, JSON, PARQUET, FOCUS)
STDOUT = Path("-")  # as a file to write: standard output
_BY_SUFFIX = {".csv": CSV, ".json": JSON, ".parquet": PARQUET}
_DECIMALS = (38, 9)  # digits in all, and behind the point: nano-dollars


@dataclass(frozen=True, slots=True)
class Sheet:
    """A list with named columns. `numbers` are the columns of whole numbers, `money` those of dollars."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    numbers: frozenset[str] = frozenset()
    money: frozenset[str] = frozenset()


def chosen_format(given: str | None, output: Path | None, *, as_json: bool) -> str:
    """The format that was asked for, by name, by `--json` or by the file's ending. UserError where none fits."""
    if given is not None and given not in FORMATS:
        raise UserError(f"--format {given!r} is unknown; there are {', '.join(FORMATS)}")
    if as_json and given not in (None, JSON):
        raise UserError(f"--json and --format {given} contradict each other; leave one out")
    by_name = None if output is None else _BY_SUFFIX.get(output.suffix.lower())
    chosen = given or (JSON if as_json else by_name) or TABLE
    if chosen == TABLE and output is not None:
        raise UserError("a table is for the screen; give -o with --format csv, json, parquet or focus")
    if chosen == PARQUET:
        if output is None or output == STDOUT:
            raise UserError("Parquet goes into a file; name one with -o FILE.parquet")
        _pyarrow()  # before anything is read for it
    return chosen


def write_csv(columns: Sequence[str], rows: Iterable[Sequence[object]], output: Path | None) -> int:
    """Comma-separated text in UTF-8 with one line of names; nothing stands for null. How many rows there were."""
    count = 0
    with _opened(output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if cell is None else cell for cell in row])
            count += 1
    return count


def write_text(text: str, output: Path | None) -> None:
    """A text, such as a document in JSON."""
    with _opened(output) as file:
        file.write(text)


def write_parquet(sheet: Sheet, output: Path) -> None:
    """Apache Parquet: whole numbers in 64 bits, dollars as decimals with nine digits behind the point."""
    arrow = _pyarrow()
    kinds = {
        name: arrow.int64() if name in sheet.numbers
        else arrow.decimal128(*_DECIMALS) if name in sheet.money
        else arrow.string()
        for name in sheet.columns
    }  # fmt: skip
    values = {
        name: [_cell(row[index], is_money=name in sheet.money) for row in sheet.rows]
        for index, name in enumerate(sheet.columns)
    }
    table = arrow.table(values, schema=arrow.schema(list(kinds.items())))
    with _whole(output) as partial:
        importlib.import_module("pyarrow.parquet").write_table(table, os.fspath(partial))


def _cell(value: object, *, is_money: bool) -> object:
    return Decimal(str(value)) if is_money and value is not None else value


def _pyarrow() -> Any:
    try:
        return importlib.import_module("pyarrow")
    except ImportError:
        raise UserError("Parquet needs PyArrow, which is not installed; run: pip install pyarrow") from None


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    if output is None or output == STDOUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    with _whole(output) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def _whole(output: Path) -> Iterator[Path]:
    """A path beside `output` that takes its place at the end, and is gone where anything failed."""
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        yield partial
        partial.replace(output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
