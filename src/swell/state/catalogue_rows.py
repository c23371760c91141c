"""Rows of the catalogue's tables: what a price is, and how profiles and prices are read from CSV or YAML.

Amounts go from the text of a cell to whole nano-dollars and are written back as they were; no float is between. What
is read is checked once, here; a refusal names the file, the line (of YAML: the row) and the column.
"""

import csv
import difflib
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml

from swell.errors import UserError
from swell.state.price_cells import checked_date, checked_text, dollars, price_nanos, refusal, spot_problem
from swell.state.scaling import LatencyProfile, Market
from swell.units import NANOS_PER_USD

MAX_FILE_BYTES = 4 * 2**20
_SHOWN_NAMES = 12
_YAML_SUFFIXES = (".yaml", ".yml", ".json")
_SHORT_COLUMNS = {"on_demand": "on_demand_usd_per_hour", "spot": "spot_usd_per_hour"}
_ON_DEMAND, _SPOT = _SHORT_COLUMNS.values()


@dataclass(frozen=True, slots=True)
class Price:
    """What one instance costs. An empty zone means every zone of the region, an empty region every region.

    Accounts take the integers. The properties and `usd_per_hour` are the nearest floats, for the planner to optimise
    with and for people to look at, never to add up a bill from.
    """

    as_of: str  # ISO date; only a year or a month where the source tells no more
    cloud: str
    instance: str
    accelerator: str
    accelerator_count: int  # of the instance
    on_demand_usd_nanos_per_hour: int | None = field(default=None, metadata={"column": _ON_DEMAND})  # None: not sold so
    spot_usd_nanos_per_hour: int | None = field(default=None, metadata={"column": _SPOT})
    region: str = ""
    zone: str = ""
    source: str = ""

    @property
    def on_demand_usd_per_hour(self) -> float | None:
        """The float nearest to the amount."""
        nanos = self.on_demand_usd_nanos_per_hour
        return None if nanos is None else nanos / NANOS_PER_USD

    @property
    def spot_usd_per_hour(self) -> float | None:
        """The float nearest to the amount."""
        nanos = self.spot_usd_nanos_per_hour
        return None if nanos is None else nanos / NANOS_PER_USD

    def usd_per_hour(self, market: Market, accelerators: int) -> float | None:
        """A replica's share that uses so many of the instance's accelerators; None where that cannot be bought."""
        whole = self.on_demand_usd_per_hour if market is Market.ON_DEMAND else self.spot_usd_per_hour
        if whole is None or not self._divides(accelerators):
            return None
        return whole * accelerators / self.accelerator_count

    def usd_nanos_per_hour(self, market: Market, accelerators: int) -> int | None:
        """The same share in nano-dollars, rounded up to a whole one: for accounts."""
        whole = self.on_demand_usd_nanos_per_hour if market is Market.ON_DEMAND else self.spot_usd_nanos_per_hour
        if whole is None or not self._divides(accelerators):
            return None
        return -(-whole * accelerators // self.accelerator_count)

    @property
    def has_discount(self) -> bool:
        """Whether spot is cheaper than on-demand; where it is not, there is no spare capacity to be had."""
        spot, on_demand = self.spot_usd_nanos_per_hour, self.on_demand_usd_nanos_per_hour
        if spot is None:
            return False
        return on_demand is None or 100 * spot < 95 * on_demand

    def _divides(self, accelerators: int) -> bool:
        return accelerators >= 1 and self.accelerator_count % accelerators == 0


_Row = TypeVar("_Row", LatencyProfile, Price)


def shipped_rows(row_type: type[_Row], name: str) -> list[_Row]:
    """The rows of a table that ships."""
    text = (resources.files("swell.state") / "tables" / name).read_text(encoding="utf-8")
    return _rows(row_type, _csv_rows(text, name), name)


def read_rows(row_type: type[_Row], path: Path) -> list[_Row]:
    """The rows of a user's file. UserError names the file, the line or row, and the column."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"{path} is larger than {MAX_FILE_BYTES} bytes; a table of profiles or prices is small")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if path.suffix.lower() not in _YAML_SUFFIXES:
        return _rows(row_type, _csv_rows(text, str(path)), str(path))
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {error}") from error
    if isinstance(document, dict) and not (document.keys() & _columns(row_type).keys()):
        # The list may stand under a heading, such as `profiles:`.
        document = next((value for value in document.values() if isinstance(value, list)), document)
    listed = [document] if isinstance(document, dict) else document
    if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
        raise UserError(f"{path} must be a list of mappings, one per row")
    numbered = ((f"{path}, row {number}", row) for number, row in enumerate(listed, 1))
    return _rows(row_type, numbered, str(path))


def write_rows(path: Path, rows: Sequence[_Row]) -> None:
    """A table of `rows`, as CSV, YAML or JSON by the file's name, in place of what was there. UserError.

    It is written beside and renamed, so that nobody ever reads half of it and a failure leaves what was there.
    """
    content = _table_text(path.suffix.lower(), [_cells(row) for row in rows]).encode()
    if len(content) > MAX_FILE_BYTES:
        raise UserError(f"{path} would have {len(content):,} bytes, and a table is read up to {MAX_FILE_BYTES:,}")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
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


class _Loader(yaml.SafeLoader):
    """Reads a number with a point as the text that it is written as, so that no amount is ever a float."""


def _number_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:float", _number_text)


class _Dumper(yaml.SafeDumper):
    """Writes an amount as a plain number."""


class _Amount(str):
    """Dollars, to be written without quotes."""

    __slots__ = ()


_Dumper.add_representer(_Amount, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:float", str(text)))


def _table_text(suffix: str, listed: Sequence[Mapping[str, Any]]) -> str:
    if suffix == ".json":
        return json.dumps(listed, indent=1) + "\n"
    text = io.StringIO()
    if suffix in _YAML_SUFFIXES:
        yaml.dump(listed, text, Dumper=_Dumper, sort_keys=False)
    else:
        table = csv.DictWriter(text, list(listed[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(listed)
    return text.getvalue()


def _cells(row: LatencyProfile | Price) -> dict[str, Any]:
    """A row as it is written, by column."""
    cells: dict[str, Any] = {}
    for column, described in _columns(type(row)).items():
        value = getattr(row, described.name)
        is_amount = "column" in described.metadata and value is not None
        cells[column] = _Amount(dollars(value)) if is_amount else value
    return cells


def _csv_rows(text: str, origin: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            yield f"{origin}, line {reader.line_num}", row
    except csv.Error as error:
        raise UserError(f"{origin}, line {reader.line_num}: {error}") from error


def _rows(row_type: type[_Row], table: Iterable[tuple[str, Mapping[Any, Any]]], origin: str) -> list[_Row]:
    found = [_row(row_type, row, where, origin) for where, row in table]
    if not found:
        raise UserError(f"{origin} has no rows; its columns are {', '.join(_columns(row_type))}")
    return found


def _columns(row_type: type[LatencyProfile] | type[Price]) -> dict[str, Field[Any]]:
    """The fields by their columns in a table; amounts stand there in dollars."""
    return {described.metadata.get("column", described.name): described for described in fields(row_type)}


def _row(row_type: type[_Row], row: Mapping[Any, Any], where: str, origin: str) -> _Row:
    columns = _columns(row_type)
    given: dict[str, Any] = {}
    for key, value in row.items():
        if key is None:
            raise UserError(f"{where}: has {len(value)} cells more than there are columns")
        column = _SHORT_COLUMNS.get(key, key) if isinstance(key, str) else ""
        if column not in columns:
            near = nearest_name(str(key), list(columns))
            hint = f"did you mean {near}?" if near else f"columns are {', '.join(columns)}"
            raise UserError(f"{where}: {key!r} is not a column; {hint}")
        if columns[column].name in given:
            raise UserError(f"{where}: {column} is given twice")
        if value not in (None, ""):
            try:
                given[columns[column].name] = _cell(columns[column], value)
            except ValueError as error:
                raise UserError(f"{where}, {column}: {refusal(str(value), error)}") from None
    for column, described in columns.items():
        if described.name not in given and described.default is MISSING and described.default_factory is MISSING:
            raise UserError(f"{where}: {column} is missing")
    found = row_type(**given)
    return _checked(found, where, origin) if isinstance(found, Price) else found


def _checked(price: Price, where: str, origin: str) -> Price:
    """Every price has a source, be it the file it stands in."""
    problem = spot_problem(price.on_demand_usd_nanos_per_hour, price.spot_usd_nanos_per_hour)
    if problem:
        raise UserError(f"{where}, {_SPOT}: {problem}")
    return price if price.source else replace(price, source=Path(origin).name)


def _cell(described: Field[Any], value: object) -> Any:
    """A number in a table is never negative, and a count is at least 1. ValueError says what is wrong with `value`."""
    if "column" in described.metadata:
        return price_nanos(str(value))
    if described.type is str:
        return checked_date(str(value)) if described.name == "as_of" else checked_text(str(value))
    try:
        number = float(str(value))
    except ValueError:
        raise ValueError("is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise ValueError("must be a finite number, 0 or more")
    if described.type is not int:
        return number
    if number < 1 or number != int(number):
        raise ValueError("must be a whole number, 1 or more")
    return int(number)
