"""`swell usage`."""

import time
from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_json, print_table
from swell.errors import UserError

_TABLE_ROWS = 50


@command
def usage(
    key: Annotated[str | None, typer.Option(help="Only this key's id.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    only_status: Annotated[str | None, typer.Option("--status", help="settled, estimated, reserved or void.")] = None,
    since: Annotated[str | None, typer.Option(help="Only the last length of time, such as 24h.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many, newest first.", min=1)] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """List requests and their tokens, newest first."""
    from swell.cli.access import server_or_store
    from swell.cli.keys import seconds_of
    from swell.ports.store import MAX_LISTED
    from swell.state.records import UsageFilter

    where = UsageFilter(
        key_id=key,
        model=model,
        tenant=tenant,
        status=_status(only_status),
        since_unix_ms=None if since is None else int((time.time() - seconds_of(since)) * 1000),
    )
    with server_or_store(state) as access:
        records = access.usage(where, min(limit or (MAX_LISTED if as_json else _TABLE_ROWS), MAX_LISTED))
    if as_json:
        print_json(records)
        return
    columns = ("arrived", "request", "key", "tenant", "model", "prompt", "completion", "status", "http", "ms")
    print_table(columns, map(_row, records), empty="No usage matches.")


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
        record["completion_tokens"], record["status"], record["http_status"] or "", duration if duration >= 0 else "",
    )  # fmt: skip
