"""A real control plane for tests: etcd, API server, controllers and scheduler, in a folder of their own.

There are no machines beneath it: `nodes` has what speaks for them.
"""

import ctypes
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Self

import httpx2
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lightkube.config.kubeconfig import Cluster, KubeConfig, SingleConfig, User

from swell_process import wait_until

CRDS = Path(__file__).parent / "crds"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
USUAL_FOLDER = "/usr/local/kubebuilder/bin"
MISSING = (
    "no Kubernetes control plane here: set KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, "
    "kube-controller-manager and kube-scheduler (setup-envtest fetches the first two; the others are in Kubernetes' "
    "server release)"
)
START_SECONDS = 90.0
TOKEN = "test-token"  # may do everything
SWELL_TOKEN = "swell-token"  # may do what it was given
SWELL_USER = "swell"
CONTROLLERS = (
    "deployment-controller,replicaset-controller,statefulset-controller,job-controller,daemonset-controller,"
    "garbage-collector-controller,pod-garbage-collector-controller"
)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None)


def find_programs() -> Path | None:
    """The folder of the programs, where all are there."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", USUAL_FOLDER))
    return folder if all((folder / name).exists() for name in PROGRAMS) else None


def _config(url: str, token: str) -> SingleConfig:
    found = KubeConfig.from_one(cluster=Cluster(server=url, insecure=True), user=User(token=token)).get()
    assert found is not None
    return found


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
        self.swell_config: SingleConfig  # of a user without rights of its own

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
        self.config = _config(url, TOKEN)
        self.swell_config = _config(url, SWELL_TOKEN)
        self._until_ready(url)
        self._define(url)
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
        (self._folder / "tokens.csv").write_text(
            f"{TOKEN},admin,admin,system:masters\n{SWELL_TOKEN},{SWELL_USER},{SWELL_USER}\n"
        )

    @property
    def authority(self) -> Path:
        """What its certificate can be checked with."""
        return self._folder / "api" / "apiserver.crt"

    @property
    def kubeconfig(self) -> Path:
        """A file with the same credentials."""
        return self._folder / "kubeconfig.yaml"

    def _kubeconfig(self, url: str) -> Path:
        path = self.kubeconfig
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

    def _define(self, url: str) -> None:
        """LeaderWorkerSet, before the garbage collector looks for what there is."""
        manifest = yaml.safe_load((CRDS / "leaderworkerset.x-k8s.io_leaderworkersets.yaml").read_text())
        path = f"{url}/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        with httpx2.Client(verify=False, headers={"authorization": f"Bearer {TOKEN}"}) as http:
            http.post(path, json=manifest).raise_for_status()

            def is_served() -> bool:
                return http.get(f"{url}/apis/leaderworkerset.x-k8s.io/v1/leaderworkersets").status_code == 200

            wait_until(is_served, seconds=START_SECONDS)

    def _last_words(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self._folder.glob("*.log")))
