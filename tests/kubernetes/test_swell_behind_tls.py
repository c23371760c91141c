"""`swell up` with `tls` in its file: a real server, worker and sidecar; the cluster is one of make-believe."""

import base64
import http.client
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest

from resource_cluster import ResourceCluster
from scripted_upstream import UpstreamThread
from swell.adapters.providers.kubernetes import names
from swell.adapters.providers.kubernetes.sidecar import ENGINE_PORT, FOLDER, PORT
from swell.testing.cluster import Controllers, Refused
from swell_process import SwellUp, end_with_the_tests

STEP_SECONDS = 0.05
STOP_SECONDS = 10.0


class PodCluster(ResourceCluster):
    """With a node, controllers that turn by themselves, and a real sidecar for each Pod, before an engine elsewhere."""

    def __init__(self, folder: Path, engine_port: int) -> None:
        super().__init__(folder)
        self._folder = folder
        self._engine_port = engine_port
        self.controllers = Controllers(self.cluster, names.WORKLOAD)
        self.controllers.add_node("node-1")
        network = f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
        self.controllers.kubelet.address_of = lambda number: f"{network}.{number}"
        self._sidecars: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        self._loop.call_soon_threadsafe(self._turn)
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        for process in self._sidecars.values():
            process.terminate()
            process.wait(STOP_SECONDS)

    def go_away(self) -> None:
        """The API answers nothing any more; Pods go on."""

        def refuse(verb: str, kind: str) -> None:
            raise Refused(503, "the control plane is being upgraded")

        def away() -> None:
            self.cluster.before_request = refuse
            self.cluster.break_watches()

        self.do(away)

    def _turn(self) -> None:
        self.controllers.step()
        for name, pod in self.cluster.objects["pods"].items():
            if pod["status"].get("podIP") and name not in self._sidecars:
                self._sidecars[name] = self._start(name, pod)
        self._loop.call_later(STEP_SECONDS, self._turn)

    def _start(self, name: str, pod: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """The sidecar by its own command line, but where a Pod has a network and files of its own."""
        (container,) = pod["spec"]["initContainers"]
        (volume,) = [each["secret"]["secretName"] for each in pod["spec"]["volumes"] if "secret" in each]
        mounted = self._folder / name
        mounted.mkdir()
        for key, value in self.cluster.objects["secrets"][volume]["data"].items():
            (mounted / key).write_bytes(base64.b64decode(value))
        instead = {
            f"--folder={FOLDER}": f"--folder={mounted}",
            f"--engine-port={ENGINE_PORT}": f"--engine-port={self._engine_port}",
        }
        words = [instead.get(word, word) for word in container["command"][1:]]
        assert set(instead.values()) <= set(words)
        return subprocess.Popen(
            [sys.executable, *words, f"--host={pod['status']['podIP']}"],
            preexec_fn=end_with_the_tests,  # noqa: PLW1509 - no locks
        )


@pytest.mark.process
def test_what_a_file_with_tls_serves_is_served_through_certificates_over_a_killed_server(
    swell_up: SwellUp, upstream: UpstreamThread, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with PodCluster(tmp_path, int(upstream.url.rsplit(":", 1)[1])) as cluster:
        model = {"name": "m", "engine": "vllm", "source": "hf://example/model", "replicas": 1}
        images = {"vllm": "engine:1"}
        place = {
            "name": "cluster", "kind": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "images": images,
            "tls": {"image": "swell-gateway:1"},
        }  # fmt: skip
        server = swell_up(json.dumps({"models": [model], "providers": [place]}))
        assert server.chat("m", max_tokens=4).status == 200, server.logs()
        (row,) = server.command("status")["replicas"]
        assert row["phase"] == "ready"
        assert row["address"].startswith("https://127.")
        host = row["address"].removeprefix("https://").rsplit(":", 1)[0]
        with pytest.raises((http.client.HTTPException, OSError)):
            urllib.request.urlopen(f"http://{host}:{PORT}/v1/models", timeout=STOP_SECONDS)

        authority = cluster.do(lambda: dict(cluster.cluster.objects["secrets"]))
        server.kill()
        server.start()
        eventually(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=30.0)
        assert server.chat("m", max_tokens=4).status == 200, server.logs()
        assert cluster.do(lambda: dict(cluster.cluster.objects["secrets"])) == authority
        assert cluster.controllers.created == 1
        assert server.stop() == 0, server.logs()
        eventually(lambda: not cluster.do(lambda: list(cluster.cluster.objects["pods"])), what="no Pod is left")


@pytest.mark.process
def test_a_server_that_begins_while_the_cluster_does_not_answer_keeps_what_runs_there(
    swell_up: SwellUp, upstream: UpstreamThread, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """Its gateway goes on with the Pods that it knows, certificates included, though the new server has neither."""
    with PodCluster(tmp_path, int(upstream.url.rsplit(":", 1)[1])) as cluster:
        far = {"name": "far", "engine": "vllm", "source": "hf://example/model", "replicas": 1}
        near = {"name": "near", "endpoints": [upstream.url]}
        place = {
            "name": "cluster", "kind": "kubernetes", "kubeconfig": str(cluster.kubeconfig),
            "images": {"vllm": "engine:1"}, "tls": {"image": "swell-gateway:1"},
        }  # fmt: skip
        server = swell_up(json.dumps({"models": [far, near], "providers": [place]}))
        assert server.chat("far", max_tokens=4).status == 200, server.logs()

        server.kill()
        cluster.go_away()
        server.start()
        eventually(lambda: server.command("status", check=False).get("pid") == server.pid, seconds=60.0)
        assert "cluster has not answered since this server began" in server.output
        (row,) = [row for row in server.command("status")["replicas"] if row["model"] == "far"]
        assert (row["phase"], row["address"]) == ("ready", "")
        assert "has not answered" in row["reason"]
        for model in ("far", "near"):
            assert server.chat(model, max_tokens=4).status == 200, server.logs()

        cluster.answer_again()
        eventually(
            lambda: all(not row["reason"] for row in server.command("status")["replicas"]),
            seconds=60.0,
            what="what runs is taken over",
        )
        (row,) = [row for row in server.command("status")["replicas"] if row["model"] == "far"]
        assert (row["phase"], row["address"][:12]) == ("ready", "https://127.")
        assert server.chat("far", max_tokens=4).status == 200, server.logs()
        assert cluster.controllers.created == 1
        assert server.stop() == 0, server.logs()
        eventually(lambda: not cluster.do(lambda: list(cluster.cluster.objects["pods"])), what="no Pod is left")
