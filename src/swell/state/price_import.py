"""Prices out of a table in the common catalogue shape.

Two spellings are read: `instance_type`, `on_demand_usd_h` and so on, and the published one with `InstanceType`, `Price`
and so on. Other columns are passed over.

A row that says nothing about an accelerator's price is left out and counted by the reason. A row that cannot be true is
named with its line, and refuses the table unless the user asked to leave such rows out. Amounts finer than a
nano-dollar, as programs that count in floats write them, are rounded up to one.

Names become the catalogue's. An A100 without more is the 40 GiB one; a TPU's slice, which has no instance and a count
of 1, is an instance with as many chips as the slice.
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from swell.errors import UserError
from swell.state.catalogue_rows import Price
from swell.state.price_cells import checked_amount, checked_date, checked_text, price_nanos, refusal, spot_problem
from swell.units import usd

_COMMON = {
    "instance": "instance_type", "accelerator": "accelerator", "count": "accelerator_count",
    "on_demand": "on_demand_usd_h", "spot": "spot_usd_h", "region": "region", "zone": "zone", "cloud": "cloud",
    "memory": "gpu_mem_gib", "as_of": "as_of", "source": "source",
}  # fmt: skip
_PUBLISHED = {
    "instance": "InstanceType", "accelerator": "AcceleratorName", "count": "AcceleratorCount",
    "on_demand": "Price", "spot": "SpotPrice", "region": "Region", "zone": "AvailabilityZone", "memory": "GpuInfo",
}  # fmt: skip
_NEEDED = ("instance", "accelerator", "count", "on_demand")
_SAME = {"H100-SXM": "H100", "H100-MEGA": "H100", "H200-SXM": "H200", "A100-80GB-SXM": "A100-80GB", "A100": "A100-40GB"}
# The number in a slice's name counts chips, or cores of which a chip has two.
_TPU_CORES = {"v2": 2, "v3": 2, "v4": 2, "v5p": 2, "v5litepod": 1, "v6e": 1}
_TPU_NAMES = {"v5litepod": "v5e"}
_SHOWN_ROWS = 5
_MAX_COUNT = 100_000
_A100_GIB, _H100_GIB = 60, 90  # the larger of two that have the same name has more

_Value = TypeVar("_Value")

NO_ACCELERATOR = "no accelerator"
NO_MACHINE = "price of an accelerator without its machine"
NO_PRICE = "no price"
PART = "a part of an accelerator"
OTHER_CLOUD = "another cloud"
TWICE = "said before"


@dataclass(frozen=True, slots=True)
class Imported:
    """What a table had. `rows` = prices + what was left out + what was wrong."""

    prices: tuple[Price, ...]
    rows: int
    left_out: Mapping[str, int]  # rows by the reason
    wrong: tuple[str, ...]  # rows that cannot be true, left out too: line, column and why
    without_discount: int  # kept without their spot price, since it is no lower than on-demand
    rounded_up: int  # amounts that were finer than a nano-dollar
    renamed: Mapping[str, int]  # prices by what was done to the accelerator, such as "A100 is A100-40GB"


def read_catalogue(
    lines: Iterable[str], origin: str, *, as_of: str, cloud: str | None = None, skip_wrong: bool = False
) -> Imported:
    """The prices of a table, dated `as_of` where it does not say.

    With `cloud` a row that names no cloud is of that one, and one that names another is left out. UserError names what
    is wrong by line and column.
    """
    reader = csv.reader(lines)
    try:
        shape, at, width = _shape(next(reader, []), origin)
        if "cloud" not in at and cloud is None:
            raise UserError(f"{origin} does not say which cloud it is of; say it with --cloud, such as --cloud aws")
        table = _Table(shape, at, width, origin, as_of, cloud)
        for cells in reader:
            if cells:
                table.read(cells, reader.line_num)
    except csv.Error as error:
        raise UserError(f"{origin}, line {reader.line_num}: {error}") from error
    if table.wrong and not skip_wrong:
        raise UserError(
            f"{origin}: {len(table.wrong)} of {table.rows} rows cannot be true, so nothing is taken; correct them, or "
            f"leave them out with --skip-wrong\n  {listed_wrong(table.wrong)}"
        )
    if not table.taken:
        why = ", ".join(f"{count} {reason}" for reason, count in table.left_out.items())
        raise UserError(f"{origin} has no price to take in its {table.rows} rows" + (f": {why}" if why else ""))
    return Imported(
        tuple(table.taken), table.rows, dict(table.left_out), tuple(table.wrong), table.without_discount,
        table.rounded_up, dict(table.renamed),
    )  # fmt: skip


def listed_wrong(wrong: Sequence[str]) -> str:
    """The first few of the rows that cannot be true, one a line."""
    more = [f"and {len(wrong) - _SHOWN_ROWS} more"] if len(wrong) > _SHOWN_ROWS else []
    return "\n  ".join([*wrong[:_SHOWN_ROWS], *more])


def _shape(cells: Sequence[str], origin: str) -> tuple[Mapping[str, str], dict[str, int], int]:
    """Which spelling it is, where its columns stand, and how many there are."""
    header = [name.strip() for name in cells]
    if "on_demand_usd_per_hour" in header and "as_of" in header:
        raise UserError(f"{origin} is in Swell's own shape already; give it to --prices as it is")
    shape = max(_COMMON, _PUBLISHED, key=lambda names: sum(name in header for name in names.values()))
    missing = [shape[name] for name in _NEEDED if shape[name] not in header]
    if missing:
        raise UserError(
            f"{origin}, line 1: there is no column {missing[0]}; a catalogue has {', '.join(_COMMON.values())}; "
            f"or {', '.join(_PUBLISHED.values())}"
        )
    twice = [column for column in shape.values() if header.count(column) > 1]
    if twice:
        raise UserError(f"{origin}, line 1: there are several columns {twice[0]}")
    return shape, {name: header.index(column) for name, column in shape.items() if column in header}, len(header)


def _name(accelerator: str, memory: str) -> str:
    """An accelerator as profiles call it; its memory tells apart what some clouds call the same."""
    found = re.search(r"SizeInMiB\W+(\d{1,9})\b", memory) or re.fullmatch(r"(\d{1,6})(?:\.\d*)?", memory)
    gib = int(found[1]) / (1024 if "MiB" in found[0] else 1) if found else 0
    if accelerator == "A100" and gib > _A100_GIB:
        return "A100-80GB"
    if accelerator == "H100" and gib > _H100_GIB:
        return "H100-NVL"
    return _SAME.get(accelerator, accelerator)


def _slice(accelerator: str) -> tuple[str, int]:
    """A TPU as profiles call it, and how many chips the slice has; 0 where it is no slice."""
    found = re.fullmatch(r"tpu-(v\w+?)(?:-(\d{1,6}))?", accelerator)
    if not found or found[1] not in _TPU_CORES:
        return accelerator, 0
    return _TPU_NAMES.get(found[1], found[1]), int(found[2] or 0) // _TPU_CORES[found[1]]


class _LeftOutError(Exception):
    """The row has no price to take; the text is the reason."""


class _WrongError(Exception):
    """The row cannot be true; the text is where and why."""


@dataclass(slots=True)
class _Table:
    """A table that is being read, and what was met on the way."""

    shape: Mapping[str, str]
    at: Mapping[str, int]
    width: int
    origin: str
    as_of: str
    cloud: str | None
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    without_discount: int = 0
    rounded_up: int = 0
    renamed: Counter[str] = field(default_factory=Counter)
    taken: dict[Price, None] = field(default_factory=dict)

    def read(self, cells: list[str], line: int) -> None:
        """Take the row's price, or note why not."""
        self.rows += 1
        try:
            if len(cells) != self.width:
                raise _WrongError(f": has {len(cells)} cells under {self.width} columns")
            self._take({name: cells[at].strip() for name, at in self.at.items()})
        except _LeftOutError as reason:
            self.left_out[str(reason)] += 1
        except _WrongError as why:
            self.wrong.append(f"line {line}{why}")

    def _take(self, row: dict[str, str]) -> None:
        row["cloud"] = row.get("cloud") or self.cloud or ""
        if self.cloud is not None and row["cloud"].casefold() != self.cloud.casefold():
            raise _LeftOutError(OTHER_CLOUD)
        row["as_of"] = row.get("as_of") or self.as_of
        row["source"] = row.get("source") or f"imported from {self.origin}"
        given = row["accelerator"]
        machine = self._machine(row)
        on_demand, spot = self._amount(row, "on_demand"), self._amount(row, "spot")
        if on_demand is None and spot is None:
            raise _LeftOutError(NO_PRICE)
        problem = spot_problem(on_demand, spot)
        if problem:
            raise _WrongError(f", {self.shape['spot']}: {problem}")
        has_discount = spot is None or on_demand is None or spot < on_demand
        price = Price(
            self._checked(row, "as_of", checked_date), self._checked(row, "cloud", checked_text), *machine,
            on_demand, spot if has_discount else None,
            *(self._checked(row, name, checked_text) if row.get(name) else "" for name in ("region", "zone", "source")),
        )  # fmt: skip
        if price in self.taken:
            raise _LeftOutError(TWICE)
        self.taken[price] = None
        self.without_discount += not has_discount
        if given != price.accelerator:
            self.renamed[f"{given} is {price.accelerator}"] += 1

    def _machine(self, row: dict[str, str]) -> tuple[str, str, int]:
        """Instance, accelerator and how many of them."""
        if not row["accelerator"]:
            raise _LeftOutError(NO_ACCELERATOR)
        count = self._checked(row, "count", checked_amount)
        if count == 0:
            raise _LeftOutError(NO_ACCELERATOR)
        if count < 1:
            raise _LeftOutError(PART)
        if count != int(count) or count > _MAX_COUNT:
            raise _WrongError(f", {self.shape['count']}: {row['count']} must be a whole number up to {_MAX_COUNT}")
        given = self._checked(row, "accelerator", checked_text)
        name, chips = _slice(given)
        if chips:
            row["instance"] = row["instance"] or given
        elif not row["instance"]:
            raise _LeftOutError(NO_MACHINE)
        else:
            name = _name(name, row.get("memory", ""))
        return self._checked(row, "instance", checked_text), name, int(count) * max(chips, 1)

    def _amount(self, row: dict[str, str], name: str) -> int | None:
        if not row.get(name):
            return None
        exact = self._checked(row, name, checked_amount)
        nanos = self._checked(row, name, lambda text: price_nanos(text, round_up=True))
        if nanos == 0:
            raise _WrongError(f", {self.shape[name]}: nothing is for free")
        self.rounded_up += usd(nanos) != exact
        return nanos

    def _checked(self, row: dict[str, str], name: str, check: Callable[[str], _Value]) -> _Value:
        """A cell by its check."""
        text = row.get(name, "")
        try:
            return check(text)
        except ValueError as error:
            raise _WrongError(f", {self.shape.get(name, name)}: {refusal(text, error)}") from None
