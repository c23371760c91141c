"""TLS certificates: a local authority made on first use, a leaf for the listener, and checks of given files.

`tls/ca.pem` is what clients must trust. `tls/ca.key` holds the authority's key and certificate together, and
`tls/server.pem` the leaf's chain and key, so that each pair is replaced as one file and can never be mismatched.
"""

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swell.errors import StateError
from swell.security.private_files import create_private, read_private, replace_private
from swell.security.unencrypted import no_passphrase

CA_DAYS = 3650
LEAF_DAYS = 397  # what strict clients accept at most
RENEW_DAYS = 60  # a leaf with less left than this is replaced
BACKDATE = timedelta(hours=1)  # for clients whose clocks are late
AUTHORITY_BACKDATE = timedelta(days=1)  # for all who use it, while the clock of whoever made it may have been fast

_KEY_USES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True)
class CertificateFiles:
    """PEM files for a listener; `ca` is what clients must trust (None for a certificate that was given)."""

    certificate: Path
    private_key: Path
    ca: Path | None = None


@dataclass(frozen=True)
class IssuedCertificate:
    """What one side proves itself with, as PEM, and the authority that both trust."""

    ca: bytes
    certificate: bytes
    private_key: bytes = field(repr=False)
    ends_unix: float


def make_client_certificate(folder: Path, name: str, now_unix: float) -> IssuedCertificate:
    """A certificate for a client called `name` from the local authority in `folder`, which is made on first use.

    It can be used for nothing but to be a client. Raises StateError where the authority is unreadable.
    """
    now = datetime.fromtimestamp(now_unix, UTC)
    ca_key, ca = _ensure_authority(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    return _issued(ca, _signed(name, [name], ExtendedKeyUsageOID.CLIENT_AUTH, ca_key, ca, key, now), key)


def make_server_certificate(folder: Path, hosts: Sequence[str], now_unix: float) -> IssuedCertificate:
    """A certificate for a server called `hosts`, to be kept elsewhere than beside the local authority in `folder`.

    The authority is made on first use. It can be used for nothing but to be a server. Raises StateError where the
    authority is unreadable.
    """
    now = datetime.fromtimestamp(now_unix, UTC)
    ca_key, ca = _ensure_authority(folder, now)
    key = ec.generate_private_key(ec.SECP256R1())
    return _issued(ca, _signed("Swell", hosts, ExtendedKeyUsageOID.SERVER_AUTH, ca_key, ca, key, now), key)


def make_authority(now_unix: float) -> bytes:
    """A new authority, its key and certificate as one PEM, for whoever keeps it elsewhere than in a folder."""
    return _make_authority(datetime.fromtimestamp(now_unix, UTC))


def issue_certificate(
    authority: bytes, host: str, now_unix: float, *, lasts_seconds: float, is_client: bool = False
) -> IssuedCertificate:
    """A certificate for `host` from what `make_authority` made, to be a server or a client and nothing else.

    It is good for `lasts_seconds` from now on. Raises StateError where the authority is none, or has ended.
    """
    now = datetime.fromtimestamp(now_unix, UTC)
    ca_key, ca = _read_authority(authority)
    if now >= ca.not_valid_after_utc:
        raise StateError(f"the certificate authority ended on {ca.not_valid_after_utc:%Y-%m-%d}")
    use = ExtendedKeyUsageOID.CLIENT_AUTH if is_client else ExtendedKeyUsageOID.SERVER_AUTH
    key = ec.generate_private_key(ec.SECP256R1())
    lasts = BACKDATE + timedelta(seconds=lasts_seconds)
    return _issued(ca, _signed("Swell", [host], use, ca_key, ca, key, now, lasts), key)


def authority_begin(authority: bytes) -> float:
    """From when on what `make_authority` made is good, in Unix time. Raises StateError where it is no authority."""
    return _read_authority(authority)[1].not_valid_before_utc.timestamp()


def certificate_end(certificate: bytes) -> float:
    """When a PEM certificate ends, in Unix time. Raises StateError where it is none."""
    return _read(certificate).not_valid_after_utc.timestamp()


def ensure_local_certificate(folder: Path, hosts: Sequence[str], now_unix: float) -> CertificateFiles:
    """A leaf for `hosts` (names and IP addresses, at least one) from the local authority in `folder`.

    Made on first use, and made anew when it is near its end or its hosts changed; the authority stays, so that
    clients which trust it go on. Raises StateError where a file is unreadable.
    """
    now = datetime.fromtimestamp(now_unix, UTC)
    ca_key, ca = _ensure_authority(folder, now)
    leaf_path, ca_path = folder / "server.pem", folder / "ca.pem"
    ca_pem = ca.public_bytes(Encoding.PEM)
    if not ca_path.exists() or ca_path.read_bytes() != ca_pem:
        replace_private(ca_path, ca_pem)
        ca_path.chmod(0o644)  # clients read it; it holds nothing secret
    if not _is_good_leaf(leaf_path, ca, hosts, now):
        replace_private(leaf_path, _make_leaf(ca_key, ca, hosts, now))
    return CertificateFiles(leaf_path, leaf_path, ca_path)


def check_certificate(certificate: Path, private_key: Path, now_unix: float) -> CertificateFiles:
    """Check a given pair. Raises StateError if it is unreadable, mismatched, expired or not yet valid."""
    now = datetime.fromtimestamp(now_unix, UTC)
    try:
        chain = x509.load_pem_x509_certificates(certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise StateError(
            f"the certificate {certificate} cannot be read: {_reason(error)}; give a PEM chain, leaf first"
        ) from error
    leaf = chain[0]
    key_content = read_private(private_key, "the private key")
    try:
        key = load_pem_private_key(key_content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(
            f"the private key {private_key} cannot be read: {_reason(error)}; give an unencrypted PEM file"
        ) from error
    if _public(key.public_key()) != _public(leaf.public_key()):
        raise StateError(
            f"the private key {private_key} does not belong to the certificate {certificate}; "
            "name the key that its request was made with"
        )
    if now >= leaf.not_valid_after_utc:
        raise StateError(f"the certificate {certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d}; renew it")
    if now < leaf.not_valid_before_utc:
        raise StateError(
            f"the certificate {certificate} is not valid before {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            "check this machine's clock"
        )
    return CertificateFiles(certificate, private_key)


def server_ssl_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """What a listener needs: TLS 1.2 or newer, HTTP/1.1 alone. Raises StateError where OpenSSL refuses the pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(os.fspath(certificate), os.fspath(private_key), password=no_passphrase)
    except (OSError, ssl.SSLError) as error:
        raise StateError(f"TLS cannot use {certificate} with {private_key}: {_reason(error)}") from error
    return context


def _read(certificate: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise StateError(f"a certificate cannot be read: {_reason(error)}") from error


def _read_authority(authority: bytes) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key, certificate = load_pem_private_key(authority, None), x509.load_pem_x509_certificate(authority)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise StateError(f"the certificate authority cannot be read: {_reason(error)}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StateError("the certificate authority is not one that Swell made")
    if key.public_key() != certificate.public_key():  # nobody would take what it signs
        raise StateError("the certificate authority's key is not its certificate's")
    return key, certificate


def _ensure_authority(folder: Path, now: datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path = folder / "ca.key"
    if not path.exists():
        create_private(path, _make_authority(now))
    content = read_private(path, "the local certificate authority")
    try:
        key = load_pem_private_key(content, None)
        certificate = x509.load_pem_x509_certificate(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _lost_authority(path, "cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _lost_authority(path, "is not one that Swell made")
    if now + timedelta(days=RENEW_DAYS) >= certificate.not_valid_after_utc:
        raise _lost_authority(path, f"ends on {certificate.not_valid_after_utc:%Y-%m-%d}")
    return key, certificate


def _lost_authority(path: Path, problem: str) -> StateError:
    return StateError(
        f"the local certificate authority {path} {problem}; remove the folder {path.parent} to have a new one made, "
        "and give clients the new ca.pem"
    )


def _make_authority(now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Swell local CA {os.urandom(4).hex()}")])
    certificate = (
        _builder(name, name, key, now + BACKDATE - AUTHORITY_BACKDATE, timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _private_pem(key) + certificate.public_bytes(Encoding.PEM)


def _make_leaf(ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, hosts: Sequence[str], now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _signed("Swell", hosts, ExtendedKeyUsageOID.SERVER_AUTH, ca_key, ca, key, now)
    return _private_pem(key) + certificate.public_bytes(Encoding.PEM)


def _signed(
    name: str,
    hosts: Sequence[str],
    use: x509.ObjectIdentifier,
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    lasts: timedelta = timedelta(LEAF_DAYS),
) -> x509.Certificate:
    """A leaf for `use` alone."""
    return (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ca.subject, key, now, lasts)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(hosts)), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _issued(ca: x509.Certificate, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> IssuedCertificate:
    return IssuedCertificate(
        ca.public_bytes(Encoding.PEM),
        leaf.public_bytes(Encoding.PEM),
        _private_pem(key),
        leaf.not_valid_after_utc.timestamp(),
    )


def _is_good_leaf(path: Path, ca: x509.Certificate, hosts: Sequence[str], now: datetime) -> bool:
    try:
        content = read_private(path, "the certificate")
        load_pem_private_key(content, None)
        leaf = x509.load_pem_x509_certificate(content)
        leaf.verify_directly_issued_by(ca)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (StateError, ValueError, TypeError, x509.ExtensionNotFound, UnsupportedAlgorithm, InvalidSignature):
        return False  # the leaf is ours to replace
    in_time = leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc - timedelta(days=RENEW_DAYS)
    return in_time and set(names) == set(_names(hosts))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, lasts: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now - BACKDATE + lasts)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(**allowed: bool) -> x509.KeyUsage:
    return x509.KeyUsage(**{use: allowed.get(use, False) for use in _KEY_USES})


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: dict[x509.GeneralName, None] = {}  # a set that keeps its order
    for host in hosts:
        try:
            names[x509.IPAddress(ipaddress.ip_address(host.strip("[]")))] = None
        except ValueError:
            names[_dns_name(host)] = None
    return list(names)


def _dns_name(host: str) -> x509.DNSName:
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except ValueError as error:
        raise StateError(f"{host!r} cannot be a certificate's host name; give a DNS name or an IP address") from error


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error).splitlines()[0]
