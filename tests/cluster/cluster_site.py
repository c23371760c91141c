"""A release of the chart on a real cluster, its replicas' namespace, and clients in a Pod. `with` it.

Everything goes by kubectl, as an operator's hands would, but for Helm, whose library renders and installs.
"""

import base64
import contextlib
import json
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import helm_python
from chart import renew

from swell.spec.default import DEFAULT_SHA256, DEFAULT_SOURCE
from swell_process import wait_until

HERE = Path(__file__).parent
RELEASE, CLIENTS = "swell", "clients"
READY_SECONDS = 240.0
CALL_SECONDS = 120.0
ENDED_SECONDS = 30.0

Values = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Of `conftest`."""

    kubeconfig: str
    registry: str
    models: str
    database: str
    storage_class: str


class Asking:
    """A client's process in the Pod: `begun` once its first line came."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.begun = self._line()

    def progress(self) -> Values:
        """Of a load."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def result(self) -> Values:
        """Its last line; a load is told to stop."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        found = self._line()
        self._process.wait(ENDED_SECONDS)
        return found

    def close(self) -> None:
        """Whatever it does."""
        with self._process:  # closes what it reads and writes
            self._process.kill()

    def _line(self) -> Values:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"a client ended with {self._process.wait(ENDED_SECONDS)}"
        found: Values = json.loads(line)
        return found


