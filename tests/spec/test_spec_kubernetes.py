"""Providers of kind kubernetes in the spec."""

from typing import get_args

import pytest

from swell.adapters.providers import accelerators
from swell.spec import KubernetesSpec, Spec, SpecRefusedError, parse_spec
from swell.spec.providers import Platform, places_from_json, places_to_json

WHOLE = """
models:
  - {name: chat, source: hf://org/name, engine: vllm, accelerators: [2xL4]}
providers:
  - name: cluster
    kind: kubernetes
    images: {vllm: "vllm/vllm-openai:v0.11.0"}
    fetch_image: swell/engine:1
    namespace: models
    context: production
    platform: gke
    market: spot
    zone: europe-west4-a
    cpus: 7.5
    memory: 30GiB
    model_cache: {claim: models}
    prefetch: {models: true, images: true, queue: downloads, memory: 4GiB, node_selector: {pool: cpu}}
    token_secret: hub
    image_pull_secrets: [registry]
    priority_class: serving
    runtime_class: nvidia
    node_selector: {pool: gpu}
    tolerations: [{key: sku, value: gpu}, {key: team}]
"""


def _spec(provider: str) -> Spec:
    return parse_spec(f"models: [{{name: chat, source: hf://org/name}}]\nproviders: [{provider}]", origin="test")


def test_a_cluster_is_described_in_whole() -> None:
    (place,) = parse_spec(WHOLE, origin="test").providers
    assert isinstance(place, KubernetesSpec)
    assert (place.namespace, place.platform, place.market, place.memory) == ("models", "gke", "spot", 30 * 2**30)
    assert place.model_cache is not None
    assert (place.model_cache.claim, place.model_cache.host_path) == ("models", None)
    assert place.prefetch is not None
    assert (place.prefetch.queue, place.prefetch.memory, place.prefetch.cpus) == ("downloads", 4 * 2**30, 0.5)
    assert [(each.key, each.value) for each in place.tolerations] == [("sku", "gpu"), ("team", "")]
    assert places_from_json(places_to_json([place])) == (place,)


def test_platforms_are_those_that_accelerators_are_known_for() -> None:
    assert set(get_args(Platform)) == {each.value for each in accelerators.Platform}


@pytest.mark.parametrize(
    ("provider", "problem"),
    [
        ("{name: c, kind: kubernetes}", "providers[0].images: is missing"),
        ("{name: c, kind: kubernetes, images: {}}", "providers[0].images: is empty"),
        ("{name: c, kind: kubernetes, images: {llama.cpp: x}}", "has no image for engine vllm"),
        ("{name: process, kind: kubernetes, images: {vllm: x}}", "Swell's own name"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, platform: gcp}", "providers[0].platform"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, namespace: My_Models}", "providers[0].namespace"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, model_cache: {}}", "names neither claim nor host_path"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, model_cache: {claim: a, host_path: /b}}", "contradicts claim"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, model_cache: {host_path: models}}", "host_path"),
        (
            "{name: c, kind: kubernetes, images: {vllm: x}, tolerations: [{value: gpu}]}",
            "key: is missing",
        ),
        ("{name: c, kind: kubernetes, images: {vllm: x}, tls: {}}", "providers[0].tls.image: is missing"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, tls: {image: g, issuer: {}}}", "tls.issuer.name: is missing"),
        (
            "{name: c, kind: kubernetes, images: {vllm: x}, tls: {image: g, issuer: {kind: CA, name: a}}}",
            "providers[0].tls.issuer.kind",
        ),
        ("{name: c, kind: kubernetes, images: {vllm: x}, tls: {image: g, isuer: {name: a}}}", "did you mean issuer?"),
        (
            "{name: c, kind: kubernetes, images: {vllm: x}, model_cache: {host_path: /m}, prefetch: {models: true}}",
            "providers[0].prefetch.models: needs a cache that all Pods share; give model_cache a claim",
        ),
        ("{name: c, kind: kubernetes, images: {vllm: x}, prefetch: {queue: q}}", "prefetch.queue: is for Jobs"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, prefetch: {image: true}}", "did you mean images?"),
        ("{name: c, kind: kubernetes, images: {vllm: x}, priority: high}", "did you mean priority_class?"),
    ],
)
def test_what_cannot_be_is_refused_with_its_path(provider: str, problem: str) -> None:
    with pytest.raises(SpecRefusedError) as refused:
        _spec(provider)
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "word", ["--ssl-keyfile=/k", "--ssl-certfile", "--ssl-key-file", "--ssl_keyfile=/k", "--uds=/s"]
)
def test_an_engine_that_speaks_tls_itself_contradicts_the_sidecar(word: str) -> None:
    model = f"{{name: chat, source: hf://org/name, engine: vllm, engine_args: [--x, {word}]}}"
    place = "name: c, kind: kubernetes, images: {vllm: x}"
    assert parse_spec(f"models: [{model}]\nproviders: [{{{place}}}]", origin="test").models[0].engine_args
    with pytest.raises(SpecRefusedError, match=r"models\[0\]\.engine_args\[1\]: --(ssl|uds).*tls of c.*keep one"):
        parse_spec(f"models: [{model}]\nproviders: [{{{place}, tls: {{image: g}}}}]", origin="test")


