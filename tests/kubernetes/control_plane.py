"""A real control plane for tests: etcd, API server, controllers and scheduler, in a folder of their own.

Its nodes are made of paper: `PaperNodes` says of them, and of the Pods on them, what kubelets would say.
"""

import ctypes
import os
import signal
import socket
import ssl
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lightkube import Client
from lightkube.config.kubeconfig import Cluster, KubeConfig, SingleConfig, User
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import NamespaceSpec, NodeSpec, Taint
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace, Node, Pod
from lightkube.types import PatchType

from swell.clock import Clock
from swell_process import wait_until

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
USUAL_FOLDER = "/usr/local/kubebuilder/bin"
MISSING = (
    "no Kubernetes control plane here: set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, "
    "kube-controller-manager and kube-scheduler (setup-envtest fetches the first two; the others are in Kubernetes' "
    "server release)"
)
START_SECONDS = 90.0
NAMESPACE_LABEL = "paper"
TOKEN = "test-token"
CONTROLLERS = (
    "deployment-controller,replicaset-controller,garbage-collector-controller,pod-garbage-collector-controller"
)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def find_programs() -> Path | None:
    """The folder of the programs, where all are there."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", USUAL_FOLDER))
    return folder if all((folder / name).exists() for name in PROGRAMS) else None


def _die_with_the_test() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class ControlPlane:
    """`with` it. `config` is for clients that may do everything."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self.config: SingleConfig

    def __enter__(self) -> Self:
        client, peer, secure, controllers, scheduler = _free_ports(5)
        self._keys()
        self._run(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client}",
            f"--advertise-client-urls=http://127.0.0.1:{client}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        account = self._folder / "account.key"
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{client}",
            f"--secure-port={secure}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self._folder / 'api'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={account}",
            f"--service-account-signing-key-file={account}",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            # There are no service accounts, and nobody takes the taint of a node that has just come off again.
            "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        )
        url = f"https://127.0.0.1:{secure}"
        found = KubeConfig.from_one(cluster=Cluster(server=url, insecure=True), user=User(token=TOKEN)).get()
        assert found is not None
        self.config = found
        self._until_ready(url)
        kubeconfig = self._kubeconfig(url)
        shared = (f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1")
        self._run("kube-controller-manager", *shared, f"--secure-port={controllers}", f"--controllers={CONTROLLERS}")
        self._run("kube-scheduler", *shared, f"--secure-port={scheduler}")
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            process.kill()
            process.wait()

    def _run(self, name: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self._programs / name), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_test,  # noqa: PLW1509  one system call
            )
        self._running.append(process)

    def _keys(self) -> None:
        key = rsa.generate_private_key(65537, 2048)
        text = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        (self._folder / "account.key").write_bytes(text)
        (self._folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")

    def _kubeconfig(self, url: str) -> Path:
        path = self._folder / "kubeconfig.yaml"
        path.write_text(
            f"{{apiVersion: v1, kind: Config, current-context: c, users: [{{name: u, user: {{token: {TOKEN}}}}}], "
            f"clusters: [{{name: k, cluster: {{server: '{url}', insecure-skip-tls-verify: true}}}}], "
            f"contexts: [{{name: c, context: {{cluster: k, user: u}}}}]}}\n"
        )
        return path

    def _until_ready(self, url: str) -> None:
        with httpx2.Client(verify=False, headers={"authorization": f"Bearer {TOKEN}"}) as http:

            def is_ready() -> bool:
                assert all(process.poll() is None for process in self._running), self._last_words()
                try:
                    return http.get(f"{url}/readyz").status_code == 200
                except httpx2.HTTPError:
                    return False

            wait_until(is_ready, seconds=START_SECONDS)

    def _last_words(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._folder.glob("*.log")))


class _LogHandler(BaseHTTPRequestHandler):
    """What an API server asks a kubelet for."""

    def do_GET(self) -> None:
        known = urlsplit(self.path).path.startswith("/containerLogs/")
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(b"steady\n" if known else b"")

    def log_message(self, format: str, *args: object) -> None:
        return


