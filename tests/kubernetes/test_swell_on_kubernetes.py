"""`swell up` on a real control plane, with llama.cpp in what stands for Pods: from zero, over a kill, to zero."""

import json
import secrets
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane
from lightkube import Client
from lightkube.resources.apps_v1 import DaemonSet, Deployment
from lightkube.resources.core_v1 import Pod, Secret
from nodes import NAMESPACE_LABEL, ProcessNodes

from swell_process import SwellUp

pytestmark = [pytest.mark.process, pytest.mark.model]


def _spec(plane: ControlPlane, namespace: str, **more: object) -> str:
    model = {
        "name": "small",
        "source": "/models/small.gguf",
        "engine": "llama.cpp",
        "replicas": "0..1",
        "scaling": {"interval_seconds": 0.5, "idle_seconds": 300.0, "start_seconds": 2.0},
        "objectives": {"ttft_ms": 30000.0, "itl_ms": 2000.0},
    }
    place = {
        "name": "cluster",
        "kind": "kubernetes",
        "kubeconfig": str(plane.kubeconfig),
        "namespace": namespace,
        "images": {"llama.cpp": "engine:1"},
        "cpus": 1,
        "memory": "512MiB",
        **more,
    }
    return json.dumps({"models": [model], "providers": [place]})


def test_a_model_serves_from_pods_over_a_killed_server_and_leaves_none_behind(
    swell_up: SwellUp,
    control_plane: ControlPlane,
    model_file: Path,
    tmp_path: Path,
    eventually: Callable[..., Any],
) -> None:
    namespace = f"swell-{secrets.token_hex(4)}"
    (tmp_path / "small.gguf").symlink_to(model_file)
    with (
        closing(Client(control_plane.config, namespace=namespace)) as client,
        ProcessNodes(control_plane.config, namespace, tmp_path) as nodes,
    ):
        nodes.add(f"{namespace}-1", {})
        server = swell_up(_spec(control_plane, namespace))
        assert list(client.list(Pod)) == []
        assert server.chat("small", max_tokens=4).status == 200, server.logs()
        (pod,) = client.list(Pod)
        assert pod.metadata is not None
        (row,) = server.command("status")["replicas"]
        assert (row["phase"], row["address"]) == ("ready", f"http://{nodes.network}.0.1:8000")

        server.kill()
        server.start()
        eventually(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30.0)
        assert server.chat("small", max_tokens=4).status == 200
        (same,) = client.list(Pod)
        assert same.metadata is not None
        assert same.metadata.uid == pod.metadata.uid
        assert nodes.started == 1

        assert server.stop() == 0, server.logs()
        eventually(lambda: not list(client.list(Pod)), what="no Pod is left")
        (deployment,) = client.list(Deployment)
        assert deployment.spec is not None
        assert deployment.spec.replicas == 0
        (secret,) = client.list(Secret)
        assert secret.metadata is not None
        assert secret.metadata.labels == (deployment.metadata.labels if deployment.metadata is not None else None)


def test_images_are_there_before_a_model_is_asked_for_and_go_with_the_server(
    swell_up: SwellUp, control_plane: ControlPlane, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    namespace = f"swell-{secrets.token_hex(4)}"
    with (
        closing(Client(control_plane.config, namespace=namespace)) as client,
        ProcessNodes(control_plane.config, namespace, tmp_path) as nodes,
    ):
        nodes.add(f"{namespace}-1", {})
        # Other runs' machines are machines too.
        selector = {NAMESPACE_LABEL: namespace}
        server = swell_up(_spec(control_plane, namespace, prefetch={"images": True}, node_selector=selector))

        def told() -> tuple[str, str]:
            (row,) = server.command("status")["prepared"]
            return row["progress"], row["reason"]

        eventually(lambda: told() == ("done", "on 1 of 1 nodes"), what="the image is on the machine")
        (row,) = server.command("status")["prepared"]
        assert (row["what"], row["name"], row["place"], row["models"]) == ("image", "engine:1", "cluster", ["small"])
        (before,) = client.list(DaemonSet)
        server.kill()
        server.start()
        eventually(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30.0)
        (same,) = client.list(DaemonSet)
        assert before.metadata is not None
        assert same.metadata is not None
        assert same.metadata.uid == before.metadata.uid
        server.kill()
        server.command("down")
        assert list(client.list(DaemonSet)) == [], "what a killed server has left is cleared away"
        eventually(lambda: not list(client.list(Pod)), what="no Pod is left")

        server.start()
        eventually(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30.0)
        eventually(lambda: told()[0] == "done", what="the image is on the machine again")
        assert server.stop() == 0, server.logs()
        assert list(client.list(DaemonSet)) == []
        assert nodes.started == 2
