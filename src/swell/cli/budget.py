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
    """Show what is spent, reserved and left of every budget in its present period, and how long the money lasts."""
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
        ("of", "model", "period", "budget", "spent", "used", "reserved", "left", "until"),
        map(_row, rows),
        empty="There are no budgets; declare one with `budget: 500` under a tenant or under `organisation:`.",
    )


def _row(row: dict[str, Any]) -> tuple[object, ...]:
    from swell.units import usd_text

    cap, spent = row["cap_usd_nanos"], row["spent_usd_nanos"]
    whose = row["scope"] if not row["owner"] else f"{row['scope']} {row['owner']}"
    amounts = [usd_text(row[f"{name}_usd_nanos"]) for name in ("cap", "spent", "reserved", "left")]
    return (
        whose, row["model"] or "all", row["period"], amounts[0], amounts[1], f"{_percent(spent, cap)}%", amounts[2],
        amounts[3], moment(row["ends_unix"]),
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


def _percent(spent: int, cap: int) -> int:
    return spent * 100 // cap if cap else 100
