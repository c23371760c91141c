"""`swell keys create|list|rotate|revoke`."""

import re
from typing import Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, moment, print_json, print_table
from swell.errors import UserError

app = typer.Typer(help="API keys: make, list, rotate and revoke them.", no_args_is_help=True)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST_DAYS = 36_500
_SHOWN_CHARACTERS = 40
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `swell keys list` shows it.")]


def seconds_of(text: str) -> float:
    """Seconds of a length of time such as 90s, 15m, 24h, 30d, 2w; at most 100 years."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{text!r} is no length of time; write a number and a unit, such as 90s, 15m, 24h, 30d or 2w")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST_DAYS * 86400:
        shown = text.strip()[:_SHOWN_CHARACTERS]
        raise UserError(f"{shown} is longer than 100 years; write at most {_LONGEST_DAYS}d")
    return seconds


@app.command("create")
@command
def create(
    name: Annotated[str, typer.Argument(help="What you call the key.")],
    tenant: Annotated[str, typer.Option(help="Whose requests these are.")] = "default",
    expires: Annotated[str, typer.Option(help="Length of its life, such as 30d. Without: no end.")] = "",
    priority: Annotated[str, typer.Option(help="interactive, standard or batch. Without: the tenant's.")] = "",
    rpm: Annotated[int | None, typer.Option(help="Requests per minute.")] = None,
    tpm: Annotated[int | None, typer.Option(help="Tokens per minute.")] = None,
    concurrent: Annotated[int | None, typer.Option(help="Requests at the same time.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="What its requests may cost, such as '10 / month' or '{usd: 10, period: month}'. May be given again."
        ),
    ] = None,
    time_zone: Annotated[str, typer.Option(help="Whose calendar the budgets' periods follow.")] = "UTC",
    grace: Annotated[str, typer.Option(help="How much more is admitted than a budget, such as 5% or 0.50.")] = "",
    at_limit: Annotated[
        list[str] | None,
        typer.Option(help="A step before requests are refused, such as 'shed_batch 80%' or throttle. May be repeated."),
    ] = None,
    throttle_rpm: Annotated[
        int | None, typer.Option(help="Requests per minute that the step throttle lets through. Without: 10.")
    ] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Make a key and show it, this once."""
    from swell.cli.access import server_or_store
    from swell.cli.key_budgets import BudgetOptions, key_budgets_of
    from swell.server.administration import NewKey
    from swell.state.snapshot import Limits

    options = BudgetOptions(time_zone, grace, tuple(at_limit or ()), throttle_rpm)
    wanted = NewKey(
        name,
        tenant,
        seconds_of(expires) if expires else None,
        priority,
        Limits(rpm, tpm, concurrent, key_budgets_of(budget or (), options)),
    )
    with server_or_store(state) as access:
        _show(access.create_key(wanted), as_json)


@app.command("list")
@command
def list_keys(state: StateOption = DEFAULT_STATE_PATH, as_json: JsonOption = False) -> None:
    """List keys, oldest first. Secrets are nowhere to be listed from."""
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        keys = access.list_keys()
    if as_json:
        print_json(keys)
        return
    columns = ("id", "name", "tenant", "state", "created", "expires", "limits")
    rows = ((k["id"], k["name"], k["tenant"], k["state"], moment(k["created_at_unix"]), moment(k["expires_at_unix"]),
             _limits(k["limits"])) for k in keys)  # fmt: skip
    print_table(columns, rows, empty="There are no keys; make one with: swell keys create NAME")
    for problem in dict.fromkeys(k["refused"] for k in keys if k["refused"]):
        print(f"refused: {problem}")


@app.command("rotate")
@command
def rotate(
    key_id: KeyId,
    grace: Annotated[str, typer.Option(help="How long the old secret still works.")] = "24h",
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret and show it, this once."""
    from swell.cli.access import server_or_store

    grace_seconds = seconds_of(grace)
    with server_or_store(state) as access:
        _show(access.rotate_key(key_id, grace_seconds), as_json)


@app.command("revoke")
@command
def revoke(key_id: KeyId, state: StateOption = DEFAULT_STATE_PATH, as_json: JsonOption = False) -> None:
    """End a key for good; workers refuse it within a second."""
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        key = access.revoke_key(key_id)
    if as_json:
        print_json(key)
    else:
        print(f"Key {key['id']} ({key['name']}) is revoked.")


def _show(key: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    print(key["key"])
    print(f"This is key {key['id']} ({key['name']}) of tenant {key['tenant']}. It is not shown again.")
    if key.get("previous_expires_at_unix"):
        print(f"The old secret works until {moment(key['previous_expires_at_unix'])}.")


def _limits(limits: dict[str, Any]) -> str:
    from swell.cli.key_budgets import shown_budget

    short = {"requests_per_minute": "rpm", "tokens_per_minute": "tpm", "concurrent_requests": "concurrent"}
    counts = [f"{short[name]} {limits[name]}" for name in short if limits.get(name) is not None]
    budgets = [shown_budget(each) for each in limits.get("budgets") or ()]
    return ", ".join(counts + budgets)
