"""What all gateway workers share besides the spec: where the pepper and the listener's certificate lie."""

import socket
from dataclasses import dataclass
from pathlib import Path

from swell.clock import Clock
from swell.server.state_directory import StateDirectory
from swell.spec import ServerSpec

_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  # compared, not bound
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Listener:
    """Files that a worker reads at its start and when they change. Without a certificate it listens in plaintext."""

    pepper_file: Path
    certificate_file: Path | None = None
    private_key_file: Path | None = None
    ca_file: Path | None = None  # what clients must trust, where the certificate is our own


def prepare_listener(spec: ServerSpec, state: StateDirectory, pepper_file: Path, clock: Clock) -> Listener:
    """Check the given certificate, or make one. Raises StateError."""
    if spec.tls is None:
        return Listener(pepper_file)
    from swell.security.certificates import check_certificate, ensure_local_certificate

    if spec.tls.local_ca:
        files = ensure_local_certificate(state.tls, _names(spec.host), clock.unix())
    else:
        files = check_certificate(Path(spec.tls.certificate or ""), Path(spec.tls.private_key or ""), clock.unix())
    return Listener(pepper_file, files.certificate, files.private_key, files.ca)


def renew_listener(spec: ServerSpec, state: StateDirectory, clock: Clock) -> None:
    """Make our own certificate anew where it is near its end; a given one is others' to renew. Raises StateError."""
    if spec.tls is not None and spec.tls.local_ca:
        from swell.security.certificates import ensure_local_certificate

        ensure_local_certificate(state.tls, _names(spec.host), clock.unix())


def _names(host: str) -> list[str]:
    own = [socket.gethostname()] if host in _EVERY_ADDRESS else [host]
    return list(dict.fromkeys([*own, *_LOCAL_NAMES]))
