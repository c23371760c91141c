"""The Pod of the Helm chart, run with what its manifest says, and volumes as kubelets give them.

Mounted secrets belong to root and are readable by the Pod's group; volumes are root's and writable for that group.
"""

import os
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

sys.path.append(str(Path(__file__).parents[1] / "kubernetes"))

from chart import Object, objects_of, one

from swell.testing.docker_daemon import DockerDaemon
from swell_process import wait_until

pytestmark = [pytest.mark.services, pytest.mark.containers, pytest.mark.timeout(900)]

LABEL = {"swell-tests": "chart"}
SPEC = {
    "models": [{"name": "theirs", "engine": "external", "endpoints": ["http://127.0.0.1:9"]}],
    "providers": [{"name": "here"}],
    "server": {"tls": {"certificate": "/secrets/tls/tls.crt", "private_key": "/private/tls.key"}},
}
SECRETS = {"pepper": {"name": "pepper"}, "storeKey": {"name": "store-key"}, "tls": "tls"}
READY_SECONDS = 30.0


class Kubelet:
    """Runs the Pod's containers one after another in a daemon, in folders of its own."""

    def __init__(self, docker: DockerDaemon, folder: Path, objects: list[Object], image: str) -> None:
        self._docker = docker
        self._folder = folder
        self._image = image
        server = one(objects, "StatefulSet")["spec"]
        self._pod = server["template"]["spec"]
        self._group = self._pod["securityContext"]["fsGroup"]
        self._contents = {"spec": {"swell.yaml": one(objects, "ConfigMap")["data"]["swell.yaml"].encode()}}
        claims = [{"name": each["metadata"]["name"]} for each in server["volumeClaimTemplates"]]
        self._volumes = {each["name"]: each for each in (*self._pod["volumes"], *claims)}
        self.grace_seconds = self._pod["terminationGracePeriodSeconds"]

    def mount(self, secrets: dict[str, dict[str, bytes]]) -> None:
        """Make the volumes."""
        for name, volume in self._volumes.items():
            path = self._folder / name
            path.mkdir()
            secret = volume.get("secret")
            content = self._contents.get(name, secrets[secret["secretName"]] if secret else {})
            for key, value in content.items():
                (path / key).write_bytes(value)
                (path / key).chmod(secret["defaultMode"] if secret else 0o644)
                os.chown(path / key, 0, self._group)
            os.chown(path, 0, self._group)
            path.chmod(0o2770)

    def prepare(self) -> None:
        """Run the init containers."""
        for container in self._pod["initContainers"]:
            name = self._create(container)
            self._docker.ask("POST", f"/containers/{name}/start")
            ended = self._docker.ask("POST", f"/containers/{name}/wait")
            assert ended["StatusCode"] == 0

    def start(self) -> str:
        """Run the server; its container."""
        (container,) = self._pod["containers"]
        name = self._create(container)
        self._docker.ask("POST", f"/containers/{name}/start")
        return name

    def stop(self, name: str) -> int:
        """SIGTERM, and the exit code."""
        self._docker.ask("POST", f"/containers/{name}/stop", params={"t": str(self.grace_seconds)}, timeout=300.0)
        return int(self._docker.ask("GET", f"/containers/{name}/json")["State"]["ExitCode"])

    def url(self, name: str) -> str:
        """Where it listens."""
        networks = self._docker.ask("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        (port,) = self._pod["containers"][0]["ports"]
        return f"https://{network['IPAddress']}:{port['containerPort']}"

    def execute(self, name: str, *words: str) -> str:
        """As kubectl exec does."""
        made = self._docker.ask(
            "POST", f"/containers/{name}/exec", json={"Cmd": words, "AttachStdout": True, "AttachStderr": True}
        )
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._docker.socket)), timeout=60.0) as client:
            answer = client.post(f"http://daemon/exec/{made['Id']}/start", json={"Detach": False, "Tty": False})
        return answer.content.decode(errors="replace")

    def logs(self, name: str) -> str:
        """What it printed."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self._docker.socket)), timeout=60.0) as client:
            params = {"stdout": "1", "stderr": "1"}
            answer = client.get(f"http://daemon/containers/{name}/logs", params=params)
        return answer.content.decode(errors="replace")

    def _create(self, container: Object) -> str:
        security, pod = container["securityContext"], self._pod["securityContext"]
        binds = [
            f"{self._folder / mount['name']}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}"
            for mount in container["volumeMounts"]
        ]
        body: dict[str, Any] = {
            "Image": self._image,
            "User": f"{pod['runAsUser']}:{pod['runAsGroup']}",
            "Env": [f"{each['name']}={each['value']}" for each in container.get("env", [])],
            "Labels": LABEL,
            "HostConfig": {
                "Binds": binds,
                "ReadonlyRootfs": security["readOnlyRootFilesystem"],
                "CapDrop": security["capabilities"]["drop"],
                "SecurityOpt": [] if security["allowPrivilegeEscalation"] else ["no-new-privileges"],
            },
        }
        if "command" in container:
            body |= {"Entrypoint": container["command"][:1], "Cmd": container["command"][1:]}
        else:
            body["Cmd"] = container["args"]
        return str(self._docker.ask("POST", "/containers/create", json=body)["Id"])


@pytest.fixture
def kubelet(docker: DockerDaemon, build_image: Any, tmp_path: Path) -> Iterator[Kubelet]:
    image = build_image("server")
    yield Kubelet(docker, tmp_path, objects_of({"spec": SPEC, "secrets": SECRETS}), image)
    docker.remove_containers(LABEL)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=False).status_code == 200  # noqa: S501  the path is what is asked for
    except httpx.HTTPError:
        return False


def test_the_pod_serves_keeps_its_state_and_drains(kubelet: Kubelet) -> None:
    certificate = trustme.CA().issue_cert("swell")
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    tls = {"tls.crt": chain, "tls.key": certificate.private_key_pem.bytes()}
    kubelet.mount({"pepper": {"pepper": os.urandom(32)}, "store-key": {"store.key": os.urandom(32)}, "tls": tls})
    made = ""
    for turn in range(2):
        kubelet.prepare()
        server = kubelet.start()
        url = kubelet.url(server)
        wait_until(lambda url=url: _is_ready(url), seconds=READY_SECONDS, what=kubelet.logs(server))
        host, _, port = url.removeprefix("https://").rpartition(":")
        assert ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port)))) == ssl.PEM_cert_to_DER_cert(
            certificate.cert_chain_pems[0].bytes().decode()
        )
        if turn == 0:
            made = kubelet.execute(server, "swell", "keys", "create", "me", "--json")
            key = next(word for word in made.replace('"', " ").split() if word.startswith("sk-swell-"))
        answer = httpx.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"}, verify=False)  # noqa: S501
        assert [each["id"] for each in answer.json()["data"]] == ["theirs"]
        assert kubelet.stop(server) == 0, kubelet.logs(server)
        assert "sk-swell-" not in kubelet.logs(server)