@pytest.mark.parametrize("words", ["--config, /models/vllm.yaml", "--config=/models/vllm.yaml"])
def test_a_file_that_may_have_an_engine_speak_tls_contradicts_the_sidecar(words: str) -> None:
    def spec(args: str, more: str) -> Spec:
        model = f"{{name: chat, source: hf://org/name, engine: vllm, engine_args: [{args}]}}"
        place = f"{{name: c, kind: kubernetes, images: {{vllm: x}}{more}}}"
        return parse_spec(f"models: [{model}]\nproviders: [{place}]", origin="test")

    assert spec(words, "").models[0].engine_args[0].startswith("--config")
    assert spec("--config-format=hf, --config_format=hf", ", tls: {image: g}")
    reason = (
        r"models\[0\]\.engine_args\[0\]: --config.*may say \(ssl-.*uds\).*tls of c.*write what it says in engine_args"
    )
    with pytest.raises(SpecRefusedError, match=reason):
        spec(words, ", tls: {image: g}")


@pytest.mark.parametrize(
    ("first", "second", "is_crowded"),
    [
        ("", "", True),
        ("namespace: a", "namespace: a", True),
        ("context: x, namespace: a", "context: x, namespace: a", True),
        ("namespace: a", "namespace: b", False),
        ("context: x", "context: y", False),
        ("", "namespace: a", False),
    ],
)
def test_two_places_of_one_namespace_would_end_each_others_pods(first: str, second: str, is_crowded: bool) -> None:
    places = (
        f"{{name: p{i}, kind: kubernetes, images: {{vllm: x}}, {said}}}" for i, said in enumerate((first, second))
    )
    text = f"models: []\nserver: {{custom_resources: {{}}}}\nproviders: [{', '.join(places)}]"
    if not is_crowded:
        assert len(parse_spec(text, origin="test").providers) == 2
        return
    with pytest.raises(SpecRefusedError, match=r"providers\[1\]\.namespace: is where the Pods of p0 are as well"):
        parse_spec(text, origin="test")


ON_GPUS = "source: hf://org/name, engine: vllm, accelerators: [8xH100]"


def _over(model: str, provider: str = "kind: kubernetes") -> Spec:
    place = f"{{name: c, {provider}, images: {{vllm: x, llama.cpp: y}}}}"
    return parse_spec(f"models: [{{name: chat, {model}}}]\nproviders: [{place}]", origin="test")


def test_a_replica_may_span_nodes_of_a_cluster() -> None:
    (model,) = _over(f"{ON_GPUS}, nodes: 2", "kind: kubernetes, exclusive_topology: example.com/rack").models
    assert model.nodes == 2
    assert "profile" in model.why_not_reviewed
    assert _over(f"{ON_GPUS}, nodes: 1", "kind: container").models[0].nodes == 1


@pytest.mark.parametrize(
    ("model", "provider", "problem"),
    [
        (f"{ON_GPUS}, nodes: 2", "kind: container", "models[0].nodes: is 2, and c (kind container) is one machine"),
        (f"{ON_GPUS}, nodes: 2, spot: {{}}", "kind: kubernetes", "models[0].spot: is a mix"),
        ("source: hf://a/b, engine: vllm, nodes: 2", "kind: kubernetes", "models[0].accelerators: is missing"),
        (
            "source: hf://a/b, engine: vllm, nodes: 2, accelerators: [L4, H100]",
            "kind: kubernetes",
            "models[0].accelerators: names several",
        ),
        ("source: hf://a/b.gguf, nodes: 2", "kind: kubernetes", "engine llama.cpp runs on one node; use engine vllm"),
        ("endpoints: [http://a.example], nodes: 2", "kind: kubernetes", "models[0].nodes: has no effect on endpoints"),
        (f"{ON_GPUS}, nodes: 65", "kind: kubernetes", "models[0].nodes"),
        (f"{ON_GPUS}, nodes: 2", "kind: kubernetes, tls: {image: g}", "tls of c does not reach between nodes"),
    ],
)
def test_what_cannot_span_nodes_is_refused(model: str, provider: str, problem: str) -> None:
    with pytest.raises(SpecRefusedError) as refused:
        _over(model, provider)
    assert problem in str(refused.value)
