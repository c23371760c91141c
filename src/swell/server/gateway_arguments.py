"""What `swell gateway` may be told, checked once; and the same where only a gateway is installed."""

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from swell.errors import SwellError, UserError
from swell.observe.logs import log_to_stream
from swell.server.gateway_host import GatewayWishes, run_gateway
from swell.state.worker import ControlServer

DEFAULT_STATE = ".swell-gateway"
CA, CERTIFICATE, PRIVATE_KEY = "ca.crt", "tls.crt", "tls.key"  # as in a Secret of type kubernetes.io/tls
MAX_WORKERS = 256
MAX_LEAVE_SECONDS = 600.0
_LOOPBACK = ("127.", "localhost", "::1")


def gateway_wishes(
    *,
    servers: Sequence[str],
    credentials: Path,
    state: Path,
    name: str | None,
    host: str,
    port: int | None,
    workers: int | None,
    certificate: Path | None,
    private_key: Path | None,
    leave_seconds: float,
    allow_plaintext_off_loopback: bool,
) -> GatewayWishes:
    """What the command line says, made sense of. Raises UserError."""
    for file in (CA, CERTIFICATE, PRIVATE_KEY):
        if not (credentials / file).is_file():
            raise UserError(
                f"there is no {credentials / file}; have a folder made where the server is, with: "
                "swell credentials FOLDER, and bring it here"
            )
    if (certificate is None) != (private_key is None):
        raise UserError("--certificate and --private-key go together; give both or neither")
    if certificate is None and not allow_plaintext_off_loopback and not host.startswith(_LOOPBACK):
        raise UserError(
            f"{host} is reachable from other machines and would carry keys unencrypted; give --certificate and "
            "--private-key, or --allow-plaintext-off-loopback where something in front of it speaks TLS"
        )
    if workers is not None and not 1 <= workers <= MAX_WORKERS:
        raise UserError(f"--workers is {workers}; give 1 to {MAX_WORKERS}")
    if port is not None and not 1 <= port <= 65_535:
        raise UserError(f"--port is {port}; give 1 to 65535")
    if not 0 <= leave_seconds <= MAX_LEAVE_SECONDS:
        raise UserError(f"--leave-seconds is {leave_seconds:g}; give 0 to {MAX_LEAVE_SECONDS:g}")
    folder = credentials.absolute()
    control = ControlServer(
        tuple(_address(server) for server in servers),
        str(folder / CA), str(folder / CERTIFICATE), str(folder / PRIVATE_KEY),
    )  # fmt: skip
    if not control.addresses:
        raise UserError("no server is named; give its address with --server HOST:PORT")
    return GatewayWishes(
        control=control,
        state=state,
        name=name or socket.gethostname(),
        host=host,
        port=port,
        workers=workers,
        certificate_file=str(certificate.absolute()) if certificate else "",
        private_key_file=str(private_key.absolute()) if private_key else "",
        leave_seconds=leave_seconds,
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise UserError(f"--server is {text!r}; give HOST:PORT, as server.gateways says in the server's file")
    return host, int(port)


def gateway_parser() -> argparse.ArgumentParser:
    """Of the command line; what it reads are the arguments of `gateway_wishes`."""
    parser = argparse.ArgumentParser(prog="swell gateway", description="Serve as a gateway of a server elsewhere.")
    parser.add_argument("--server", action="append", default=[], dest="servers", help="HOST:PORT; may come again")
    parser.add_argument(
        "--credentials", type=Path, required=True, help=f"folder with {CA}, {CERTIFICATE}, {PRIVATE_KEY}"
    )
    parser.add_argument("--state", type=Path, default=Path(DEFAULT_STATE), help="usage that is not sent up yet")
    parser.add_argument("--name", help="what people call it; default: the host's name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, help="default: the server's")
    parser.add_argument("--workers", type=int, help="default: the server's")
    parser.add_argument("--certificate", type=Path, help="PEM chain for clients")
    parser.add_argument("--private-key", type=Path)
    parser.add_argument("--leave-seconds", type=float, default=0.0, help="go on accepting so long after SIGTERM")
    parser.add_argument("--allow-plaintext-off-loopback", action="store_true")
    return parser


def main(arguments: Sequence[str]) -> int:
    """As `swell gateway`; 0 after an orderly end, 1 where it failed, 2 for what the user must change."""
    log_to_stream(sys.stderr)
    try:
        run_gateway(gateway_wishes(**vars(gateway_parser().parse_args(arguments))))
    except SwellError as error:
        print(f"swell gateway: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    logging.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
