"""Kubelets of paper, which run nothing and say that they do, and kubelets that run a Pod's command as a process here.

Both speak for the nodes of one namespace of a real control plane, as far as Swell and its tests need it.
"""

import os
import random
import socket
import ssl
import subprocess
import sys
from base64 import b64decode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import trustme
from lightkube import Client
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import NamespaceSpec, NodeSpec, Taint
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import Namespace, Node, Pod, Secret
from lightkube.types import PatchType

from swell.adapters.providers.kubernetes.provider import EVERYWHERE, PORT
from swell.clock import Clock, SystemClock

NAMESPACE_LABEL = "paper"
TURN_SECONDS = 0.05


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

    Pods that carry a label's value in `stubborn` end only when killed, those in `failing` by themselves. A Pod that
    is to run once ends well, or with what `refused` says for a word of its command.
    """

    def __init__(self, config: SingleConfig, namespace: str, clock: Clock, fault_label: str) -> None:
        self.client = Client(config, namespace=namespace, field_manager="paper-kubelet")
        self.namespace = namespace
        self.clock = clock
        self.fault_label = fault_label
        self.stubborn: set[str] = set()
        self.failing: set[str] = set()
        self.refused: dict[str, str] = {}
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
            elif pod.spec.restartPolicy == "Never" and pod.status.phase == "Running":
                self._finish(pod)

    def crash(self, name: str, exit_code: int = 137) -> None:
        """End a container, as a fault of its own would."""
        self._say(self.client.get(Pod, name), {"terminated": {"exitCode": exit_code, "reason": "Error"}}, ready=False)

    def close(self) -> None:
        """Take everything away."""
        for kind in (Deployment, DaemonSet, Job):
            self.client.deletecollection(kind)
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

    def _finish(self, pod: Pod) -> None:
        assert pod.spec is not None
        words = pod.spec.containers[0].command or []
        said = next((said for word, said in self.refused.items() if word in words), None)
        ended = {
            "exitCode": 0 if said is None else 3,
            "reason": "Error" if said else "Completed",
            "message": said or "",
        }
        self._say(pod, {"running": None, "terminated": ended}, ready=False, phase="Failed" if said else "Succeeded")

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

    def _address(self) -> str:
        return f"10.1.{self._addresses >> 8}.{self._addresses & 255}"

    def _say(self, pod: Pod, state: dict[str, Any], *, ready: bool, phase: str = "Running") -> None:
        assert pod.metadata is not None
        assert pod.metadata.name is not None
        assert pod.spec is not None
        container = pod.spec.containers[0]
        status = {"name": container.name, "image": container.image, "imageID": "", "ready": ready, "state": state}
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(ready)}]
        said = {
            "phase": phase,
            "podIP": self._address(),
            "podIPs": [{"ip": self._address()}],
            "conditions": conditions,
            "containerStatuses": [{**status, "restartCount": 0}],
        }
        try:
            self.client.patch(Pod.Status, pod.metadata.name, {"status": said}, patch_type=PatchType.MERGE)
        except ApiError as error:
            if error.status.code != 404:
                raise


def _free_network() -> str:
    """Two numbers of loopback addresses that no other run of tests uses for its Pods."""
    for second in random.sample(range(1, 255), 254):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((f"127.{second}.0.1", PORT))
            return f"127.{second}"
    raise AssertionError(f"port {PORT} is taken on all of 127.0.0.0/8")


class ProcessNodes(PaperNodes):
    """Runs what Pods command as processes of this machine, each on a loopback address of its own. `with` it.

    In place of a network and a file system of its own, a Pod's command gets its address for 0.0.0.0, and `models` for
    the folder of that name.
    """

    def __init__(self, config: SingleConfig, namespace: str, models: Path) -> None:
        super().__init__(config, namespace, SystemClock(), "app")
        self._models = models
        self._running: dict[str, tuple[subprocess.Popen[bytes], str]] = {}  # process and address, by uid
        self._over = Event()
        self._thread = Thread(target=self._turn)
        self.network = _free_network()
        self.started = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for process, _address in self._running.values():
            process.kill()
            process.wait()
        self.close()

    def _turn(self) -> None:
        while not self._over.wait(TURN_SECONDS):
            self.step()
            for pod in self.pods():
                assert pod.metadata is not None
                if pod.metadata.uid in self._running and pod.metadata.deletionTimestamp is None:
                    self._probe(pod)

    def _begin(self, pod: Pod) -> None:
        assert pod.metadata is not None
        assert pod.metadata.uid is not None
        assert pod.spec is not None
        self._addresses += 1
        self.started += 1
        (container,) = pod.spec.containers
        env = {**os.environ, **{each.name: each.value or "" for each in container.env or []}, "HOME": str(self._models)}
        for source in container.envFrom or []:
            assert source.secretRef is not None
            assert source.secretRef.name is not None
            data = self.client.get(Secret, source.secretRef.name).data or {}
            env |= {key: b64decode(value).decode() for key, value in data.items()}
        words = [word.replace("$$", "$").replace(EVERYWHERE, self._address()) for word in container.command or []]
        words = [word.replace("/models/", f"{self._models}/") for word in words]
        words[0] = sys.executable if words[0] == "python3" else words[0]
        self._running[pod.metadata.uid] = subprocess.Popen(words, env=env, start_new_session=True), self._address()
        self._say(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready=False)

    def _address(self) -> str:
        return f"{self.network}.{self._addresses >> 8}.{self._addresses & 255}"

    def _probe(self, pod: Pod) -> None:
        """As the Pod's readiness probe says."""
        assert pod.metadata is not None
        assert pod.spec is not None
        process, address = self._running[pod.metadata.uid or ""]
        if process.poll() is not None:
            self._say(pod, {"terminated": {"exitCode": process.returncode % 256, "reason": "Error"}}, ready=False)
            return
        probe = pod.spec.containers[0].readinessProbe
        if probe is None:
            statuses = pod.status.containerStatuses if pod.status is not None else None
            if statuses and not statuses[0].ready:
                self._say(pod, {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, ready=True)
            return
        assert probe.httpGet is not None
        try:
            answer = httpx2.get(f"http://{address}:{probe.httpGet.port}{probe.httpGet.path}", timeout=2.0)
        except httpx2.HTTPError:
            return
        is_ready = answer.status_code == 200
        conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": str(is_ready)}]
        patch = {"status": {"conditions": conditions}}
        self.client.patch(Pod.Status, pod.metadata.name or "", patch, patch_type=PatchType.MERGE)

    def _end(self, pod: Pod) -> None:
        assert pod.metadata is not None
        running = self._running.get(pod.metadata.uid or "")
        if running is not None and running[0].poll() is None:
            running[0].terminate()
            return
        self._delete(pod)
