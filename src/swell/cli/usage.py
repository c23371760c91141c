"""`swell usage`: a listing of requests, or sums of them by group and period."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_table, to_json
from swell.errors import UserError
from swell.units import usd_text

if TYPE_CHECKING:
    from swell.cli.access import Access
    from swell.cli.usage_report import Wish
    from swell.state.records import UsageFilter

_TABLE_ROWS = 50
_NUMBERS = frozenset({
    "prompt_tokens", "cached_tokens", "completion_tokens", "prompt_rate", "completion_rate", "charge_usd_nanos",
    "reserved_at_unix_ms", "settled_at_unix_ms", "http_status", "duration_ms", "first_token_ms",
})  # fmt: skip

SpecOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="The swell.yaml that names the organisation and its budgets.")
]
ZoneOption = Annotated[str, typer.Option(help="Whose calendar periods, days and hours follow, such as Europe/Berlin.")]


@command
def usage(
    key: Annotated[str | None, typer.Option(help="Only this key's id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    only_status: Annotated[str | None, typer.Option("--status", help="settled, estimated, reserved or void.")] = None,
    since: Annotated[str | None, typer.Option(help="Only the last length of time, such as 24h.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many, newest first.", min=1)] = None,
    by: Annotated[
        str | None, typer.Option(help="Sums by tenant, model, key, endpoint, status, month, day, hour; with commas.")
    ] = None,
    period: Annotated[str | None, typer.Option(help="month, day, 2026-11, 2026-11-29, 2026 or all.")] = None,
    time_zone: ZoneOption = "UTC",
    form: Annotated[str | None, typer.Option("--format", help="table, csv, json, parquet or focus.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write instead; - for standard output.")
    ] = None,
    file: SpecOption = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """List requests with their tokens and charges, newest first, or sum them by group and period."""
    from swell.cli import formats
    from swell.cli.access import server_or_store
    from swell.cli.keys import seconds_of
    from swell.cli.usage_report import wish_of, write_focus, write_report
    from swell.state.records import UsageFilter

    chosen = formats.chosen_format(form, output, as_json=as_json)
    where = UsageFilter(key_id=key, model=model, tenant=tenant, status=_status(only_status))
    since_unix = None if since is None else time.time() - seconds_of(since)
    wish = wish_of(by, period, time_zone, since_unix)
    is_report = chosen == formats.FOCUS or by is not None or period is not None
    if is_report and limit is not None:
        raise UserError("--limit is for the listing; sums have no order in which they could be cut")
    with server_or_store(state) as access:
        if chosen == formats.FOCUS:
            write_focus(access, where, wish, file, output)
        elif is_report:
            write_report(access, where, wish, chosen, output)
        else:
            _list(access, where, wish, limit, chosen, output)


def _list(
    access: "Access", where: "UsageFilter", wish: "Wish", limit: int | None, chosen: str, output: Path | None
) -> None:
    from msgspec.structs import replace

    from swell.cli import formats
    from swell.ports.store import MAX_LISTED
    from swell.units import usd

    since = None if wish.since_unix is None else int(wish.since_unix * 1000)
    default = _TABLE_ROWS if chosen == formats.TABLE else MAX_LISTED
    found = access.usage(replace(where, since_unix_ms=since), min(limit or default, MAX_LISTED))
    records = [{**record, "charge_usd": format(usd(record["charge_usd_nanos"]), "f")} for record in found]
    if chosen == formats.TABLE:
        columns = ("arrived", "request", "key", "tenant", "model", "prompt", "cached", "completion", "charge", "status",
                   "http", "ms")  # fmt: skip
        print_table(columns, map(_row, records), empty="No usage matches.")
        return
    if chosen == formats.JSON:
        formats.write_text(to_json(records) + "\n", output)
        return
    from swell.state.records import UsageRecord

    names = (*UsageRecord.__struct_fields__, "charge_usd")
    rows = [tuple(record[name] for name in names) for record in records]
    if output is not None and chosen == formats.PARQUET:
        formats.write_parquet(formats.Sheet(names, rows, _NUMBERS, frozenset({"charge_usd"})), output)
    else:
        formats.write_csv(names, rows, output)


def _status(text: str | None) -> Any:
    from swell.state.usage import UsageStatus

    if text is None:
        return None
    try:
        return UsageStatus(text)
    except ValueError:
        raise UserError(f"unknown status {text!r}; valid are: {', '.join(UsageStatus)}") from None


def _row(record: dict[str, Any]) -> tuple[object, ...]:
    at = record["reserved_at_unix_ms"]
    arrived = moment(None if at is None else at / 1000, seconds=True)
    duration = record["duration_ms"]
    return (
        arrived, record["request_id"], record["key_id"], record["tenant"], record["model"], record["prompt_tokens"],
        record["cached_tokens"], record["completion_tokens"], usd_text(record["charge_usd_nanos"]), record["status"],
        record["http_status"] or "", duration if duration >= 0 else "",
    )  # fmt: skip
