"""`swell budget`, and `swell budget raise|overrides|end-override`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_json, print_table

_TABLE_ROWS = 30

app = typer.Typer(
    help="What is spent and left of every budget; raise: allow more for a while.", invoke_without_command=True
)

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="The swell.yaml that declares budgets, where no server runs.")
]
DEFAULT_FILE = Path("swell.yaml")


@app.callback()
@command
def budget(
    context: typer.Context,
    file: FileOption = DEFAULT_FILE,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Show what is spent, reserved and left of every budget in its present period, and how long the money lasts."""
    if context.invoked_subcommand is not None:
        return
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        rows = access.budgets(file)
    if tenant is not None:
        rows = [row for row in rows if row["scope"] == "tenant" and row["owner"] == tenant]
    if as_json:
        print_json(rows)
        return
    infrastructure = [row for row in rows if row["scope"] == "infrastructure"]
    rows = [row for row in rows if row["scope"] != "infrastructure"]
    if infrastructure:
        print_table(
            ("replicas of", "period", "budget", "spent", "used", "left", "an hour", "at most", "would cost", "lasts",
             "until"),
            map(_spending, infrastructure), empty="",
        )  # fmt: skip
    if infrastructure and not rows:
        return
    print_table(
        ("of", "model", "period", "budget", "grace", "spent", "used", "reserved", "left", "stage", "until"),
        map(_row, rows),
        empty="There are no budgets; declare one with `budget: 500` under a tenant or under `organisation:`.",
    )


@app.command("raise")
@command
def raise_budget(
    scope: Annotated[str, typer.Argument(help="organisation, tenant:NAME or key:ID; a name alone is a tenant's.")],
    by: Annotated[str, typer.Option("--by", metavar="USD", help="By how many dollars.")],
    reason: Annotated[str, typer.Option(help="Why; it stands in the audit log.")],
    until: Annotated[str, typer.Option(help="A moment, such as 2026-12-01T18:00, in the budget's time zone.")] = "",
    length: Annotated[
        str, typer.Option("--for", help="A length of time such as 2d, or `period`: to its end. The default.")
    ] = "",
    model: Annotated[str, typer.Option(help="The budget for this model.")] = "",
    period: Annotated[str, typer.Option(help="Which budget, where there are several: its period.")] = "",
    file: FileOption = DEFAULT_FILE,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Allow more for a while. Without --until and --for it is a credit for the present period."""
    from swell.cli.access import server_or_store
    from swell.cli.keys import seconds_of
    from swell.server.overrides import NewOverride
    from swell.units import usd_text

    seconds = seconds_of(length) if length not in ("", "period") else None
    wanted = NewOverride(scope, by, reason, model, period, until, seconds)
    with server_or_store(state) as access:
        made = access.raise_budget(wanted, file)
    if as_json:
        print_json(made)
        return
    amount = usd_text(made["by_usd_nanos"])
    print(f"{_whose(made)} has {amount} more until {moment(made['until_unix'])}. It is {made['override_id']}.")


@app.command("overrides")
@command
def overrides(
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = _TABLE_ROWS,
    file: FileOption = DEFAULT_FILE,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """List raises of budgets, newest first, those that are over included."""
    from time import time

    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        listed = access.overrides(limit, file)
    if as_json:
        print_json(listed)
        return
    now = time()
    columns = ("id", "of", "model", "period", "by", "until", "state", "made by", "at", "reason")
    print_table(columns, (_override_row(each, now) for each in listed), empty="No budget was ever raised.")


@app.command("end-override")
@command
def end_override(
    override_id: Annotated[str, typer.Argument(metavar="ID", help="As `swell budget overrides` shows it.")],
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """End a raise now: nothing more is granted beyond the budget, and what lies idle is called back."""
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        ended = access.end_override(override_id)
    if as_json:
        print_json(ended)
    else:
        print(f"{ended['override_id']} of {_whose(ended)} has ended.")


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    from swell.units import usd_text

    cap, spent = row["cap_usd_nanos"], row["spent_usd_nanos"]
    amounts = [usd_text(row[f"{name}_usd_nanos"]) for name in ("cap", "spent", "reserved", "left")]
    if row["raised_usd_nanos"]:
        amounts[0] += f" ({usd_text(row['raised_usd_nanos'])} of it raised)"
    return (
        _whose(row), row["model"] or "all", row["period"], amounts[0], _grace(row), amounts[1],
        f"{_percent(spent, cap)}%", amounts[2], amounts[3], row["stage"], _until(row),
    )  # fmt: skip


def _spending(row: dict[str, Any]) -> tuple[object, ...]:
    """What replicas cost: now, at most by what the budget allows now, and the rest of the period were there none."""
    cap, spent, runs_out = row["cap_usd_nanos"], row["spent_usd_nanos"], row["runs_out_unix"]
    return (
        row["owner"] or "all models", row["period"], _dollars(cap), _dollars(spent), f"{_percent(spent, cap)}%",
        _dollars(row["left_usd_nanos"]), _dollars(row["rate_usd_nanos"]), _dollars(row["ceiling_usd_nanos"], "any"),
        _dollars(row["wanted_usd_nanos"], "unknown"), "to its end" if runs_out is None else moment(runs_out),
        moment(row["ends_unix"]),
    )  # fmt: skip


def _dollars(nanos: int | None, without: str = "") -> str:
    """To the cent where it is a dollar or more: replicas are billed by the millisecond."""
    from swell.units import NANOS_PER_USD, usd_text

    if nanos is None:
        return without
    cent = NANOS_PER_USD // 100
    return usd_text(nanos // cent * cent if abs(nanos) >= NANOS_PER_USD else nanos)


def _until(row: dict[str, Any]) -> str:
    """When the period ends, or when a rolling window begins to give back."""
    return f"frees from {moment(row['frees_unix'])}" if row["frees_unix"] is not None else moment(row["ends_unix"])


def _override_row(row: dict[str, Any], now_unix: float) -> tuple[object, ...]:
    from swell.units import usd_text

    if row["ended_at_unix"] is not None:
        state = f"ended {moment(row['ended_at_unix'])}"
    elif row["until_unix"] <= now_unix:
        state = "over"
    else:
        state = "its budget is gone" if row["has_budget"] is False else "holds"
    return (
        row["override_id"], _whose(row), row["model"] or "all", row["period"], usd_text(row["by_usd_nanos"]),
        moment(row["until_unix"]), state, row["created_by"], moment(row["created_at_unix"]), row["reason"],
    )  # fmt: skip


def _whose(row: dict[str, Any]) -> str:
    return f"{row['scope']} {row['owner']}" if row["owner"] else row["scope"]


def _grace(row: dict[str, Any]) -> str:
    from swell.units import usd_text

    grace, used = row["grace_usd_nanos"], row["grace_used_usd_nanos"]
    if not grace:
        return ""
    return f"{usd_text(used)} of {usd_text(grace)}" if used else usd_text(grace)


def _percent(spent: int, cap: int) -> int:
    return spent * 100 // cap if cap else 100
