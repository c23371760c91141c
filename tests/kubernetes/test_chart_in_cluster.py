"""The chart on a real control plane: taken as it is, with rights that suffice, installed, serving, and gone again."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import helm_python
import httpx2
import pytest
import yaml
from chart import Object, custom_definitions, objects_of, one, renew, workloads
from control_plane import TOKEN, ControlPlane
from kube_children import ISSUED_TLS, SETTINGS
from kube_harness import RealClusterHarness
from kube_spanning import spanning
from lightkube import Client
from lightkube.config.kubeconfig import Cluster, KubeConfig, SingleConfig, User
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Pod, Secret
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.resources.rbac_authorization_v1 import Role
from nodes import ProcessNodes
from paper_sets import PaperSets
from provider_rights import Right, asked_for

from swell.adapters.providers.kubernetes import manifests_tls, names
from swell.adapters.providers.kubernetes.client import LightkubeApi
from swell.adapters.providers.kubernetes.group import Group
from swell.adapters.providers.kubernetes.manifests_tls import CERT_MANAGER
from swell.adapters.providers.kubernetes.plan import EMPTY_SECONDS
from swell.adapters.providers.kubernetes.provider import KubernetesProvider
from swell.ports.provider import Presence
from swell_process import SwellUp, wait_until

VALUES = renew.value_sets()
STRICT = {"fieldManager": "chart-test", "fieldValidation": "Strict", "force": "true"}
PLURALS = {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies", "StorageClass": "storageclasses"}
CLUSTER_WIDE = (
    "ClusterRole",
    "ClusterRoleBinding",
    "StorageClass",
    "NodePool",
    "Namespace",
    "CustomResourceDefinition",
)
PREFETCHED = ("jobs", "daemonsets")  # where the spec asks for them
FORBIDDEN, MADE = 403, 201


class Admin:
    """Requests of somebody who may do everything."""

    def __init__(self, plane: ControlPlane) -> None:
        headers = {"authorization": f"Bearer {TOKEN}"}
        self.url = plane.config.cluster.server
        self.http = httpx2.Client(base_url=self.url, verify=False, headers=headers, timeout=30.0)

    def path(self, item: Object, namespace: str) -> str:
        """Where objects of its kind are."""
        version, kind = item["apiVersion"], item["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural = PLURALS.get(kind, f"{kind.lower()}s".replace("policys", "policies"))
        if kind in CLUSTER_WIDE:
            return f"{root}/{plural}"
        return f"{root}/namespaces/{item['metadata'].get('namespace', namespace)}/{plural}"

    def apply(self, item: Object, namespace: str = renew.NAMESPACE, **params: str) -> httpx2.Response:
        """Server-side, as strictly as there is."""
        return self.http.patch(
            f"{self.path(item, namespace)}/{item['metadata']['name']}",
            params={**STRICT, **params},
            headers={"content-type": "application/apply-patch+yaml"},
            content=json.dumps(item),
        )

    def namespace(self, name: str, **labels: str) -> None:
        """Have one."""
        metadata = {"name": name, "labels": {key.replace("_", "-"): value for key, value in labels.items()}}
        item = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        self.apply(item).raise_for_status()

    def account(self, namespace: str, name: str) -> str:
        """A token of a service account, as a kubelet gives it to a Pod."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        answer = self.http.post(path, json=request).raise_for_status()
        return str(answer.json()["status"]["token"])


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> Iterator[Admin]:
    found = Admin(control_plane)
    for definition in custom_definitions():
        found.apply(definition).raise_for_status()
    for definition in custom_definitions():
        path = found.path(definition, "") + "/" + definition["metadata"]["name"]
        wait_until(lambda path=path: '"Established","status":"True"' in _compact(found.http.get(path)), seconds=30.0)
    for namespace in ("serving", "engines", "declared"):
        found.namespace(namespace)
    with closing(found.http):
        yield found


