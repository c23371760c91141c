"""The server in a container itself: replicas are its siblings, reached in a network that both are in."""

import http.client
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swell.adapters.sources import default_cache_folder
from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE
from swell.testing.docker_daemon import DockerDaemon
from swell_process import choose_free_port, wait_until

pytestmark = [pytest.mark.services, pytest.mark.containers, pytest.mark.model, pytest.mark.timeout(1800)]

READY_SECONDS = 90.0
MODEL = "smollm2"


@dataclass
class Host:
    """One host as `deploy/compose.yaml` has it, without what only looks on."""

    docker: DockerDaemon
    server_image: str
    engine_image: str
    folder: Path
    name: str
    port: int

    @property
    def labels(self) -> dict[str, str]:
        return {"swell.test.host": self.name}

    def make(self) -> None:
        """Network, volume, spec and a server that is not started yet."""
        self.docker.ask("POST", "/networks/create", json={"Name": self.name})
        self.docker.ask("POST", "/volumes/create", json={"Name": self.name})
        cache = str(default_cache_folder(os.environ))
        place = {
            "name": "here", "kind": "container", "images": {"llama.cpp": self.engine_image}, "network": self.name,
            "model_cache": cache, "cpus": 1.0, "memory": "1GiB",
        }  # fmt: skip
        model = {"name": MODEL, "source": DEFAULT_SOURCE, "sha256": DEFAULT_SHA256, "replicas": "1..1"}
        server = {"host": "0.0.0.0", "allow_plaintext_off_loopback": True}  # noqa: S104
        spec = self.folder / "swell.yaml"
        spec.write_text(json.dumps({"models": [model], "providers": [place], "server": server}))
        self.folder.chmod(0o755)
        spec.chmod(0o644)
        mounts = [
            {"Type": "bind", "Source": str(spec), "Target": "/etc/swell/swell.yaml", "ReadOnly": True},
            {"Type": "bind", "Source": str(self.docker.socket), "Target": "/var/run/docker.sock"},
            {"Type": "bind", "Source": cache, "Target": "/models", "ReadOnly": True},
            {"Type": "volume", "Source": self.name, "Target": "/state"},
        ]
        group = str(self.docker.socket.stat().st_gid)
        host = {
            "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/tmp": ""},  # noqa: S108
            "Mounts": mounts, "GroupAdd": [group], "NetworkMode": self.name,
            "PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(self.port)}]},
        }  # fmt: skip
        body = {
            "Image": self.server_image, "HostConfig": host, "Labels": self.labels, "ExposedPorts": {"8080/tcp": {}},
        }  # fmt: skip
        self.docker.ask("POST", "/containers/create", params={"name": self.name}, json=body)

    def start(self) -> None:
        self.docker.ask("POST", f"/containers/{self.name}/start")

    def run(self, *command: str) -> str:
        """A command beside the server, in its container; what it printed."""
        options = {"Cmd": list(command), "AttachStdout": True, "Tty": True}
        made = self.docker.ask("POST", f"/containers/{self.name}/exec", json=options)["Id"]
        return self.docker.read("POST", f"/exec/{made}/start", json={"Detach": False, "Tty": True}).decode()

    def chat(self, key: str) -> tuple[int, Any]:
        """One short chat through the published port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def replicas(self) -> list[str]:
        """Names of the engines' containers that run."""
        listed = self.docker.containers({"swell.workload": MODEL}, running=True)
        own = [each for each in listed if self.name in each["NetworkSettings"]["Networks"]]
        return [each["Names"][0].lstrip("/") for each in own]

    def clear(self) -> None:
        """Nothing of it stays."""
        for name in [self.name, *self.replicas()]:
            self.docker.read("DELETE", f"/containers/{name}", params={"force": "1", "v": "1"})
        self.docker.read("DELETE", f"/networks/{self.name}")
        self.docker.read("DELETE", f"/volumes/{self.name}")


@pytest.fixture
def host(docker: DockerDaemon, build_image: Callable[[str], str], model_file: Path, tmp_path: Path) -> Iterator[Host]:
    assert model_file.exists()
    port = choose_free_port()
    host = Host(docker, build_image("server"), build_image("engine-llama.cpp"), tmp_path, f"swell-host-{port}", port)
    try:
        host.make()
        yield host
    finally:
        host.clear()


def test_a_server_in_a_container_runs_its_replicas_beside_it(host: Host) -> None:
    host.start()
    key = wait_until(lambda: _key_in(host), seconds=READY_SECONDS, what="the server has made a key")
    wait_until(lambda: _status(host, key) == 200, seconds=READY_SECONDS, what="the model answers")
    [replica] = host.replicas()
    status = json.loads(host.run("swell", "status", "--state", "/state", "--json"))
    assert [row["phase"] for row in status["replicas"]] == ["ready"]

    host.docker.kill_container(host.name)
    wait_until(lambda: not host.docker.runs(host.name), what="the server is dead")
    assert host.replicas() == [replica]
    host.start()
    wait_until(lambda: _status(host, key) == 200, seconds=READY_SECONDS, what="it answers again")
    assert host.replicas() == [replica]

    host.docker.ask("POST", f"/containers/{host.name}/kill", params={"signal": "SIGTERM"})
    wait_until(lambda: not host.docker.runs(host.name), seconds=READY_SECONDS, what="the server ends")
    assert host.docker.ask("GET", f"/containers/{host.name}/json")["State"]["ExitCode"] == 0
    assert host.replicas() == []


def _key_in(host: Host) -> str:
    said = host.run("python3", "-c", "print(open('/state/secrets/default.key').read())").strip()
    return said if said.startswith("sk-swell-") else ""


def _status(host: Host, key: str) -> int:
    try:
        return host.chat(key)[0]
    except (TimeoutError, OSError, http.client.HTTPException):
        return 0
