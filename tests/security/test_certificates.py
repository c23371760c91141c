"""Certificates: the local authority and its leaf, checks of given files, and a handshake with both."""

import ipaddress
import socket
import ssl
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from swell.errors import StateError
from swell.security.certificates import (
    check_certificate,
    ensure_local_certificate,
    issue_certificate,
    make_authority,
    server_ssl_context,
)

NOW = 1_800_000_000.0
DAY = 86_400.0
HOSTS = ["localhost", "127.0.0.1", "::1"]


def _leaf(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_leaf_for_the_given_hosts_comes_from_an_authority_that_stays(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, NOW)
    leaf = _leaf(files.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host) for host in HOSTS[1:]]
    public = leaf.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    assert isinstance(public.curve, ec.SECP256R1)
    assert files.ca is not None
    leaf.verify_directly_issued_by(_leaf(files.ca))
    assert check_certificate(files.certificate, files.private_key, NOW).certificate == files.certificate


def test_private_files_are_private_and_what_clients_need_is_not_secret(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, NOW)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"ca.key": 0o600, "server.pem": 0o600, "ca.pem": 0o644}
    assert files.ca is not None
    assert b"PRIVATE" not in files.ca.read_bytes()


def test_nothing_changes_the_second_time(tmp_path: Path) -> None:
    ensure_local_certificate(tmp_path, HOSTS, NOW)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ensure_local_certificate(tmp_path, [*reversed(HOSTS), "localhost"], NOW + DAY)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("hosts", "later"), [(["localhost"], 0.0), (HOSTS, 338 * DAY), (HOSTS, -DAY)])
def test_a_leaf_near_its_end_or_for_other_hosts_is_renewed_by_the_same_authority(
    tmp_path: Path, hosts: list[str], later: float
) -> None:
    first = ensure_local_certificate(tmp_path, HOSTS, NOW)
    assert first.ca is not None
    old_leaf, old_ca = _leaf(first.certificate), first.ca.read_bytes()
    second = ensure_local_certificate(tmp_path, hosts, NOW + later)
    assert _leaf(second.certificate).serial_number != old_leaf.serial_number
    assert first.ca.read_bytes() == old_ca


def test_a_broken_leaf_is_made_anew_and_a_lost_ca_pem_comes_back(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, NOW)
    assert files.ca is not None
    ca = files.ca.read_bytes()
    files.certificate.write_bytes(b"nonsense")
    files.ca.unlink()
    ensure_local_certificate(tmp_path, HOSTS, NOW)
    assert files.ca.read_bytes() == ca
    assert check_certificate(files.certificate, files.private_key, NOW)


@pytest.mark.parametrize("spoil", ["nonsense", "exposed", "ended"])
def test_an_authority_that_cannot_be_used_is_refused_with_what_to_do(tmp_path: Path, spoil: str) -> None:
    ensure_local_certificate(tmp_path, HOSTS, NOW)
    if spoil == "nonsense":
        (tmp_path / "ca.key").write_bytes(b"nonsense")
    elif spoil == "exposed":
        (tmp_path / "ca.key").chmod(0o644)
    with pytest.raises(StateError, match=r"remove the folder|chmod 600"):
        ensure_local_certificate(tmp_path, HOSTS, NOW + 3649 * DAY if spoil == "ended" else NOW)


def test_a_host_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="host name"):
        ensure_local_certificate(tmp_path, ["a" * 64 + ".example"], NOW)


def _handshake(context: ssl.SSLContext, client: ssl.SSLContext, host: str) -> str | None:
    """The version that a client of `host` and a listener agree on."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as connection:
            return connection.version()
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_the_authority_connects_by_every_host(tmp_path: Path, host: str) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, time.time())  # OpenSSL judges by the machine's clock
    client = ssl.create_default_context(cafile=str(files.ca))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert _handshake(server_ssl_context(files.certificate, files.private_key), client, host) == "TLSv1.3"


def test_other_hosts_and_other_authorities_are_not_trusted(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, time.time())
    context = server_ssl_context(files.certificate, files.private_key)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(context, ssl.create_default_context(cafile=str(files.ca)), "example.org")
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trustme.CA().configure_trust(stranger)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(context, stranger, "localhost")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_older_tls_is_refused(tmp_path: Path) -> None:
    files = ensure_local_certificate(tmp_path, HOSTS, NOW)
    context = server_ssl_context(files.certificate, files.private_key)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        _handshake(context, old, "localhost")


@pytest.fixture
def given(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate and its key, as an operator brings them."""
    issued = trustme.CA().issue_cert("swell.example", not_after=datetime(2040, 1, 1, tzinfo=UTC))
    certificate, private_key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    private_key.touch(0o600)
    private_key.write_bytes(issued.private_key_pem.bytes())
    return certificate, private_key


def test_a_given_pair_is_accepted_and_has_no_authority_of_ours(given: tuple[Path, Path]) -> None:
    files = check_certificate(*given, NOW)
    assert (files.certificate, files.private_key, files.ca) == (*given, None)
    assert server_ssl_context(*given).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("now", "sentence"), [(NOW + 30_000 * DAY, "expired on .* renew"), (-20_000 * DAY, "not valid before")]
)
def test_a_given_certificate_out_of_its_time_is_refused(given: tuple[Path, Path], now: float, sentence: str) -> None:
    with pytest.raises(StateError, match=sentence):
        check_certificate(*given, now)


def test_a_key_of_another_certificate_is_refused(given: tuple[Path, Path]) -> None:
    given[1].write_bytes(trustme.CA().issue_cert("swell.example").private_key_pem.bytes())
    with pytest.raises(StateError, match="does not belong"):
        check_certificate(*given, NOW)
    with pytest.raises(StateError, match="TLS cannot use"):
        server_ssl_context(*given)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_an_unreadable_file_is_named(given: tuple[Path, Path], which: int, content: bytes | None) -> None:
    if content is None:
        given[which].unlink()
    else:
        given[which].write_bytes(content)
    with pytest.raises(StateError, match=f"{given[which].name} cannot be read"):
        check_certificate(*given, NOW)


def test_a_key_that_others_can_read_is_refused(given: tuple[Path, Path]) -> None:
    given[1].chmod(0o644)
    with pytest.raises(StateError, match="chmod 600"):
        check_certificate(*given, NOW)


def test_what_was_issued_shows_no_key_where_it_is_printed() -> None:
    issued = issue_certificate(make_authority(NOW), "localhost", NOW, lasts_seconds=DAY)
    assert b"PRIVATE KEY" in issued.private_key
    assert "PRIVATE KEY" not in repr(issued)
