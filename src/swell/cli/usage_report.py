"""What `swell usage` sums, and the FOCUS export: both read the ledger day by day and write as they go."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from swell.cli import formats
from swell.cli.output import print_table, to_json
from swell.errors import UserError
from swell.metering.focus import BY as FOCUS_BY
from swell.metering.focus import COLUMNS as FOCUS_COLUMNS
from swell.metering.focus import focus_rows
from swell.metering.periods import MONTH, Period, zone_of
from swell.metering.reports import TIMES, ReportRow, Sums, named_period, report, slices, total
from swell.state.records import UsageFilter
from swell.units import usd, usd_text

if TYPE_CHECKING:
    from swell.cli.access import Access
    from swell.spec import Spec

DEFAULT_SPEC = Path("swell.yaml")
DEFAULT_BY = ("tenant", "model")
_GROUPS = {"tenant": "tenant", "model": "model", "key": "key_id", "key_id": "key_id", "endpoint": "endpoint",
           "status": "status", **{name: name for name in TIMES}}  # fmt: skip
_SUMS = ("requests", "void_requests", "prompt_tokens", "cached_tokens", "completion_tokens", "charge_usd_nanos",
         "charge_usd")  # fmt: skip
_MONEY = frozenset({"charge_usd"})


@dataclass(frozen=True, slots=True)
class Wish:
    """What the command line asked to be summed. `since_unix` takes the place of a period."""

    by: tuple[str, ...] | None
    period: str | None
    zone: ZoneInfo
    since_unix: float | None


def wish_of(by: str | None, period: str | None, time_zone: str, since_unix: float | None) -> Wish:
    """Raises UserError for groups or zones that there are not, and for two periods at once."""
    if period is not None and since_unix is not None:
        raise UserError("--period and --since both say from when; leave one out")
    try:
        zone = zone_of(time_zone)
    except ValueError as error:
        raise UserError(f"--time-zone: {error}") from None
    return Wish(None if by is None else _groups(by), period, zone, since_unix)


def _groups(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in _GROUPS:
            raise UserError(
                f"--by {name[:40]!r} is unknown; there are {', '.join(n for n in _GROUPS if n != 'key_id')}"
            )
    if not names:
        raise UserError("--by names nothing; give groups with commas, such as tenant,model")
    return tuple(dict.fromkeys(_GROUPS[name] for name in names))


def period_of(wish: Wish, span_ms: tuple[int, int] | None) -> Period:
    """The period that was asked for; without one, this month."""
    if wish.since_unix is not None:
        since = max(0.0, wish.since_unix)
        return Period(since, None, f"since {datetime.fromtimestamp(since, wish.zone):%Y-%m-%d %H:%M}")
    return named_period(wish.period or MONTH, wish.zone, time.time(), span_ms)


def spec_of(file: Path | None) -> "Spec | None":
    """The spec in `file`, or in swell.yaml where there is one."""
    from swell.spec import load_spec

    chosen = file or (DEFAULT_SPEC if DEFAULT_SPEC.exists() else None)
    return None if chosen is None else load_spec(chosen)


def write_report(access: "Access", where: UsageFilter, wish: Wish, chosen: str, output: Path | None) -> None:
    """Sums by group, in any format but FOCUS."""
    span = access.usage_span()
    period, by = period_of(wish, span), wish.by or DEFAULT_BY
    rows = report(access.group_usage, where, by, period, wish.zone, span)
    if chosen == formats.TABLE:
        _print(rows, by, period, wish.zone)
    elif chosen == formats.JSON:
        formats.write_text(to_json(_document(rows, by, period, wish.zone)) + "\n", output)
    else:
        cells = [(*row.key, *_cells(row.sums)) for row in rows]
        sheet = formats.Sheet((*by, *_SUMS), cells, frozenset(_SUMS) - _MONEY, _MONEY)
        if chosen == formats.PARQUET and output is not None:
            formats.write_parquet(sheet, output)
        else:
            formats.write_csv(sheet.columns, sheet.rows, output)


def write_focus(access: "Access", where: UsageFilter, wish: Wish, file: Path | None, output: Path | None) -> None:
    """The FOCUS data set of a period as CSV. Its hours and billing periods are those of UTC."""
    if wish.by is not None or wish.since_unix is not None or wish.zone.key != "UTC":
        raise UserError("--format focus has groups of its own and the calendar of UTC; give --period, and no --by, "
                        "--since or --time-zone")  # fmt: skip
    spec = spec_of(file)
    organisation = "organisation" if spec is None else spec.organisation.name
    span = access.usage_span()
    period = period_of(wish, span)

    def rows() -> Iterator[list[str | None]]:
        for part in slices(period, wish.zone, span):
            bounded = replace(where, since_unix_ms=part.start_unix_ms, until_unix_ms=part.end_unix_ms)
            for row in focus_rows(access.group_usage(bounded, FOCUS_BY, "hour"), organisation):
                yield [row[name] for name in FOCUS_COLUMNS]

    formats.write_csv(FOCUS_COLUMNS, rows(), output)


def _cells(sums: Sums) -> tuple[int | str, ...]:
    return (*_in_order(sums), sums.charge_usd_nanos, format(usd(sums.charge_usd_nanos), "f"))


def _named(sums: Sums) -> dict[str, Any]:
    return dict(zip(_SUMS, _cells(sums), strict=True))


def _document(rows: list[ReportRow], by: tuple[str, ...], period: Period, zone: ZoneInfo) -> dict[str, Any]:
    return {
        "period": {
            "label": period.label,
            "start_unix": period.start_unix,
            "end_unix": period.end_unix,
            "time_zone": zone.key,
        },
        "by": by,
        "groups": [{**dict(zip(by, row.key, strict=True)), **_named(row.sums)} for row in rows],
        "total": _named(total(rows)),
    }


def _print(rows: list[ReportRow], by: tuple[str, ...], period: Period, zone: ZoneInfo) -> None:
    columns = (*by, "requests", "void", "prompt", "cached", "completion", "charge")
    shown = [(*row.key, *_shown(row.sums)) for row in rows]
    if shown:
        print(f"{period.label}, {zone.key}")
        shown.append(("total", *("" for _ in by[1:]), *_shown(total(rows))))
    when = period.label if period.label.startswith("since") else f"in {period.label}"
    print_table(columns, shown, empty=f"No usage {when} ({zone.key}).")


def _shown(sums: Sums) -> tuple[object, ...]:
    return (*_in_order(sums), usd_text(sums.charge_usd_nanos))


def _in_order(sums: Sums) -> tuple[int, ...]:
    return sums.requests, sums.void_requests, sums.prompt_tokens, sums.cached_tokens, sums.completion_tokens
