"""What the chart has a server and a gateway told, told to real ones: they find each other, and serve."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart import Object, objects_of, one, workload

from gateway_process import GatewayProcess
from scripted_upstream import UpstreamThread
from swell_process import SwellProcess, SwellUp, choose_free_port, wait_until

pytestmark = pytest.mark.process

READY_SECONDS = 30.0


@pytest.fixture
def objects(upstream: UpstreamThread) -> list[Object]:
    model = {"name": "m", "engine": "external", "endpoints": [upstream.url]}
    return objects_of(
        {
            "spec": {"models": [model], "providers": [{"name": "here"}]},
            "gateways": {"enabled": True, "leaveSeconds": 0},
            "control": {"serverSecret": "server", "gatewaySecret": "gateway"},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With both Secrets, made as the notes say."""
    for name, options in (("server", ["--server"]), ("gateway", [])):
        words = ["credentials", str(tmp_path / name), *options, "--state", str(tmp_path / "authority")]
        subprocess.run([sys.executable, "-m", "swell.cli.main", *words], check=True, capture_output=True, timeout=60)
    return tmp_path


@pytest.fixture
def server(objects: list[Object], folder: Path, swell_up: SwellUp) -> SwellProcess:
    """As its Pod is told, but for where things are."""
    spec = yaml.safe_load(one(objects, "ConfigMap")["data"]["swell.yaml"])
    spec["server"]["host"] = spec["server"]["gateways"]["host"] = "127.0.0.1"
    spec["server"]["gateways"]["port"] = choose_free_port()
    text = yaml.safe_dump(spec).replace("/secrets/control", str(folder / "server"))
    found = swell_up(text, ready=False, workers=0)
    found.port = spec["server"]["gateways"]["port"]
    wait_until(lambda: "Gateways" in found.output, seconds=READY_SECONDS, what="it listens, and not: " + found.output)
    return found


@pytest.fixture
def gateway(objects: list[Object], folder: Path, server: SwellProcess) -> Iterator[GatewayProcess]:
    """As its Pod is told, but for where things are."""
    container = workload(objects, "gateway")["spec"]["template"]["spec"]["containers"][0]
    port, state = choose_free_port(), folder / "state"
    here = {
        "swell-control:7443": f"127.0.0.1:{server.port}",
        "/credentials": str(folder / "gateway"),
        "/state/gateway": str(state),
        "$(POD_NAME)": "swell-gateway-0",
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "8000": str(port),
    }
    words = container["args"]
    assert here.keys() <= set(words)
    arguments = [here.get(word, word) for word in words]
    found = GatewayProcess(state, port, arguments, program=tuple(container["command"][1:]))
    found.start()
    try:
        wait_until(found.is_ready, seconds=READY_SECONDS, what=found.output)
        yield found
    finally:
        found.end()


def asked(objects: list[Object], server: SwellProcess) -> int:
    """How the kubelet's question to the server ends."""
    pod = workload(objects, "server")["spec"]["template"]["spec"]
    *words, path, seconds = pod["containers"][0]["readinessProbe"]["exec"]["command"]
    assert path == "/state/swell/admin.sock"
    words[0] = sys.executable
    return subprocess.run([*words, str(server.state / "admin.sock"), seconds], check=False, timeout=60).returncode


def test_they_find_each_other_and_the_server_is_ready_until_it_is_killed(
    objects: list[Object], server: SwellProcess, gateway: GatewayProcess
) -> None:
    (known,) = server.command("status")["gateways"]
    assert (known["gateway"], known["workers"], known["connected"]) == ("swell-gateway-0", 1, 1)
    assert asked(objects, server) == 0
    server.kill()
    assert asked(objects, server) == 1
    assert gateway.is_ready()
    server.start()
    wait_until(lambda: asked(objects, server) == 0, seconds=READY_SECONDS, what="it is back")
    assert gateway.stop() == 0
