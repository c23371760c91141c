"""Rows of the catalogue's tables: what a price is, and how profiles and prices are read from CSV or YAML."""

import csv
import difflib
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from swell.errors import UserError
from swell.state.scaling import LatencyProfile, Market

MAX_FILE_BYTES = 4 * 2**20
_SHOWN_NAMES = 12
_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_SHORT_COLUMNS = {"on_demand": "on_demand_usd_per_hour", "spot": "spot_usd_per_hour"}


@dataclass(frozen=True, slots=True)
class Price:
    """What one instance costs. An empty zone means every zone of the region, an empty region every region."""

    as_of: str  # ISO date; only a year where the source tells no more
    cloud: str
    instance: str
    accelerator: str
    accelerator_count: int  # of the instance
    on_demand_usd_per_hour: float | None = None  # None: not sold so
    spot_usd_per_hour: float | None = None
    region: str = ""
    zone: str = ""
    source: str = ""

    def usd_per_hour(self, market: Market, accelerators: int) -> float | None:
        """A replica's share that uses so many of the instance's accelerators; None where that cannot be bought."""
        whole = self.on_demand_usd_per_hour if market is Market.ON_DEMAND else self.spot_usd_per_hour
        if whole is None or accelerators < 1 or self.accelerator_count % accelerators:
            return None
        return whole * accelerators / self.accelerator_count

    @property
    def has_discount(self) -> bool:
        """Whether spot is cheaper than on-demand; where it is not, there is no spare capacity to be had."""
        if self.spot_usd_per_hour is None:
            return False
        return self.on_demand_usd_per_hour is None or self.spot_usd_per_hour < 0.95 * self.on_demand_usd_per_hour


_Row = TypeVar("_Row", LatencyProfile, Price)


def shipped_rows(row_type: type[_Row], name: str) -> list[_Row]:
    """The rows of a table that ships."""
    with (resources.files("swell.state") / "tables" / name).open(encoding="utf-8") as file:
        return _rows(row_type, csv.DictReader(file), name)


def read_rows(row_type: type[_Row], path: Path) -> list[_Row]:
    """The rows of a user's file. UserError names the file, the row and the column."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES} bytes; a table of profiles or prices is small")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if path.suffix.lower() not in _YAML_SUFFIXES:
        return _rows(row_type, csv.DictReader(text.splitlines()), str(path))
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if isinstance(document, dict) and not (document.keys() & _columns(row_type).keys()):
        # The list may stand under a heading, such as `profiles:`.
        document = next((value for value in document.values() if isinstance(value, list)), document)
    listed = [document] if isinstance(document, dict) else document
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise UserError(f"{path} must be a list of mappings, one per row")
    return _rows(row_type, listed, str(path))


def write_rows(path: Path, rows: Sequence[_Row]) -> None:
    """A table of `rows`, as CSV or YAML by the file's name, in place of what was there. UserError."""
    listed = [asdict(row) for row in rows]
    text = io.StringIO()
    if path.suffix.lower() in _YAML_SUFFIXES:
        yaml.safe_dump(listed, text, sort_keys=False)
    else:
        table = csv.DictWriter(text, list(listed[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(listed)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text.getvalue(), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error


def nearest_name(text: str, names: Sequence[str]) -> str | None:
    """The one of `names` that was probably meant."""
    by_plain = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(text.casefold()[:100], by_plain, n=1, cutoff=0.5)
    return by_plain[near[0]] if near else None


def listed_names(names: Sequence[str]) -> str:
    """`names` for a message, cut where there are many."""
    shown = ", ".join(names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown


def _rows(row_type: type[_Row], table: Iterable[Mapping[Any, Any]], origin: str) -> list[_Row]:
    found = [_row(row_type, row, f"{origin}, row {number}") for number, row in enumerate(table, 1)]
    if not found:
        raise UserError(f"{origin} has no rows; its columns are {', '.join(_columns(row_type))}")
    return found


def _columns(row_type: type[_Row]) -> dict[str, Any]:
    return {field.name: field for field in fields(row_type)}


def _row(row_type: type[_Row], row: Mapping[Any, Any], where: str) -> _Row:
    columns = _columns(row_type)
    given: dict[str, Any] = {}
    for key, value in row.items():
        name = _SHORT_COLUMNS.get(key, key) if isinstance(key, str) else ""
        if name not in columns:
            near = nearest_name(str(key), list(columns))
            hint = f"did you mean {near}?" if near else f"columns are {', '.join(columns)}"
            raise UserError(f"{where}: {key!r} is not a column; {hint}")
        if value not in (None, ""):
            given[name] = _cell(columns[name].type, value, f"{where}, {name}")
    for name, column in columns.items():
        if name not in given and column.default is MISSING:
            raise UserError(f"{where}: {name} is missing")
    return row_type(**given)


def _cell(kind: Any, value: object, where: str) -> Any:
    """A number in a table is never negative, and a count is at least 1."""
    if kind is str:
        return str(value)
    try:
        number = float(str(value))
    except ValueError:
        raise UserError(f"{where}: {str(value)[:60]!r} is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{where}: {str(value)[:60]} must be a finite number, 0 or more")
    if kind is not int:
        return number
    if number < 1 or number != int(number):
        raise UserError(f"{where}: {str(value)[:60]} must be a whole number, 1 or more")
    return int(number)