@dataclass
class ClusterSite:
    """Names are new for every site, so that several can be on one cluster."""

    settings: Settings
    folder: Path
    token: str = field(default_factory=lambda: secrets.token_hex(3))
    _asking: list[Asking] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.namespace, self.engines = f"swell-test-{self.token}", f"swell-test-{self.token}-engines"
        self.host = f"{RELEASE}.{self.namespace}.svc.cluster.local"
        self._helm = helm_python.Config(kubeconfig_path=self.settings.kubeconfig, namespace=self.namespace)

    def __enter__(self) -> Self:
        for name in (self.namespace, self.engines):
            self.kubectl("create", "namespace", name)
        files = [
            f"--from-file={path}" for path in (HERE / "cluster_client.py", HERE.parent / "containers/balanced_load.py")
        ]
        self.kubectl("create", "configmap", CLIENTS, *files)
        self.apply(self._clients())
        self.kubectl("wait", "--for=condition=Ready", f"pod/{CLIENTS}", f"--timeout={READY_SECONDS:.0f}s")
        return self

    def __exit__(self, *_: object) -> None:
        for asking in self._asking:
            asking.close()
        try:
            print(self.story())  # shown where the test failed
        finally:
            for name in (self.namespace, self.engines):
                self.kubectl("delete", "namespace", name, "--wait=false", check=False)
            self._helm.close()

    def kubectl(self, *words: str, namespace: str = "", stdin: str | None = None, check: bool = True) -> str:
        """What it printed."""
        command = [*self._kubectl(namespace), *words]
        ended = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=READY_SECONDS + CALL_SECONDS, check=False
        )
        assert not check or ended.returncode == 0, f"{' '.join(words)}: {ended.stdout[-2000:]} {ended.stderr[-2000:]}"
        return ended.stdout

    def apply(self, *objects: Values) -> None:
        """As they are."""
        self.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, *words: str, namespace: str = "") -> list[Values]:
        """Objects."""
        found: list[Values] = json.loads(self.kubectl("get", *words, "-o", "json", namespace=namespace))["items"]
        return found

    def secret(self, name: str, **values: bytes) -> None:
        """Have one."""
        data = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in values.items()}
        self.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data})

    def install(self, values: Values) -> None:
        """The chart."""
        self._helm.install(renew.CHART, RELEASE, values, namespace=self.namespace)

    def upgrade(self, values: Values) -> None:
        """To other values."""
        self._helm.upgrade(renew.CHART, RELEASE, values)

    def uninstall(self) -> None:
        """With its hooks."""
        self._helm.uninstall(RELEASE, timeout=int(READY_SECONDS))

    def rolled_out(self, *owners: str) -> None:
        """Wait until all Pods are new and ready."""
        for owner in owners:
            self.kubectl("rollout", "status", owner, f"--timeout={READY_SECONDS:.0f}s")

    def swell(self, pod: str, *words: str) -> Any:
        """A command in the server's Pod."""
        return json.loads(self.kubectl("exec", pod, "-c", "server", "--", "swell", *words, "--json"))

    def ask(self, key: str, what: str, count: int) -> Asking:
        """A client begins: its first line has come."""
        words = ["exec", "-i", CLIENTS, "--", "python3", "/clients/cluster_client.py", self.host, key, what, str(count)]
        process = subprocess.Popen(
            [*self._kubectl(""), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        asking = Asking(process)
        self._asking.append(asking)
        return asking

    def replicas(self) -> dict[str, Values]:
        """Pods of engines that are not ending, by uid."""
        labels = "app.kubernetes.io/managed-by=swell,app.kubernetes.io/component=replica"
        pods = self.get("pods", "-l", labels, namespace=self.engines)
        return {pod["metadata"]["uid"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def until_replicas(self, count: int, seconds: float = READY_SECONDS) -> dict[str, Values]:
        """As many as that, and ready."""

        def so_many() -> bool:
            found = self.replicas()
            return len(found) == count and all(is_ready(pod) for pod in found.values())

        wait_until(so_many, seconds=seconds, what=f"{count} replicas")
        return self.replicas()

    def values(self, *, place_has: Values | None = None, **model: Any) -> Values:
        """Of a release with the small model; `place_has` is added to where it runs."""
        image = f"{self.settings.registry}swell-engine-llama.cpp:0.1.0"
        place: Values = {"name": "cluster", "kind": "kubernetes", "namespace": self.engines, "cpus": 0.2}
        place |= {"memory": "1GiB", "images": {"llama.cpp": image}}
        source = {"source": DEFAULT_SOURCE, "sha256": DEFAULT_SHA256}
        if self.settings.models:
            place["model_cache"] = {"host_path": self.settings.models}
            source = {"source": "/models/small.gguf"}
        place |= place_has or {}
        served = {"name": "small", "engine": "llama.cpp", **source, "objectives": {"ttft_ms": 30_000, "itl_ms": 2000}}
        return {
            "spec": {"providers": [place], "models": [{**served, **model}]},
            "image": {"repository": f"{self.settings.registry}swell-server"},
            "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
            "state": {"ephemeral": True},
            "disruptionBudget": {"enabled": False},
        }

    @property
    def behind_tls(self) -> Values:
        """What a place has whose replicas ask for certificates."""
        return {"tls": {"image": f"{self.settings.registry}swell-gateway:0.1.0"}}

    def story(self) -> str:
        """What an operator would look at first."""
        said = [
            self.kubectl("get", "pods,events", "-o", "wide", namespace=name, check=False)
            for name in (self.namespace, self.engines)
        ]
        for pod in self.get("pods"):
            name = pod["metadata"]["name"]
            said.append(f"--- {name}\n" + self.kubectl("logs", name, "--all-containers", "--tail=60", check=False))
        return "\n".join(said)

    def _kubectl(self, namespace: str) -> list[str]:
        return ["kubectl", "--kubeconfig", self.settings.kubeconfig, "--namespace", namespace or self.namespace]

    def _clients(self) -> Values:
        container = {
            "name": CLIENTS,
            "image": f"{self.settings.registry}swell-gateway:0.1.0",
            "command": ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
            "volumeMounts": [{"name": CLIENTS, "mountPath": "/clients"}],
        }
        volume = {"name": CLIENTS, "configMap": {"name": CLIENTS}}
        spec = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 1}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": CLIENTS}, "spec": spec}


def is_ready(pod: Values) -> bool:
    """Whether it says so."""
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@contextlib.contextmanager
def unchanged(site: ClusterSite) -> Any:
    """The same replicas after as before, none restarted."""
    before = {uid: _restarts(pod) for uid, pod in site.replicas().items()}
    yield
    assert {uid: _restarts(pod) for uid, pod in site.replicas().items()} == before


def _restarts(pod: Values) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))
