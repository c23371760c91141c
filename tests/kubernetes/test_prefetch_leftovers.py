"""What a killed server had prepared in a cluster, and `swell down` cannot take away."""

import asyncio
import json
from pathlib import Path

import pytest
from kube_harness import ON_GKE

from swell.adapters.providers.kubernetes.names import as_query, prefetch_labels, prefetch_selector
from swell.clock import ManualClock
from swell.errors import SwellError
from swell.server import assembly, draining
from swell.server.leftovers import stop_leftovers
from swell.server.state_directory import StateDirectory
from swell.spec.parse import check_spec
from swell.testing.cluster import ApiServer, FakeCluster, Refused

PREPARED_SECONDS = 1.0


async def _down(state: StateDirectory) -> int:
    with state.locked():
        return await asyncio.to_thread(stop_leftovers, state, 5.0)


async def test_what_cannot_be_taken_away_fails_the_command_and_says_what_deletes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "PREPARED_SECONDS", PREPARED_SECONDS)
    cluster, namespace = FakeCluster(ManualClock()), ON_GKE.namespace
    async with ApiServer(cluster, namespace) as server:
        state = _remembered(tmp_path, server)
        labels = prefetch_labels(state.installation(), "cluster")
        cluster.create("jobs", {"metadata": {"name": "model-1", "labels": labels}, "spec": {"suspend": True}})

        def refuse(verb: str, kind: str) -> None:
            if (verb, kind) == ("delete", "jobs"):
                raise Refused(500, "etcd is busy")

        cluster.before_request = refuse
        with pytest.raises(SwellError) as told:
            await _down(state)
        command = (
            f"kubectl delete jobs,daemonsets -n {namespace} -l {as_query(prefetch_selector(state.installation()))}"
        )
        left = "model model-1 of cluster (the cluster's API says: etcd is busy)"
        assert str(told.value) == (f"Not everything that was prepared has gone: {left}. To delete it, run: {command}")
        assert cluster.requests["delete jobs"] > 1
        cluster.before_request = lambda verb, kind: None
        assert await _down(state) == 0
        assert not cluster.objects["jobs"]


def _remembered(folder: Path, server: ApiServer) -> StateDirectory:
    """The state of a server that has run with a cluster as a place, and was killed."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "clusters": [{"name": "fake", "cluster": {"server": server.url}}],
                "users": [{"name": "fake", "user": {"token": server.token}}],
            }
        )
    )
    place = {
        "name": "cluster",
        "kind": "kubernetes",
        "kubeconfig": str(kubeconfig),
        "namespace": server.namespace,
        "images": {"llama.cpp": "engine:1"},
    }
    model = {"name": "chat", "source": "/models/chat.gguf", "engine": "llama.cpp"}
    spec = check_spec({"models": [model], "providers": [place]}, origin="a test", base=folder)
    state = StateDirectory(folder / "state")
    state.create()
    assembly.remember_spec(state, spec)
    assembly.open_store(state).close()
    return state