def _compact(answer: httpx2.Response) -> str:
    """Conditions in the order of type and status, without what is between."""
    conditions = answer.json().get("status", {}).get("conditions", [])
    pairs = [{"type": each["type"], "status": each["status"]} for each in conditions]
    return json.dumps(pairs, separators=(",", ":")).replace('"type":', "")


@pytest.mark.parametrize("name", VALUES)
def test_an_api_server_takes_everything_that_is_rendered(admin: Admin, name: str) -> None:
    refused = {}
    for item in objects_of(VALUES[name]):
        answer = admin.apply(item, dryRun="All")
        if answer.status_code not in (200, MADE):
            refused[item["kind"], item["metadata"]["name"]] = answer.text
    assert refused == {}


def test_an_api_server_would_not_take_a_misspelt_field(admin: Admin) -> None:
    item = one(objects_of({}), "StatefulSet")
    item["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    answer = admin.apply(item, dryRun="All")
    assert answer.status_code >= 400
    assert "readynessProbe" in answer.text


@pytest.mark.parametrize("name", VALUES)
def test_its_pods_are_let_into_a_namespace_that_allows_little(admin: Admin, name: str) -> None:
    namespace = f"restricted-{secrets.token_hex(4)}"
    admin.namespace(namespace, **{"pod-security.kubernetes.io/enforce": "restricted"})
    objects = objects_of(VALUES[name])
    owners = workloads(objects)
    assert owners
    for owner in owners:
        spec = owner["spec"]["template"]["spec"]
        spec.pop("priorityClassName", None)  # of a class that is not here
        claims = [each["metadata"]["name"] for each in owner["spec"].get("volumeClaimTemplates", [])]
        mounted = [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims]
        spec["volumes"] = [*spec.get("volumes", []), *mounted]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
        assert admin.apply(pod, namespace, dryRun="All").status_code == MADE
        spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
        assert admin.apply(pod, namespace, dryRun="All").status_code == FORBIDDEN


def test_an_api_server_takes_what_is_asked_of_cert_manager(admin: Admin) -> None:
    group = Group("chat/f", "chat-0123456789", "chat", ISSUED_TLS.authority, uid="00000000-0000-0000-0000-000000000000")
    settings = replace(SETTINGS, namespace=renew.NAMESPACE)
    for manifest in (
        manifests_tls.replica_certificate(group, settings, 86400.0),
        manifests_tls.gateways_certificate(group.authority, settings, 86400.0),
    ):
        answer = admin.apply(manifest, dryRun="All")
        assert answer.status_code == MADE, answer.text


class RecordingApi(LightkubeApi):
    """Notes what is asked for, and how it is answered."""

    def __init__(self, config: SingleConfig, namespace: str, said: list[tuple[Right, int]]) -> None:
        super().__init__(config, namespace)
        send = self._http.send

        async def noted(request: httpx2.Request, **options: Any) -> httpx2.Response:
            response: httpx2.Response = await send(request, **options)
            said.extend((right, response.status_code) for right in _rights(request, response.status_code))
            return response

        self._http.send = noted  # type: ignore[method-assign]


def _rights(request: httpx2.Request, status: int) -> Iterator[Right]:
    """What a request had to be allowed for."""
    parts = request.url.path.strip("/").split("/")
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    if rest[0] == "namespaces":
        rest = rest[2:]
    resource = "/".join([rest[0], *rest[2:]])
    if request.method == "GET":
        yield group, resource, "watch" if "watch" in request.url.params else "get" if len(rest) > 1 else "list"
    else:
        yield group, resource, request.method.lower()
    if status == MADE:
        yield group, resource, "create"


def _config(url: str, token: str, namespace: str) -> SingleConfig:
    cluster = Cluster(server=url, insecure=True)
    found = KubeConfig.from_one(cluster=cluster, user=User(token=token), namespace=namespace).get()
    assert found is not None
    return found


def _can_list(url: str, token: str, path: str) -> bool:
    """Rights take a moment to arrive."""
    answer = httpx2.get(f"{url}{path}", verify=False, headers={"authorization": f"Bearer {token}"})
    return answer.status_code == 200


class InstalledHarness(RealClusterHarness):
    """A provider with the service account of an installed chart."""

    def __init__(self, folder: Path, plane: ControlPlane, admin: Admin) -> None:
        super().__init__(folder, plane)
        self.said: list[tuple[Right, int]] = []
        self._url = admin.url
        self._helm = helm_python.Config(kubeconfig_path=plane.kubeconfig, namespace=self.namespace)
        self._helm.install(renew.CHART, "swell", namespace=self.namespace)
        self._sets = PaperSets(self.nodes.client)
        self._token = admin.account(self.namespace, "swell")
        for path in (f"/apis/apps/v1/namespaces/{self.namespace}/deployments", "/api/v1/nodes"):
            wait_until(lambda path=path: _can_list(self._url, self._token, path))

    def api(self) -> LightkubeApi:
        return RecordingApi(_config(self._url, self._token, self.namespace), self.namespace, self.said)

    def step(self) -> None:
        self._sets.step()
        super().step()

    async def close(self) -> None:
        await super().close()
        self._helm.close()


async def test_the_rights_of_the_chart_suffice_and_none_is_idle(
    tmp_path: Path, control_plane: ControlPlane, admin: Admin
) -> None:
    harness = InstalledHarness(tmp_path, control_plane, admin)
    try:
        labels = {**names.labels("inst-1", "gone", "f"), names.COMPONENT: names.REPLICA}
        metadata = {"name": "orphan", "namespace": harness.namespace, "labels": labels}
        admin.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}).raise_for_status()
        provider = harness.provider()
        await provider.end_orphans()
        await harness.until(lambda: "orphan" not in _names(harness.nodes.client, Secret))

        spec = harness.stubborn()
        handle = await provider.start(spec)
        await harness.settled(handle)
        assert await provider.log_tail(spec.log_path) == "steady"
        await harness.until(lambda: spec.child_id in {pod.annotations.get(names.CHILD) for pod in harness.pods()})
        await provider.stop(handle, grace_seconds=1.0)
        await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
        await _run_over_two_nodes(harness, provider)
        await harness.pass_seconds(EMPTY_SECONDS + 1)
        await harness.until(lambda: not _names(harness.nodes.client, Deployment))
        await harness.until(lambda: spec.workload not in str(_names(harness.nodes.client, PodDisruptionBudget)))
        last = ("policy", "poddisruptionbudgets", "delete")
        await harness.until(lambda: last in {right for right, _ in harness.said})  # it was done; now it is answered
    finally:
        await harness.close()
    # Who prepares nothing asks once for what an earlier server may have prepared, and takes a refusal for nothing.
    asked_once = [("apps", "daemonsets", "list"), ("batch", "jobs", "list")]
    assert sorted(right for right, status in harness.said if status == FORBIDDEN) == asked_once
    usual = {right for right in asked_for() if right[0] != CERT_MANAGER and right[1] not in PREFETCHED}
    assert {right for right, _ in harness.said} == usual | set(asked_once)


