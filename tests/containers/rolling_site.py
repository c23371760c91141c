"""Two servers of `--ha` and two gateways as containers of one daemon, over a Postgres whose socket they have.

Volumes are as `deploy/compose.ha.yaml` has them: each server and gateway has its own state, the servers share the
folder of their secrets and that of the gateways' authority, and each gateway has nothing but its own credentials.
"""

import contextlib
import http.client
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swell.adapters.providers.container_body import INSTALLATION
from swell.adapters.sources import default_cache_folder
from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE
from swell.testing.docker_daemon import DockerDaemon
from swell.testing.postgres_server import USER, PostgresServer
from swell_process import wait_until

MODEL = "smollm2"
SERVERS, GATEWAYS = ("server-1", "server-2"), ("gateway-1", "gateway-2")
PORT, CONTROL_PORT = 8080, 7443
READY_SECONDS = 90.0
STOP_SECONDS = 120  # a gateway leaves, drains, and sends up what it served
LEAVE_SECONDS = 5.0
LABEL = "swell.test.site"
SHUT_IN: dict[str, Any] = {
    "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/tmp": ""},  # noqa: S108
}  # fmt: skip


@dataclass
class Images:
    """References."""

    server: str
    gateway: str
    engine: str


@dataclass
class Site:
    """One network, its volumes, and the containers in it by their short names."""

    docker: DockerDaemon
    postgres: PostgresServer
    images: Images
    folder: Path
    name: str = field(default_factory=lambda: f"swell-site-{secrets.token_hex(4)}")
    running: dict[str, str] = field(default_factory=dict)  # container ids

    # Making it.

    def make(self) -> None:
        """Network, volumes and the file that is served; nothing runs yet."""
        self.docker.ask("POST", "/networks/create", json={"Name": self.name, "Labels": {LABEL: self.name}})
        for volume in self._volumes():
            self.docker.ask("POST", "/volumes/create", json={"Name": volume, "Labels": {LABEL: self.name}})
        self.database = self.postgres.new_database()
        self.postgres.folder.chmod(0o711)  # its socket lets in whom the administrator does
        spec = self.folder / "swell.yaml"
        spec.write_text(json.dumps(self._spec()))
        self.folder.chmod(0o755)
        spec.chmod(0o644)

    def _volumes(self) -> list[str]:
        own = [f"{each}-state" for each in (*SERVERS, *GATEWAYS)] + [f"{each}-credentials" for each in GATEWAYS]
        return [self._volume(each) for each in ("secrets", "control", *own)]

    def _volume(self, name: str) -> str:
        return f"{self.name}-{name}"

    def _spec(self) -> dict[str, Any]:
        place = {
            "name": "here", "kind": "container", "images": {"llama.cpp": self.images.engine}, "network": self.name,
            "model_cache": str(default_cache_folder(os.environ)), "cpus": 1.0, "memory": "1GiB",
        }  # fmt: skip
        model = {"name": MODEL, "source": DEFAULT_SOURCE, "sha256": DEFAULT_SHA256, "replicas": "1..1", "parallel": 8}
        url = f"postgresql:///{self.database}?host=/postgres&port={self.postgres.port}&user={USER}"
        server = {
            "workers": 0, "gateways": {"host": "0.0.0.0", "port": CONTROL_PORT}, "store": {"url": url},  # noqa: S104
        }  # fmt: skip
        return {"models": [model], "providers": [place], "server": server}

    # Containers.

    def start_server(self, name: str) -> None:
        """Run a server, on the volumes of the one that had this name before."""
        mounts = [
            _bind(self.folder / "swell.yaml", "/etc/swell/swell.yaml", read_only=True),
            _bind(self.docker.socket, "/var/run/docker.sock"),
            _bind(default_cache_folder(os.environ), "/models", read_only=True),
            _bind(self.postgres.folder, "/postgres"),
            self._mount(f"{name}-state", "/state"),
            self._mount("secrets", "/state/secrets"),
            self._mount("control", "/state/control"),
        ]
        words = ["up", "--ha", "--hide-key", "--state", "/state", "--file", "/etc/swell/swell.yaml"]
        group = str(self.docker.socket.stat().st_gid)
        self._start(name, self.images.server, words, mounts, GroupAdd=[group])

    def make_credentials(self, server: str, gateway: str) -> None:
        """A gateway's certificate, made where the authority is, into the volume that is the gateway's."""
        words = ["credentials", f"/credentials/{gateway}", "--name", gateway, "--state", "/state"]
        mounts = [
            self._mount(f"{server}-state", "/state"),
            self._mount("secrets", "/state/secrets"),
            self._mount("control", "/state/control"),
            self._mount(f"{gateway}-credentials", "/credentials"),
        ]
        made = self._start(f"{gateway}-credentials", self.images.server, words, mounts)
        assert self.docker.ask("POST", f"/containers/{made}/wait")["StatusCode"] == 0, self.logs(made)
        self.remove(f"{gateway}-credentials")

    def start_gateway(self, name: str) -> None:
        """Run a gateway by its image's own entry, on the volume of the one that had this name before."""
        words = ["--credentials", f"/credentials/{name}", "--name", name, "--leave-seconds", f"{LEAVE_SECONDS:g}"]
        words += [word for server in SERVERS for word in ("--server", f"{server}:{CONTROL_PORT}")]
        mounts = [self._mount(f"{name}-state", "/state"), self._mount(f"{name}-credentials", "/credentials", True)]
        self._start(name, self.images.gateway, [*words, "--allow-plaintext-off-loopback"], mounts)

    def _start(self, name: str, image: str, words: list[str], mounts: list[dict[str, Any]], **more: Any) -> str:
        body = {
            "Image": image, "Cmd": words, "Labels": {LABEL: self.name}, "Healthcheck": {"Test": ["NONE"]},
            "HostConfig": {**SHUT_IN, "Mounts": mounts, "NetworkMode": self.name, **more},
            "NetworkingConfig": {"EndpointsConfig": {self.name: {"Aliases": [name]}}},
        }  # fmt: skip
        made = self.docker.ask("POST", "/containers/create", params={"name": f"{self.name}-{name}"}, json=body)["Id"]
        self.running[name] = made
        self.docker.ask("POST", f"/containers/{made}/start")
        return str(made)

    def _mount(self, volume: str, target: str, read_only: bool = False) -> dict[str, Any]:
        return {"Type": "volume", "Source": self._volume(volume), "Target": target, "ReadOnly": read_only}

    def stop(self, name: str) -> int:
        """As `docker stop` does, with time enough; its exit code. It is removed, its volumes stay."""
        made = self.running[name]
        self.docker.ask("POST", f"/containers/{made}/stop", params={"t": str(STOP_SECONDS)}, timeout=2 * STOP_SECONDS)
        return self.ended(name)

    def ended(self, name: str) -> int:
        """The exit code of one that ends, which is removed."""
        made = self.running[name]
        code = self.docker.ask("POST", f"/containers/{made}/wait", timeout=STOP_SECONDS)["StatusCode"]
        (self.folder / f"{name}-{made[:12]}.log").write_text(self.logs(made))
        self.remove(name)
        return int(code)

    def kill(self, name: str) -> None:
        """SIGKILL, and remove what is left of it but its volumes."""
        self.docker.kill_container(self.running[name])
        self.ended(name)

    def remove(self, name: str) -> None:
        """Remove its container, and the volumes that nobody named."""
        self.docker.ask("DELETE", f"/containers/{self.running.pop(name)}", params={"force": "1", "v": "1"})

    def logs(self, container: str) -> str:
        """What it printed."""
        params = {"stdout": "1", "stderr": "1"}
        return self.docker.read("GET", f"/containers/{container}/logs", params=params).decode(errors="replace")

    # Asking.

    def run(self, server: str, *command: str) -> str:
        """A command beside a server, in its container; what it printed."""
        options = {"Cmd": list(command), "AttachStdout": True, "Tty": True}
        made = self.docker.ask("POST", f"/containers/{self.running[server]}/exec", json=options)["Id"]
        told = self.docker.read(
            "POST", f"/exec/{made}/start", json={"Detach": False, "Tty": True}, timeout=STOP_SECONDS
        )
        return told.decode(errors="replace")

    def swell(self, server: str, *words: str) -> Any:
        """A command's JSON; nothing where it printed none."""
        told = self.run(server, "swell", *words, "--state", "/state", "--json")
        with contextlib.suppress(json.JSONDecodeError):
            return json.loads(told)
        return {}

    def leads(self, server: str) -> bool:
        """Whether it looks after the replicas, and they are ready."""
        status = self.swell(server, "status")
        return [replica["phase"] for replica in status.get("replicas", ())] == ["ready"]

    def waits(self, server: str) -> bool:
        """Whether another one leads, as far as it knows."""
        return bool(self.swell(server, "status").get("waiting"))

    def address(self, name: str) -> str:
        """In the site's network, which this machine is in as well."""
        seen = self.docker.ask("GET", f"/containers/{self.running[name]}/json")
        return str(seen["NetworkSettings"]["Networks"][self.name]["IPAddress"])

    def until_ready(self, gateway: str) -> str:
        """Wait until a gateway serves; its address."""
        address = self.address(gateway)
        wait_until(lambda: _is_ready(address), seconds=READY_SECONDS, what=f"{gateway} is ready")
        return address

    def installation(self, server: str) -> str:
        return self.run(server, "python3", "-c", "print(open('/state/installation').read())").strip()

    def replicas(self, installation: str) -> list[dict[str, Any]]:
        """The engines' containers, whatever their state, as the daemon describes them."""
        listed = self.docker.containers({INSTALLATION: installation})
        return [self.docker.ask("GET", f"/containers/{each['Id']}/json") for each in listed]

    def ledger(self) -> list[tuple[str, str]]:
        """Every request with its status, asked of the database itself."""
        rows = self.postgres.run("SELECT request_id, status FROM usage", self.database)
        return [(str(request), str(status)) for request, status in rows]

    def clear(self) -> None:
        """Nothing of it stays."""
        self.docker.remove_containers({LABEL: self.name})
        for each in self.docker.containers({}):
            if self.name in each["NetworkSettings"]["Networks"]:
                self.docker.read("DELETE", f"/containers/{each['Id']}", params={"force": "1", "v": "1"})
        self.docker.read("DELETE", f"/networks/{self.name}")
        for volume in self._volumes():
            self.docker.read("DELETE", f"/volumes/{volume}")


def _bind(source: Path, target: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, PORT, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
