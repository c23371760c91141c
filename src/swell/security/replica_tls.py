"""TLS between gateways and replicas in Pods: both sides show short-lived certificates of one authority (RFC 9).

A replica's certificate names its Deployment and namespace, and a gateway asks for that very name, so that one
workload's certificate cannot pass for another's. A gateway's names its installation, and the sidecar in front of an
engine asks for that: an authority may be a whole cluster's. Nothing here needs more than Python itself.
"""

import os
import ssl
from collections.abc import Collection, Iterable
from pathlib import Path

from swell.errors import StateError
from swell.security.unencrypted import no_passphrase
from swell.state.snapshot import ClientIdentity

DOMAIN = "swell.internal"  # nobody can own it
CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.crt", "tls.crt", "tls.key"  # as Secrets for TLS name them
MAX_PEM_BYTES = 256 * 1024  # of one such file


def replica_name(deployment: str, namespace: str) -> str:
    """What the certificate of a Deployment's Pods must name."""
    return f"{deployment}.{namespace}.replica.{DOMAIN}"


def gateway_name(installation: str) -> str:
    """What the certificate of an installation's gateways, and of its server, must name."""
    return f"{installation.lower()}.gateway.{DOMAIN}"


class Identities:
    """What this process may show replicas. A context is made when it is first needed, and anew after a renewal."""

    def __init__(self) -> None:
        self._known: dict[str, ClientIdentity] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    def put(self, identities: Iterable[ClientIdentity], keep: Collection[str] = ()) -> None:
        """These are all there are from now on, and those to `keep`; connections that were made with others go on."""
        known = {name: self._known[name] for name in keep if name in self._known}
        known |= {each.identity_id: each for each in identities}
        stale = [name for name in self._contexts if self._known[name] != known.get(name)]
        self._known = known
        for name in stale:
            del self._contexts[name]

    @property
    def names(self) -> set[str]:
        """Ids of all there are."""
        return set(self._known)

    def context(self, identity_id: str) -> ssl.SSLContext:
        """For a new connection. Raises StateError where there is none, or it cannot be used."""
        context = self._contexts.get(identity_id)
        if context is None:
            identity = self._known.get(identity_id)
            if identity is None:
                raise StateError(f"there is no certificate yet that the replica would take ({identity_id})")
            context = self._contexts[identity_id] = client_context(identity)
        return context


def client_context(identity: ClientIdentity) -> ssl.SSLContext:
    """Shows `identity` and trusts its authority alone. Raises StateError where they cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    return _mutual(context, identity.ca, identity.certificate, identity.private_key)


def replica_context(folder: Path) -> ssl.SSLContext:
    """For the listener in front of an engine, from a mounted Secret. Raises StateError where it cannot be used."""
    try:
        ca, certificate, key = (
            _read(folder / name) for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE)
        )  # fmt: skip
    except OSError as error:
        raise StateError(f"{error.filename} cannot be read: {error.strerror}; mount the Secret there") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0  # who resumes a session is not asked for a certificate, and its own may have ended
    return _mutual(context, ca, certificate, key)


def names_in(certificate: object) -> frozenset[str]:
    """The DNS names of a certificate, as `getpeercert` gives it; none for one that was not checked."""
    given = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return frozenset(value for kind, value in given if kind == "DNS")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_PEM_BYTES)


def _mutual(context: ssl.SSLContext, ca: bytes, certificate: bytes, key: bytes) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=ca.decode("ascii"))
        _load_chain(context, certificate, key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise StateError(f"the certificate between gateways and replicas cannot be used: {error}") from error
    return context


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Python takes these from files alone; this one is in memory, and nobody else's."""
    handle = os.memfd_create("swell-certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(key.rstrip() + b"\n" + certificate)
        context.load_cert_chain(f"/proc/self/fd/{handle}", password=no_passphrase)
    finally:
        os.close(handle)
