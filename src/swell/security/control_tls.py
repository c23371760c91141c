"""TLS between a server and gateways on other machines: both sides show a certificate of one private authority.

Whoever has a certificate of that authority is a gateway. A server's names SERVER_NAME as well, wherever it is reached,
so that a gateway's certificate cannot be used to pass for the server. Nothing here needs more than Python itself:
gateways import it.
"""

import os
import ssl
from pathlib import Path

from swell.errors import StateError
from swell.security.unencrypted import no_passphrase
from swell.state.worker import ControlServer

SERVER_NAME = "server.swell.internal"
CONTROL = "swell-control/1"  # a worker's connection, by ALPN
GATEWAY = "swell-gateway/1"  # what a gateway tells of its workers, and is told to begin with
USAGE = "swell-usage/1"  # its spools


def control_server_context(ca: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """For the server's listener. Raises StateError where the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([CONTROL, GATEWAY, USAGE])
    context.num_tickets = 0  # who resumes a session is not asked for a certificate, and its own may have ended
    return _mutual(context, ca, certificate, private_key)


def control_client_context(control: ControlServer, protocol: str) -> ssl.SSLContext:
    """For a connection that speaks `protocol`; its server must be called SERVER_NAME. Raises StateError.

    The files are read each time: certificates are renewed.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([protocol])
    return _mutual(context, Path(control.ca_file), Path(control.certificate_file), Path(control.private_key_file))


def _mutual(context: ssl.SSLContext, ca: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(os.fspath(ca))
        context.load_cert_chain(os.fspath(certificate), os.fspath(private_key), password=no_passphrase)
    except (OSError, ssl.SSLError) as error:
        reason = (error.strerror if not isinstance(error, ssl.SSLError) else None) or str(error)
        raise StateError(
            f"the certificate {certificate} with {private_key} of the authority {ca} cannot be used between server and "
            f"gateways: {reason}; give PEM files that belong together"
        ) from error
    return context
