"""`swell credentials`: what a gateway on another machine proves itself with, and what its server does."""

from pathlib import Path
from typing import Annotated

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json

_GATEWAY = "gateway"


@command
def credentials(
    folder: Annotated[Path, typer.Argument(help="Made by this command: ca.crt, tls.crt and tls.key.")],
    name: Annotated[str | None, typer.Option(help=f"Which gateway it is for. Without: {_GATEWAY}.")] = None,
    is_server: Annotated[
        bool, typer.Option("--server", help="For the server, where server.gateways names files, not for a gateway.")
    ] = False,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Make the certificate that a gateway elsewhere shows this server. Who has it can read every key's digest.

    With --server, what the server shows gateways: from the same authority, which stays in the state directory.
    """
    from swell.clock import SystemClock
    from swell.errors import UserError
    from swell.server.gateway_credentials import make_credentials, make_server_credentials
    from swell.server.state_directory import StateDirectory

    if is_server and name is not None:
        raise UserError("--name is for a gateway, and --server for the server, which has one name; give one of them")
    directory, now = StateDirectory(state.absolute()), SystemClock().unix()
    if is_server:
        ends = make_server_credentials(directory, folder, now)
    else:
        ends = make_credentials(directory, folder, name or _GATEWAY, now)
    if as_json:
        print_json({"folder": str(folder), "ends_unix": ends})
    elif is_server:
        typer.echo(f"{folder} holds what the server shows gateways. Bring it there, and name its files in swell.yaml:")
        typer.echo("  server: {gateways: {ca: ca.crt, certificate: tls.crt, private_key: tls.key}}")
    else:
        typer.echo(f"{folder} holds what one gateway needs. Bring it there, readable by its user alone, and run:")
        typer.echo(f"  swell gateway --credentials {folder} --server HOST:PORT")
