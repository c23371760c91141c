"""Certificates of a server that runs for longer than they last."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import trustme

from swell.clock import ManualClock, SystemClock
from swell.security.certificates import LEAF_DAYS, RENEW_DAYS
from swell.security.control_tls import SERVER_NAME
from swell.security.reloading import LATE_PART, validity
from swell.server.certificate_watch import CertificateWatch
from swell.server.listener import prepare_listener
from swell.server.state_directory import StateDirectory
from swell.spec import GatewaysSpec, parse_spec

DAY = 86400.0


class Server:
    """What a server knows of its certificates, with a clock of its own."""

    def __init__(self, folder: Path, server: str) -> None:
        self.spec = parse_spec(
            f"models: [{{name: chat, endpoints: ['http://127.0.0.1:9']}}]\nserver: {server}\n", origin="swell.yaml"
        ).server
        self.state = StateDirectory(folder / "state")
        self.state.create()
        self.clock = ManualClock(SystemClock().unix())
        self.said: list[str] = []
        self.watch = CertificateWatch(self.spec, self.state, self.clock, self.said.append)
        prepare_listener(self.spec, self.state, folder / "pepper", self.clock)

    @property
    def gateways(self) -> GatewaysSpec:
        assert self.spec.gateways is not None
        return self.spec.gateways


def test_what_the_server_makes_itself_is_made_anew_while_it_runs(tmp_path: Path) -> None:
    server = Server(tmp_path, "{tls: {local_ca: true}, gateways: {port: 7443}}")
    control = server.watch.open_control(server.gateways)
    first, files = control.current, [server.state.tls / "server.pem", server.state.root / "control" / "server.pem"]
    before = [path.read_bytes() for path in files]
    server.watch.look()
    assert (control.current, [path.read_bytes() for path in files]) == (first, before)
    server.clock.advance((LEAF_DAYS - RENEW_DAYS + 1) * DAY)
    server.watch.look()
    assert control.current is not first
    assert all(path.read_bytes() != old for path, old in zip(files, before, strict=True))
    assert server.said == []


def test_a_given_one_that_was_renewed_badly_is_told_and_the_one_of_before_stays(tmp_path: Path) -> None:
    authority = trustme.CA()
    paths = {name: tmp_path / name for name in ("ca", "certificate", "private_key")}

    def renew() -> None:
        made = authority.issue_cert(SERVER_NAME)
        made.cert_chain_pems[0].write_to_path(paths["certificate"])
        made.private_key_pem.write_to_path(paths["private_key"])

    authority.cert_pem.write_to_path(paths["ca"])
    renew()
    given = ", ".join(f"{name}: {path}" for name, path in paths.items())
    server = Server(tmp_path, f"{{gateways: {{port: 7443, {given}}}}}")
    control = server.watch.open_control(server.gateways)
    first = control.current
    kept = shutil.copy(paths["private_key"], tmp_path / "kept")
    renew()
    renewed = shutil.copy(paths["private_key"], tmp_path / "renewed")
    shutil.copy(kept, paths["private_key"])
    for _ in range(3):
        server.watch.look()
    assert control.current is first
    (sentence,) = server.said
    assert f"the certificate {paths['certificate']}" in sentence
    assert "the one of before is shown on: it ends on" in sentence
    shutil.copy(renewed, paths["private_key"])
    server.watch.look()
    assert control.current is not first


def test_what_keda_is_shown_is_told_where_nobody_renews_it(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"

    def renew(not_after: datetime | None = None) -> None:
        made = trustme.CA().issue_cert("swell-scaler", not_after=not_after)
        made.cert_chain_pems[0].write_to_path(certificate)
        made.private_key_pem.write_to_path(key)

    renew()
    server = Server(tmp_path, f"{{external_scaler: {{certificate: {certificate}, private_key: {key}}}}}")
    begins, ends = validity(certificate)
    server.watch.look()
    assert server.said == []
    server.clock.advance(ends - server.clock.unix() - LATE_PART * (ends - begins) + 1.0)
    server.watch.look()
    server.watch.look()
    (sentence,) = server.said
    assert sentence.startswith(f"the certificate {certificate} has not been renewed; it ends on")
    key.write_text("no key")
    server.watch.look()
    assert "KEDA cannot be shown a certificate" in server.said[1]
    renew(datetime(3500, 1, 1, tzinfo=UTC))
    server.watch.look()
    assert len(server.said) == 2


def test_an_authority_that_was_broken_is_told_once(tmp_path: Path) -> None:
    server = Server(tmp_path, "{tls: {local_ca: true}}")
    (server.state.tls / "ca.key").write_text("")
    (server.state.tls / "ca.key").chmod(0o600)
    for _ in range(3):
        server.watch.look()
    assert len(server.said) == 1
    assert "remove the folder" in server.said[0]
