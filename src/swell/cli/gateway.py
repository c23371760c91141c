"""`swell gateway`: a gateway on another machine than its server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from swell.cli.output import command


@command
def gateway(
    servers: Annotated[
        list[str],
        typer.Option("--server", help="HOST:PORT of server.gateways; give several where several servers wait."),
    ],
    credentials: Annotated[
        Path, typer.Option(help="A folder with ca.crt, tls.crt and tls.key, made with: swell credentials.")
    ],
    state: Annotated[
        Path, typer.Option("--state", envvar="SWELL_STATE", help="Where usage waits until the server has it.")
    ] = Path(".swell-gateway"),
    name: Annotated[str | None, typer.Option(help="What people call it. Without: the host's name.")] = None,
    host: Annotated[str, typer.Option(help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Listen on this port instead of the server's.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes instead of as many as the server says.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="PEM chain that clients are shown.")] = None,
    private_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    leave_seconds: Annotated[
        float, typer.Option(help="After SIGTERM go on accepting for so long, until balancers know.")
    ] = 0.0,
    allow_plaintext_off_loopback: Annotated[
        bool, typer.Option("--allow-plaintext-off-loopback", help="Something in front of it speaks TLS.")
    ] = False,
) -> None:
    """Serve clients on this machine for a server on another one, until SIGTERM, which drains."""
    from swell.observe.logs import log_to_stream
    from swell.server.gateway_arguments import gateway_wishes
    from swell.server.gateway_host import run_gateway

    wishes = gateway_wishes(
        servers=servers,
        credentials=credentials,
        state=state,
        name=name,
        host=host,
        port=port,
        workers=workers,
        certificate=certificate,
        private_key=private_key,
        leave_seconds=leave_seconds,
        allow_plaintext_off_loopback=allow_plaintext_off_loopback,
    )
    log_to_stream(sys.stderr)
    run_gateway(wishes)
