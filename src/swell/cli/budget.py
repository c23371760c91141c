"""`swell budget`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_json, print_table


@command
def budget(
    file: Annotated[
        Path, typer.Option("--file", "-f", help="The swell.yaml that declares budgets, where no server runs.")
    ] = Path("swell.yaml"),
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Show what is spent, reserved and left of every budget in its present period."""
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        rows = access.budgets(file)
    if tenant is not None:
        rows = [row for row in rows if row["scope"] == "tenant" and row["owner"] == tenant]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("of", "model", "period", "budget", "grace", "spent", "used", "reserved", "left", "until"),
        map(_row, rows),
        empty="There are no budgets; declare one with `budget: 500` under a tenant or under `organisation:`.",
    )


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    from swell.units import usd_text

    cap, spent = row["cap_usd_nanos"], row["spent_usd_nanos"]
    whose = row["scope"] if not row["owner"] else f"{row['scope']} {row['owner']}"
    amounts = [usd_text(row[f"{name}_usd_nanos"]) for name in ("cap", "spent", "reserved", "left")]
    return (
        whose, row["model"] or "all", row["period"], amounts[0], _grace(row), amounts[1], f"{_percent(spent, cap)}%",
        amounts[2], amounts[3], moment(row["ends_unix"]),
    )  # fmt: skip


def _grace(row: dict[str, Any]) -> str:
    from swell.units import usd_text

    grace, used = row["grace_usd_nanos"], row["grace_used_usd_nanos"]
    if not grace:
        return ""
    return f"{usd_text(used)} of {usd_text(grace)}" if used else usd_text(grace)


def _percent(spent: int, cap: int) -> int:
    return spent * 100 // cap if cap else 100