class PaperNodes:
    """Kubelets that run nothing and say that they do, in one namespace.

    Pods that carry a label's value in `stubborn` end only when killed, those in `failing` by themselves.
    """

    def __init__(self, config: SingleConfig, namespace: str, clock: Clock, fault_label: str) -> None:
        self.client = Client(config, namespace=namespace, field_manager="paper-kubelet")
        self.namespace = namespace
        self.clock = clock
        self.fault_label = fault_label
        self.stubborn: set[str] = set()
        self.failing: set[str] = set()
        self._ends: dict[str, float] = {}
        self._nodes: set[str] = set()
        self._addresses = 0
        self._logs = ThreadingHTTPServer(("127.0.0.1", 0), _LogHandler)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
        self._logs.socket = tls.wrap_socket(self._logs.socket, server_side=True)
        Thread(target=self._logs.serve_forever, daemon=True).start()
        self.client.create(Namespace(metadata=ObjectMeta(name=namespace), spec=NamespaceSpec()))

    def add(self, name: str, labels: dict[str, str], gpus: int = 0) -> None:
        """A machine."""
        self.client.create(
            Node(metadata=ObjectMeta(name=name, labels={NAMESPACE_LABEL: self.namespace, **labels}), spec=NodeSpec())
        )
        room = {"cpu": "64", "memory": "256Gi", "pods": "110", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
        status = {
            "allocatable": room,
            "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "paper"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._logs.server_address[1]}},
        }
        self.client.patch(Node.Status, name, {"status": status}, patch_type=PatchType.MERGE)
        self._nodes.add(name)

    def taint(self, name: str, key: str) -> None:
        """Mark a machine."""
        node = self.client.get(Node, name)
        assert node.spec is not None
        node.spec.taints = [*(node.spec.taints or []), Taint(effect="NoSchedule", key=key)]
        self.client.replace(node)

    def reclaim(self, name: str) -> None:
        """Take a machine away, with all that ran on it, as a cloud's controller and the Pods' collector do."""
        self.client.delete(Node, name)
        self._nodes.discard(name)
        for pod in self.pods():
            if pod.spec is not None and pod.spec.nodeName == name:
                self._delete(pod)

    def pods(self) -> list[Pod]:
        """All of them."""
        return list(self.client.list(Pod))

    def step(self) -> None:
        """Say what is to be said by now."""
        for pod in self.pods():
            assert pod.metadata is not None
            assert pod.spec is not None
            if pod.spec.nodeName not in self._nodes:
                continue
            if pod.metadata.deletionTimestamp is not None:
                self._end(pod)
            elif pod.status is None or not pod.status.containerStatuses:
                self._begin(pod)

    def crash(self, name: str, exit_code: int = 137) -> None:
        """End a container, as a fault of its own would."""
        self._say(self.client.get(Pod, name), {"terminated": {"exitCode": exit_code, "reason": "Error"}}, ready=False)

    def close(self) -> None:
        """Take everything away."""
        self.client.deletecollection(Deployment)
        for name in list(self._nodes):
            self.reclaim(name)
        self.client.close()
        self._logs.shutdown()
        self._logs.server_close()

    def _is(self, pod: Pod, named: set[str]) -> bool:
        assert pod.metadata is not None
        return (pod.metadata.labels or {}).get(self.fault_label, "") in named

    def _begin(self, pod: Pod) -> None:
        self._addresses += 1
        if self._is(pod, self.failing):
            self._say(pod, {"terminated": {"exitCode": 1, "reason": "Error"}}, ready=False)
        else:
            self._say(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready=True)

    def _end(self, pod: Pod) -> None:
        assert pod.metadata is not None
        assert pod.metadata.uid is not None
        ends_at = self.clock.monotonic() + (pod.metadata.deletionGracePeriodSeconds or 0)
        ends_at = self._ends[pod.metadata.uid] = min(self._ends.get(pod.metadata.uid, ends_at), ends_at)
        is_stubborn = self._is(pod, self.stubborn)
        if is_stubborn and self.clock.monotonic() < ends_at:
            return
        code = 137 if is_stubborn else 143
        if pod.status is not None and pod.status.containerStatuses:
            self._say(pod, {"terminated": {"exitCode": code, "reason": "Error"}}, ready=False)
        self._delete(pod)

    def _delete(self, pod: Pod) -> None:
        assert pod.metadata is not None
        assert pod.metadata.name is not None
        try:
            self.client.delete(Pod, pod.metadata.name, grace_period=0)
        except ApiError as error:
            if error.status.code != 404:
                raise

    def _say(self, pod: Pod, state: dict[str, Any], *, ready: bool) -> None:
        assert pod.metadata is not None
        assert pod.metadata.name is not None
        assert pod.spec is not None
        container = pod.spec.containers[0]
        status = {"name": container.name, "image": container.image, "imageID": "", "ready": ready, "state": state}
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
        said = {
            "phase": "Running",
            "podIP": f"10.1.{self._addresses >> 8}.{self._addresses & 255}",
            "podIPs": [{"ip": f"10.1.{self._addresses >> 8}.{self._addresses & 255}"}],
            "conditions": conditions,
            "containerStatuses": [{**status, "restartCount": 0}],
        }
        try:
            self.client.patch(Pod.Status, pod.metadata.name, {"status": said}, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code != 404:
                raise
