"""`swell alerts`, and `swell alerts test`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from swell.cli.output import (
    DEFAULT_STATE_PATH,
    EXIT_FAILED,
    JsonOption,
    StateOption,
    command,
    moment,
    print_json,
    print_table,
)

_TABLE_ROWS = 30


class Kind(StrEnum):
    """What an alert can be about."""

    BUDGET = "budget"
    OBJECTIVE = "objective"
    CAPACITY = "capacity"
    REPLICAS = "replicas"
    SPOT_LOSS = "spot_loss"
    REVIEW = "review"


app = typer.Typer(
    help="Alerts of budgets, models and reviews, and what became of each; test: send one now.",
    invoke_without_command=True,
)


@app.callback()
@command
def alerts(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="At most so many, newest first.", min=1)] = _TABLE_ROWS,
    kind: Annotated[Kind | None, typer.Option(help="Only alerts of this kind.")] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """List alerts, newest first, and what became of each at every sink."""
    if context.invoked_subcommand is not None:
        return
    from swell.cli.access import server_or_store

    with server_or_store(state) as access:
        listed = access.alerts(limit, None if kind is None else kind.value)
    if as_json:
        print_json(listed)
        return
    print_table(("at", "kind", "severity", "alert", "sent to"), map(_row, listed), empty="There are no alerts.")


@app.command("test")
@command
def send_test(
    sink: Annotated[str | None, typer.Option(help="Only this sink, by its name in the file.")] = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Have the running server send a test alert now. Exit code 1 where a sink does not take it."""
    from swell.cli.access import server

    with server(state) as running:
        outcomes = running.test_alerts(sink)
    if as_json:
        print_json(outcomes)
    else:
        for outcome in outcomes:
            print(f"{outcome['sink']}: {outcome['problem'] or 'accepted'}")
    if not all(outcome["accepted"] for outcome in outcomes):
        raise typer.Exit(EXIT_FAILED)


def _row(alert: dict[str, Any]) -> tuple[object, ...]:
    sent = "\n".join(map(_outcome, alert["deliveries"])) or "nowhere: no sink was configured"
    return moment(alert["at_unix"], seconds=True), alert["kind"], alert["severity"], alert["title"], sent


def _outcome(delivery: dict[str, Any]) -> str:
    sink, tries = delivery["sink"], delivery["attempts"]
    if delivery["state"] == "delivered":
        return f"{sink}, {moment(delivery['delivered_at_unix'], seconds=True)}"
    if delivery["state"] == "given up":
        return f"{sink}: given up, {delivery['given_up']}"
    if not tries:
        return f"{sink}: waiting"
    times = "once" if tries == 1 else f"{tries} times"
    again = moment(delivery["next_try_unix"], seconds=True)
    return f"{sink}: waiting; tried {times}, again at {again}: {delivery['problem']}"
