"""Certificates between server and gateways that are kept elsewhere than in a state directory, made by the command."""

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from swell.clock import SystemClock
from swell.errors import UserError
from swell.security.control_tls import GATEWAY, SERVER_NAME, control_client_context, control_server_context
from swell.security.private_files import create_private
from swell.server.gateway_arguments import CA, CERTIFICATE, PRIVATE_KEY
from swell.server.gateway_credentials import make_credentials, make_server_credentials
from swell.server.state_directory import StateDirectory
from swell.state.worker import ControlServer

NOW = SystemClock().unix()  # TLS looks at the machine's own clock


def files(folder: Path) -> tuple[Path, Path, Path]:
    return folder / CA, folder / CERTIFICATE, folder / PRIVATE_KEY


def greeted(server: ssl.SSLContext, client: ssl.SSLContext) -> str | None:
    """What both speak after a handshake. Raises ssl.SSLError where one does not take the other."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    east = client.wrap_bio(down, up, server_hostname=SERVER_NAME)
    west = server.wrap_bio(up, down, server_side=True)
    waiting = [east, west]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert waiting == []
    return west.selected_alpn_protocol()


def client(ca: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    return control_client_context(ControlServer((), str(ca), str(certificate), str(private_key)), GATEWAY)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swell.cli.main", "credentials", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def test_what_the_command_makes_for_both_sides_lets_them_greet(tmp_path: Path) -> None:
    state, server, gateway = (str(tmp_path / name) for name in ("state", "server", "gateway"))
    said = command(server, "--server", "--state", state)
    assert (said.returncode, said.stderr) == (0, "")
    assert "gateways: {ca: ca.crt, certificate: tls.crt, private_key: tls.key}" in said.stdout
    assert json.loads(command(gateway, "--state", state, "--json").stdout)["folder"] == gateway
    contexts = control_server_context(*files(Path(server))), client(*files(Path(gateway)))
    assert greeted(*contexts) == GATEWAY


def test_the_servers_folder_is_private_and_has_no_key_of_the_authority(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    ends = make_server_credentials(state, tmp_path / "server", NOW)
    assert ends > NOW
    made = {path.name: path for path in (tmp_path / "server").iterdir()}
    assert made.keys() == {CA, CERTIFICATE, PRIVATE_KEY}
    assert {path.stat().st_mode & 0o777 for path in made.values()} == {0o600}
    assert (tmp_path / "server").stat().st_mode & 0o777 == 0o700
    authority = (state.root / "control" / "ca.key").read_text()
    secret = authority[: authority.index("-----END PRIVATE KEY-----")].splitlines()[1:]
    told = "".join(path.read_text() for path in made.values())
    assert not any(line in told for line in secret)
    assert authority[authority.index("-----BEGIN CERTIFICATE") :] == made[CA].read_text()


def test_neither_side_can_pass_for_the_other(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    make_server_credentials(state, tmp_path / "server", NOW)
    make_credentials(state, tmp_path / "gateway", "east", NOW)
    server, gateway = files(tmp_path / "server"), files(tmp_path / "gateway")
    with pytest.raises(ssl.SSLError, match="purpose"):
        greeted(control_server_context(*gateway), client(*gateway))
    with pytest.raises(ssl.SSLError, match="purpose"):
        greeted(control_server_context(*server), client(*server))


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "server"
    create_private(folder / CA, b"mine")
    with pytest.raises(UserError, match="give a new folder"):
        make_server_credentials(StateDirectory(tmp_path / "state"), folder, NOW)
    assert [path.read_bytes() for path in folder.iterdir()] == [b"mine"]


def test_a_server_has_no_other_name(tmp_path: Path) -> None:
    said = command(str(tmp_path / "server"), "--server", "--name", "east", "--state", str(tmp_path / "state"))
    assert said.returncode == 2
    assert "give one of them" in said.stderr
    assert list(tmp_path.iterdir()) == []
