"""The world of kills with two servers over one Postgres, gateways elsewhere, and replicas as Pods of a cluster.

The cluster is one of make-believe, over HTTP in a process of its own. Its Pods have loopback addresses, where scripted
upstreams answer for them.
"""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from benchmarks.kubernetes.cluster import NAMESPACE
from gateway_world import START_SECONDS, GatewayWorld
from kill_asks import DEFAULT_MAX_TOKENS
from kill_upstreams import UpstreamProcess, end_with_the_tests, pidfd_kill
from kill_world import StartSwell, status_of

from gateway_process import GatewayProcess
from swell.adapters.providers.kubernetes.provider import PORT
from swell.security.certificates import ensure_local_certificate, make_client_certificate
from swell.security.control_tls import SERVER_NAME
from swell.testing.postgres_server import PostgresServer
from swell_process import SwellProcess, choose_free_port, wait_until

REPLICAS = 2
ROOT = Path(__file__).resolve().parents[2]


class ClusterProcess:
    """The cluster, as long as the `with` lasts."""

    def __init__(self, network: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kubernetes.cluster", "3", network],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, preexec_fn=end_with_the_tests,  # noqa: PLW1509 - no threads
        )  # fmt: skip
        self._where: dict[str, str] = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def kubeconfig(self, path: Path) -> Path:
        """Credentials as a file."""
        cluster = {"name": "c", "cluster": {"server": self._where["url"]}}
        user = {"name": "u", "user": {"token": self._where["token"]}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}}
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [cluster], "users": [user], "contexts": [context],
        }  # fmt: skip
        path.write_text(json.dumps(content))
        return path

    def ask(self, line: str) -> Any:
        """What it answers to a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


class LeadersWorld(GatewayWorld):
    """`server` is the one that leads, `waiting` the other."""

    def __init__(
        self,
        swell_up: StartSwell,
        folder: Path,
        seed: int,
        postgres: PostgresServer,
        cluster: ClusterProcess,
        network: str,
    ) -> None:
        self.cluster = cluster
        self._network = network
        self._postgres = postgres
        super().__init__(swell_up, folder, seed, upstreams=REPLICAS)

    def make_upstreams(self, folder: Path, count: int) -> list[UpstreamProcess]:
        """What answers at the addresses of the first Pods."""
        hosts = [f"{self._network}.0.{number + 1}" for number in range(count)]
        return [UpstreamProcess(folder, f"pod-{number}", host=host, port=PORT) for number, host in enumerate(hosts)]

    def start_server(self, swell_up: StartSwell, upstreams: Sequence[UpstreamProcess], patience: float) -> SwellProcess:
        """Both servers, keys, and the gateways, which know where both are."""
        folder = self._folder
        authority = folder / "authority"
        own = ensure_local_certificate(authority, [SERVER_NAME], time.time())
        pepper = folder / "pepper"
        pepper.write_bytes(secrets.token_bytes(32))
        pepper.chmod(0o600)
        database, ports = self._postgres.new_database(), [choose_free_port(), choose_free_port()]
        kubeconfig = self.cluster.kubeconfig(folder / "kubeconfig")
        model = {
            "name": "m", "engine": "vllm", "source": "hf://example/model", "replicas": REPLICAS, "max_in_flight": 8,
            "max_tokens": {"default": DEFAULT_MAX_TOKENS, "max": 200},
        }  # fmt: skip
        place = {"name": "cluster", "kind": "kubernetes", "kubeconfig": str(kubeconfig), "images": {"vllm": "engine:1"}}
        servers = []
        for port in ports:
            files = {"ca": str(own.ca), "certificate": str(own.certificate), "private_key": str(own.private_key)}
            own_part = {
                "workers": 0,
                "gateways": {"port": port, **files},
                "store": {"url": self._postgres.url(database)},
                "timeouts": {"first_byte_seconds": patience, "idle_seconds": patience},
            }
            spec = json.dumps({"models": [model], "providers": [place], "server": own_part})
            server = swell_up(spec, "--ha", ready=False, workers=0, environment={"SWELL_PEPPER_FILE": str(pepper)})
            said = "Waiting: swell " if servers else "Gateways"
            wait_until(lambda server=server, said=said: said in server.output, seconds=START_SECONDS, what=said)
            servers.append(server)
        leader, self.waiting = servers
        leader.create_key()
        self.waiting.key, self.waiting.key_id = leader.key, leader.key_id
        for number in range(self._count):
            self.gateways.append(self._gateway(authority, ports, f"gateway-{number}"))
        for gateway in self.gateways:
            wait_until(gateway.is_ready, seconds=START_SECONDS, what=gateway.output)
        return leader

    def _gateway(self, authority: Path, ports: Sequence[int], name: str) -> GatewayProcess:
        made = make_client_certificate(authority, name, time.time())
        credentials = self._folder / f"{name}-credentials"
        credentials.mkdir()
        for file, content in (("ca.crt", made.ca), ("tls.crt", made.certificate), ("tls.key", made.private_key)):
            (credentials / file).write_bytes(content)
        gateway = GatewayProcess.at(ports, credentials, self._folder, port=choose_free_port(), name=name)
        gateway.start()
        return gateway

    async def kill_leader(self) -> None:
        """Kill the server that leads at a chosen point; the other one follows, and the killed one comes back."""
        await self.point("leader killed", pidfd_kill(self.server.pid))
        self.server.kill()
        self.server, self.waiting = self.waiting, self.server
        await self.until_serving()
        self.waiting.start()

    async def until_waiting(self) -> None:
        """Wait until the other server waits."""
        await self.eventually(lambda: (status_of(self.waiting) or {}).get("waiting"), "the other server waits")

    async def end_gateways(self) -> None:
        """Have the gateways end in order, and the server that waits."""
        await super().end_gateways()
        assert self.waiting.stop() == 0