async def _run_over_two_nodes(harness: InstalledHarness, provider: KubernetesProvider) -> None:
    spec = spanning(harness.steady())
    handle = await provider.start(spec)
    await harness.settled(handle)
    await provider.stop(handle, grace_seconds=1.0)
    await harness.until(lambda: provider.status(handle).presence is Presence.GONE)
    await harness.until(lambda: spec.workload not in str(_names(harness.nodes.client, Secret)))


def _names(client: Client, kind: Any) -> list[str]:
    return [each.metadata.name for each in client.list(kind)]


def _let_go(admin: Admin, plane: ControlPlane, namespace: str, folder: Path) -> None:
    """What a kubelet does with the Pod of the Job that Helm makes before it deletes anything."""
    with closing(Client(plane.config, namespace=namespace)) as client:
        job = {"job-name": "swell-let-go"}
        wait_until(lambda: list(client.list(Pod, labels=job)), seconds=60.0, what="the Pod of the Job")
        (pod,) = client.list(Pod, labels=job)
    assert pod.spec is not None
    assert pod.metadata is not None
    words = pod.spec.containers[0].command or []
    account = folder / "let-go"
    account.mkdir()
    (account / "token").write_text(admin.account(namespace, pod.spec.serviceAccountName or ""))
    (account / "ca.crt").write_bytes(plane.authority.read_bytes())
    host, _, port = admin.url.removeprefix("https://").rpartition(":")
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "POLL_SECONDS": "0.1"}
    env["SERVICE_ACCOUNT_FOLDER"] = str(account)
    ended = subprocess.run(
        [sys.executable, *words[1:]], env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False
    )
    status = {"phase": "Succeeded" if ended.returncode == 0 else "Failed", "message": ended.stdout + ended.stderr}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod.metadata.name}/status"
    headers = {"content-type": "application/merge-patch+json"}
    admin.http.patch(path, headers=headers, content=json.dumps({"status": status})).raise_for_status()


