"""`swell gateway`: real gateways with states of their own, a real server without workers, and a scripted upstream."""

import http.client
import json
import os
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_fleet import Fleet

from swell.security.certificates import make_client_certificate
from swell.security.control_tls import CONTROL, GATEWAY, SERVER_NAME
from swell_process import wait_until

pytestmark = pytest.mark.process


def test_both_serve_and_what_they_served_is_in_one_ledger(fleet: Fleet) -> None:
    assert [fleet.chat(0), fleet.chat(1), fleet.chat(0)] == [200, 200, 200]
    wait_until(lambda: len(fleet.rows()) == 3, what="all three requests are in the ledger")
    assert {row["status"] for row in fleet.rows()} == {"settled"}
    known = fleet.known()
    assert sorted(known) == ["east", "west"]
    assert all((each["workers"], each["connected"]) == (1, 1) for each in known.values())


def test_a_revoked_key_is_refused_everywhere(fleet: Fleet) -> None:
    assert [fleet.chat(0), fleet.chat(1)] == [200, 200]
    fleet.server.command("keys", "revoke", fleet.server.key_id)
    wait_until(lambda: [fleet.chat(0), fleet.chat(1)] == [401, 401], seconds=2, what="both refuse it")


def test_metrics_are_those_of_all(fleet: Fleet) -> None:
    assert [fleet.chat(0), fleet.chat(1)] == [200, 200]

    def answered() -> float:
        text = fleet.at(1, "GET", "/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line.startswith("gen_ai_server_request_duration_seconds_count")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    wait_until(lambda: answered() >= 2, seconds=5, what="the requests of both gateways are counted")


def test_a_killed_server_is_not_missed(fleet: Fleet) -> None:
    fleet.server.kill()
    assert [fleet.chat(0), fleet.chat(1)] == [200, 200]
    fleet.server.start()
    wait_until(lambda: len(fleet.rows()) == 2, seconds=30, what="what was served meanwhile is in the ledger")
    workers = {gateway.workers()[0].pid for gateway in fleet.gateways}
    wait_until(lambda: sum(each["connected"] for each in fleet.known().values()) == 2, what="both are connected again")
    assert workers == {gateway.workers()[0].pid for gateway in fleet.gateways}, "no worker was started again"
    assert [fleet.chat(0), fleet.chat(1)] == [200, 200]


def test_a_killed_gateway_loses_nothing(fleet: Fleet) -> None:
    east = fleet.gateways[0]
    fleet.server.kill()  # so that what it serves cannot go up
    assert fleet.chat(0) == 200
    east.kill()
    wait_until(lambda: not east.workers(), seconds=40, what="its workers have ended")
    assert len(east.spools()) == 1
    fleet.server.start()
    wait_until(lambda: len(fleet.known()) >= 1, seconds=30, what="the server runs")
    assert fleet.rows() == []
    east.start()
    wait_until(lambda: len(fleet.rows()) == 1, seconds=30, what="the spool that it found is in the ledger")
    assert fleet.rows()[0]["status"] == "settled"
    wait_until(east.is_ready, seconds=30, what=east.output)
    assert fleet.chat(0) == 200


def test_an_ended_gateway_has_told_everything(fleet: Fleet) -> None:
    assert fleet.chat(0) == 200
    assert fleet.gateways[0].stop() == 0, fleet.gateways[0].output
    assert fleet.gateways[0].spools() == []
    assert len(fleet.rows()) == 1
    wait_until(lambda: sorted(fleet.known()) == ["west"], what="only the other one is known")
    assert fleet.chat(1) == 200


def test_one_that_leaves_says_so_before_it_closes_anything(fleet: Fleet) -> None:
    east = fleet.gateways[0]
    east.arguments += ["--leave-seconds", "60"]
    assert east.stop() == 0
    east.start()
    wait_until(east.is_ready, seconds=30, what=east.output)
    kept, new = (http.client.HTTPConnection("127.0.0.1", east.port, timeout=30) for _ in range(2))
    try:
        assert _chat_on(fleet, kept) == (200, None)
        os.kill(east.pid, signal.SIGTERM)
        wait_until(lambda: fleet.at(0, "GET", "/readyz")[0] == 503, what="balancers that ask are told")
        assert fleet.at(0, "GET", "/healthz")[0] == 200
        assert _chat_on(fleet, kept) == (200, "close"), "so that nobody sends into a connection that is being closed"
        assert _chat_on(fleet, new) == (200, "close")
    finally:
        kept.close()
        new.close()
    assert east.stop() == 0, "a second signal hurries it"
    wait_until(lambda: len(fleet.rows()) == 3, what="all is in the ledger")


def test_a_changed_spec_reaches_them(fleet: Fleet, eventually: Callable[..., Any]) -> None:
    before = {each.pid for gateway in fleet.gateways for each in gateway.workers()}
    file = fleet.server.state.parent / "swell.yaml"
    file.write_text(file.read_text() + "  bounds: {header_count: 20}\n")
    fleet.server.command("apply", "-f", str(file))

    def workers() -> set[int]:
        return {each.pid for gateway in fleet.gateways for each in gateway.workers()}

    eventually(lambda: len(workers()) == 2 and not workers() & before, seconds=30, what="each has a worker of now")
    eventually(lambda: all(gateway.is_ready() for gateway in fleet.gateways), seconds=10, what="they listen")
    assert [fleet.chat(0), fleet.chat(1)] == [200, 200]
    many = {f"x-{number}": "1" for number in range(25)}
    assert [fleet.at(number, "GET", "/v1/models", **many)[0] for number in (0, 1)] == [431, 431], "20 headers now"


def test_nobody_comes_in_without_a_certificate_of_the_authority(fleet: Fleet, tmp_path: Path) -> None:
    stranger = make_client_certificate(tmp_path / "other", "stranger", 1.9e9)
    own = tmp_path / "east-credentials"
    for certificate in (None, _pair(tmp_path, stranger.certificate, stranger.private_key)):
        context = ssl.create_default_context(cafile=str(own / "ca.crt"))
        context.set_alpn_protocols([GATEWAY, CONTROL])
        if certificate is not None:
            context.load_cert_chain(certificate)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _first_byte(context, fleet.port)


def test_a_gateways_certificate_does_not_make_a_server(fleet: Fleet, tmp_path: Path) -> None:
    own = tmp_path / "east-credentials"
    pretending = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pretending.load_cert_chain(own / "tls.crt", own / "tls.key")
    pretending.set_alpn_protocols([GATEWAY, CONTROL])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        west = fleet.gateways[1]
        west.stop()
        west.arguments[1] = f"127.0.0.1:{listener.getsockname()[1]}"
        west.start()
        listener.settimeout(20)
        accepted, _ = listener.accept()
        with accepted, pytest.raises((ssl.SSLError, ConnectionError)):
            pretending.wrap_socket(accepted, server_side=True).recv(1)
    wait_until(lambda: "certificate verify failed" in west.output, what=west.output)


def test_what_it_cannot_begin_with_is_said(fleet: Fleet, tmp_path: Path) -> None:
    west = fleet.gateways[1]
    west.stop()
    before = list(west.arguments)
    west.arguments = [*before, "--host", "0.0.0.0"]  # noqa: S104  # refused
    west.start()
    assert west.wait() == 2
    assert "0.0.0.0 is reachable from other machines" in west.output
    west.arguments = [*before, "--credentials", str(tmp_path / "nowhere")]
    west.start()
    assert west.wait() == 2
    assert "swell credentials FOLDER" in west.output


def _chat_on(fleet: Fleet, connection: http.client.HTTPConnection) -> tuple[int, str | None]:
    """A short chat there: its status, and what the answer says of the connection."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    headers = {"authorization": f"Bearer {fleet.server.key}", "content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.headers.get("connection")


def _first_byte(context: ssl.SSLContext, port: int) -> bytes:
    """TLS 1.3 refuses a client only after its first word."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
    ):
        connection.sendall(b"\0\0\0\1x")
        answer = connection.recv(1)
        if not answer:
            raise ConnectionError
        return answer


def _pair(folder: Path, certificate: bytes, private_key: bytes) -> Path:
    path = folder / "stranger.pem"
    path.write_bytes(certificate + private_key)
    return path
