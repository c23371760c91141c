"""Certificates that are renewed while a process runs: what is shown follows the files, never what cannot be used."""

import asyncio
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from swell.clock import ManualClock, SystemClock
from swell.gateway.tls import listener_protocol, server_context
from swell.security.certificates import LEAF_DAYS, ensure_local_certificate
from swell.security.reloading import SAY_AGAIN_SECONDS, ReloadingContext, validity

NOW = SystemClock().unix()  # TLS looks at the machine's own clock
DAY = 86400.0


class Shown:
    """A certificate at a place of its own, and what is read from there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self.certificate, self.private_key = folder / "tls.crt", folder / "tls.key"
        self.renew()
        self.context = ReloadingContext(
            self.certificate,
            (self.private_key,),
            lambda: server_context(str(self.certificate), str(self.private_key)),
        )

    def make(self, now: float = NOW) -> Path:
        """Certificate and key in one file, from an authority of their own."""
        self._made += 1
        return ensure_local_certificate(self._folder / str(self._made), ["localhost"], now).certificate

    def renew(self, now: float = NOW) -> int:
        """Put another certificate there, as who renews it does; its serial number."""
        made = self.make(now)
        shutil.copy(made, self.certificate)
        shutil.copy(made, self.private_key)
        return serial(made)

    def shown(self) -> int:
        """The serial number of what a client is shown now."""
        return asyncio.run(self._shown())

    async def _shown(self) -> int:
        loop = asyncio.get_running_loop()
        accept = listener_protocol(asyncio.Protocol, lambda: self.context.current)
        server = await loop.create_server(accept, "127.0.0.1", 0)
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        transport, _ = await loop.create_connection(
            asyncio.Protocol, "127.0.0.1", server.sockets[0].getsockname()[1], ssl=client
        )
        seen = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        transport.abort()
        server.close()
        return x509.load_der_x509_certificate(seen).serial_number


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def test_a_renewed_certificate_is_shown_to_the_next_client(shown: Shown) -> None:
    first, before = shown.context.current, shown.shown()
    assert shown.context.look(NOW) == ""
    assert shown.context.current is first
    new = shown.renew()
    assert shown.context.look(NOW) == ""
    assert shown.shown() == new != before


def test_a_link_that_leads_elsewhere_is_another_certificate(shown: Shown) -> None:
    """As Kubernetes puts a changed Secret in place."""
    made = shown.make()
    for file in (shown.certificate, shown.private_key):
        file.unlink()
        file.symlink_to(made)
    assert shown.context.look(NOW) == ""
    assert shown.shown() == serial(made)


def test_files_that_do_not_belong_together_change_nothing_until_they_do(shown: Shown) -> None:
    before = shown.shown()
    made = shown.make()
    shutil.copy(made, shown.certificate)
    shown.certificate.write_text("".join(made.read_text().partition("-----BEGIN CERT")[1:]))
    problem = shown.context.look(NOW)
    assert "the one of before is shown on: it ends on 20" in problem
    assert shown.shown() == before
    assert shown.context.look(NOW + 30) == ""  # told once
    assert shown.context.look(NOW + SAY_AGAIN_SECONDS) == problem
    shutil.copy(made, shown.private_key)
    assert shown.context.look(NOW + SAY_AGAIN_SECONDS + 30) == ""
    assert shown.shown() == serial(made)


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"])
def test_a_file_that_is_no_certificate_keeps_the_one_of_before(shown: Shown, content: str) -> None:
    before = shown.shown()
    shown.certificate.write_text(content)
    assert "until it is put right" in shown.context.look(NOW)
    assert shown.shown() == before


def test_a_file_that_is_gone_keeps_the_one_of_before(shown: Shown) -> None:
    before = shown.shown()
    shown.private_key.unlink()
    assert f"{shown.private_key} cannot be read: No such file" in shown.context.look(NOW)
    assert shown.shown() == before


def test_a_new_one_that_has_ended_keeps_the_one_of_before(shown: Shown) -> None:
    before = shown.shown()
    shown.renew(NOW - (LEAF_DAYS + 1) * DAY)
    assert "has ended already" in shown.context.look(NOW)
    assert shown.shown() == before


def test_a_new_one_that_is_not_good_yet_keeps_the_one_of_before_until_it_is(shown: Shown) -> None:
    before = shown.shown()
    made = shown.renew(NOW + 5 * DAY)
    assert "is not good before" in shown.context.look(NOW)
    assert shown.shown() == before
    assert shown.context.look(NOW + 5 * DAY) == ""
    assert shown.shown() == made


def test_one_that_nobody_renews_is_told_before_it_ends(shown: Shown) -> None:
    _, ends = validity(shown.certificate)
    assert shown.context.look(ends - 60 * DAY) == ""
    assert "has not been renewed; it ends on" in shown.context.look(ends - 30 * DAY)
    assert "it has ended on" in shown.context.look(ends + DAY)
    shown.renew()
    assert shown.context.look(NOW) == ""


def test_our_own_is_made_anew_in_time(tmp_path: Path) -> None:
    clock = ManualClock(NOW)

    def ensure() -> Path:
        return ensure_local_certificate(tmp_path, ["localhost"], clock.unix()).certificate

    path = ensure()
    context = ReloadingContext(path, (), lambda: server_context(str(path), str(path)), ensure)
    first, before = context.current, serial(path)
    assert (context.look(clock.unix()), context.current) == ("", first)
    clock.advance((LEAF_DAYS - 30) * DAY)
    assert context.look(clock.unix()) == ""
    assert context.current is not first
    assert serial(path) != before


@given(
    begins=st.datetimes(datetime(1971, 1, 1), datetime(2300, 1, 1), timezones=st.just(UTC)),
    lasts=st.timedeltas(timedelta(hours=2), timedelta(days=9999)),
    subject=st.text("abcdefgh .", min_size=1, max_size=60),
)
def test_the_times_are_those_that_a_certificate_says(
    tmp_path_factory: pytest.TempPathFactory, begins: datetime, lasts: timedelta, subject: str
) -> None:
    made = signed(begins.replace(microsecond=0), lasts, subject)
    path = tmp_path_factory.getbasetemp() / "made.pem"
    path.write_bytes(PRIVATE_KEY + made.public_bytes(Encoding.PEM) + OTHER.public_bytes(Encoding.PEM))
    assert validity(path) == (made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp())


def signed(begins: datetime, lasts: timedelta, subject: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(begins).not_valid_after(begins + lasts).sign(KEY, hashes.SHA256())


KEY = ec.generate_private_key(ec.SECP256R1())
PRIVATE_KEY = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
OTHER = signed(datetime(2000, 1, 1, tzinfo=UTC), timedelta(days=1), "the authority")
