"""`swell credentials`: what a gateway on another machine proves itself with."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json


@command
def credentials(
    folder: Annotated[Path, typer.Argument(help="Made by this command: ca.crt, tls.crt and tls.key, for one gateway.")],
    name: Annotated[str, typer.Option(help="Whom the certificate is for.")] = "gateway",
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Make the certificate that a gateway elsewhere shows this server. Who has it can read every key's digest."""
    from swell.clock import SystemClock
    from swell.server.gateway_credentials import make_credentials
    from swell.server.state_directory import StateDirectory

    ends = make_credentials(StateDirectory(state.absolute()), folder, name, SystemClock().unix())
    if as_json:
        print_json({"folder": str(folder), "ends_unix": ends})
        return
    typer.echo(f"{folder} holds what one gateway needs. Bring it there, readable by its user alone, and run:")
    typer.echo(f"  swell gateway --credentials {folder} --server HOST:PORT")
    until = datetime.fromtimestamp(ends, UTC)
    typer.echo(
        f"It is good until {until:%Y-%m-%d}. Before that, make another one and put it in its place; nothing restarts."
    )
