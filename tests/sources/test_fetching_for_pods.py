"""Fetching in containers: each of them is process 1 of its own, and several do the same to one cache."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub_server import HubServer
from model_files import safetensors_bytes

from swell.adapters.sources import fetch as fetching
from swell.server.cluster_models import cluster_model
from swell.spec import KubernetesSpec, ModelSpec
from swell.spec.providers import ClusterCacheSpec, PrefetchSpec

BOTH = 2
ROUNDS = 200


def test_pods_that_link_to_one_model_at_once_are_not_in_each_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in every container
    folder, link = tmp_path / "views" / "abc", tmp_path / "links" / "chat"
    folder.mkdir(parents=True)
    barrier, problems = threading.Barrier(BOTH), list[Exception]()

    def one_pod() -> None:
        for _ in range(ROUNDS):
            barrier.wait()
            try:
                fetching._link(link, folder)
            except OSError as error:
                problems.append(error)

    pods = [threading.Thread(target=one_pod) for _ in range(BOTH)]
    for pod in pods:
        pod.start()
    for pod in pods:
        pod.join()
    assert problems == []
    assert link.samefile(folder)
    assert [path.name for path in link.parent.iterdir()] == ["chat"]


def test_the_hubs_library_finds_what_was_fetched_ahead(tmp_path: Path) -> None:
    files = {
        "config.json": b"{}",
        "tokenizer.json": b"[]",
        "model.safetensors": safetensors_bytes(100),
        "pytorch_model.bin": b"x",
        "README.md": b"x",
    }
    cache, prefetch = ClusterCacheSpec(claim="models"), PrefetchSpec(models=True)
    place = KubernetesSpec(name="c", images={"vllm": "vllm:1"}, model_cache=cache, prefetch=prefetch)
    model = ModelSpec.model_validate({"name": "chat", "source": "hf://org/name", "engine": "vllm"})
    fetch = cluster_model(model, place).needs.fetch_ahead
    assert fetch is not None
    command = [sys.executable, *fetch.argv[1:]]
    with HubServer("org/name", files) as hub:
        env = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1"}
        for _ in range(2):  # a second Job, or an engine that starts meanwhile
            ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
        assert sorted(hub.downloads) == ["config.json", "model.safetensors", "tokenizer.json"]
        missing = [*command[:3], "org/gone", *command[4:]]
        refused = subprocess.run(missing, env=env, capture_output=True, text=True, check=False)
        assert refused.returncode == 1
        assert refused.stderr.strip().splitlines()[-1].startswith("hf://org/gone cannot be fetched: ")
    # As vLLM asks: weights by pattern, everything else by name, in the cache that HF_HOME means.
    look = (
        "from huggingface_hub import hf_hub_download, snapshot_download; from pathlib import Path; "
        "folder = snapshot_download('org/name', allow_patterns=['*.safetensors'], cache_dir=None); "
        "assert Path(folder, 'model.safetensors').stat().st_size; hf_hub_download('org/name', 'config.json')"
    )
    offline = {**env, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:1"}
    found = subprocess.run([sys.executable, "-c", look], env=offline, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