@pytest.mark.process
@pytest.mark.model
def test_it_is_installed_serves_and_leaves_nothing_running(
    swell_up: SwellUp,
    control_plane: ControlPlane,
    admin: Admin,
    model_file: Path,
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    namespace, engines = (f"{name}-{secrets.token_hex(4)}" for name in ("release", "engines"))
    admin.namespace(namespace)
    (tmp_path / "small.gguf").symlink_to(model_file)
    images = {"llama.cpp": "engine:1"}
    place = {"name": "cluster", "kind": "kubernetes", "namespace": engines, "images": images, "cpus": 1}
    model = {"name": "small", "source": "/models/small.gguf", "engine": "llama.cpp", "replicas": {"min": 1, "max": 1}}
    values = {"spec": {"providers": [place], "models": [model]}, "state": {"ephemeral": True}}
    with (
        ProcessNodes(control_plane.config, engines, tmp_path) as nodes,
        closing(Client(control_plane.config, namespace=namespace)) as client,
        helm_python.Config(kubeconfig_path=control_plane.kubeconfig, namespace=namespace) as helm,
    ):
        nodes.add(f"{engines}-1", {})
        helm.install(renew.CHART, "swell", values, namespace=namespace)
        pod = eventually(lambda: next(iter(client.list(Pod)), None), seconds=30.0, what="the server's Pod")
        assert pod.metadata.name == "swell-0"
        eventually(lambda: client.get(Pod, "swell-0").spec.nodeName, seconds=30.0, what="a node for it")
        token = admin.account(namespace, "swell")
        eventually(lambda: _can_list(admin.url, token, f"/apis/apps/v1/namespaces/{engines}/deployments"))
        (tmp_path / "kubeconfig").write_text(_kubeconfig(admin.url, token))
        text = (client.get(ConfigMap, "swell").data or {})["swell.yaml"]
        server = swell_up(text, "--host", "127.0.0.1", environment={"KUBECONFIG": str(tmp_path / "kubeconfig")})
        server.wait_model("small")
        assert len(list(client.list(Pod, namespace=engines))) == 1

        uninstalling = Thread(target=helm.uninstall, args=("swell",), kwargs={"timeout": 120})
        job = Thread(target=_let_go, args=(admin, control_plane, namespace, tmp_path))
        uninstalling.start()
        job.start()
        eventually(lambda: client.get(Pod, "swell-0").metadata.deletionTimestamp, seconds=60.0, what="it is to end")
        assert client.get(Role, "swell", namespace=engines)
        assert server.stop() == 0, server.logs()
        client.delete(Pod, "swell-0", grace_period=0)
        job.join(90)
        uninstalling.join(120)
        assert not list(client.list(Pod, namespace=engines))
        assert [each.spec.replicas for each in client.list(Deployment, namespace=engines)] == [0]
        assert not [name for name in _names(client, Role) if name.startswith("swell")]
        assert helm.list() == []


def _kubeconfig(url: str, token: str) -> str:
    """As a Pod has it."""
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )
