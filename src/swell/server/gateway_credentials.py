"""The private authority between a server and its gateways, where no other one is given."""

import ssl
from pathlib import Path

from swell.errors import UserError
from swell.security.certificates import (
    CertificateFiles,
    IssuedCertificate,
    ensure_local_certificate,
    make_client_certificate,
    make_server_certificate,
)
from swell.security.control_tls import SERVER_NAME, control_server_context
from swell.security.private_files import create_private
from swell.server.gateway_arguments import CA, CERTIFICATE, PRIVATE_KEY
from swell.server.state_directory import StateDirectory
from swell.spec import GatewaysSpec

FOLDER = "control"  # in the state directory


def server_certificate(spec: GatewaysSpec, state: StateDirectory, now_unix: float) -> CertificateFiles:
    """What the server shows gateways, and the authority of what they show: as the file says, or made on first use.

    Raises StateError.
    """
    if spec.ca is not None:
        return CertificateFiles(Path(spec.certificate or ""), Path(spec.private_key or ""), Path(spec.ca))
    return ensure_local_certificate(state.root / FOLDER, [SERVER_NAME], now_unix)


def control_context(spec: GatewaysSpec, state: StateDirectory, now_unix: float) -> ssl.SSLContext:
    """What gateways are shown now. Raises StateError where the files cannot be used."""
    files = server_certificate(spec, state, now_unix)
    return control_server_context(files.ca or Path(), files.certificate, files.private_key)


def make_credentials(state: StateDirectory, folder: Path, name: str, now_unix: float) -> float:
    """A certificate for one gateway, in a new folder; when it ends, in Unix time. Raises UserError or StateError."""
    state.create()
    return _keep(make_client_certificate(state.root / FOLDER, name, now_unix), folder)


def make_server_credentials(state: StateDirectory, folder: Path, now_unix: float) -> float:
    """What `server.gateways` names where the server does not make it by itself, such as in a Secret of several servers.

    From the authority that gateways' certificates come from, in a new folder, without the authority's key; when it
    ends, in Unix time. Raises UserError or StateError.
    """
    state.create()
    return _keep(make_server_certificate(state.root / FOLDER, [SERVER_NAME], now_unix), folder)


def _keep(made: IssuedCertificate, folder: Path) -> float:
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder} is there already; give a new folder") from error
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}; give another folder") from error
    for file, content in ((CA, made.ca), (CERTIFICATE, made.certificate), (PRIVATE_KEY, made.private_key)):
        create_private(folder / file, content)
    return made.ends_unix
