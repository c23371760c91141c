"""Places where replicas run, as the file declares them."""

import json

import pytest

from swell.errors import SpecError
from swell.spec import ContainerSpec, Spec, parse_spec, spec_json_schema
from swell.spec.providers import places_from_json, places_to_json
from swell.spec.quantities import parse_size

IMAGES = "images: {llama.cpp: 'engine:1'}"


def spec_of(place: str, model: str = "") -> Spec:
    return parse_spec(f"models: [{{name: chat, source: chat.gguf{model}}}]\nproviders: [{place}]", origin="swell.yaml")


def refusal(place: str, model: str = "") -> str:
    with pytest.raises(SpecError) as refused:
        spec_of(place, model)
    return str(refused.value)


def test_a_place_of_containers_has_defaults_for_all_but_its_images() -> None:
    spec = spec_of(f"{{name: docker, kind: container, {IMAGES}}}")
    place = spec.place_of(spec.models[0])
    assert isinstance(place, ContainerSpec)
    assert (place.socket, place.network, place.gpus_each) == ("/var/run/docker.sock", None, 0)
    assert (place.tmp, place.shared_memory) == (2 * 1024**3, 1024**3)


def test_what_a_replica_gets_is_said_as_people_write_it() -> None:
    spec = spec_of(f"{{name: docker, kind: container, {IMAGES}, cpus: 1.5, memory: 8GiB, gpus: ['0', '1']}}")
    place = spec.providers[0]
    assert isinstance(place, ContainerSpec)
    assert (place.cpus, place.memory, place.gpus_each) == (1.5, 8 * 1024**3, 1)


def test_a_model_names_its_place_and_others_use_the_first() -> None:
    text = f"""
models:
  - {{name: here, source: a.gguf, provider: own}}
  - {{name: there, source: b.gguf}}
providers:
  - {{name: docker, kind: container, {IMAGES}}}
  - {{name: own}}
"""
    spec = parse_spec(text, origin="swell.yaml")
    assert [spec.place_of(model).name for model in spec.models] == ["own", "docker"]


@pytest.mark.parametrize(
    ("place", "model", "said"),
    [
        ("{name: x, kind: kontainer}", "", "providers[0].kind: 'kontainer' is not one of process, container"),
        ("{name: x, kind: container}", "", "providers[0].images: is missing"),
        ("{name: x, kind: container, images: {}}", "", "providers[0].images: is empty"),
        ("{name: x, kind: container, images: {lama: 'a:1'}}", "", "must name images by engine"),
        ("{name: x, kind: container, images: {llama.cpp: 'A B'}}", "", "providers[0].images.llama.cpp: 'A B'"),
        ("{name: x, kind: container, images: {vllm: 'v:1'}}", "", "providers[0].images: has no image for engine llama"),
        (f"{{name: x, kind: container, {IMAGES}, sockt: a}}", "", "providers[0].sockt: is not a known field; did you"),
        (f"{{name: x, kind: container, {IMAGES}, network: host}}", "", "providers[0].network: 'host' gives"),
        (f"{{name: x, kind: container, {IMAGES}, memory: much}}", "", "providers[0].memory: 'much' is not a size"),
        (f"{{name: x, kind: container, {IMAGES}, gpus: ['0', '0']}}", "", "providers[0].gpus: names the same GPU"),
        (f"{{name: x, kind: container, {IMAGES}, gpus_per_replica: 2}}", "", "providers[0].gpus_per_replica: is more"),
        (f"{{name: x, kind: container, {IMAGES}, user: root}}", "", "providers[0].user: 'root'"),
        (f"{{name: process, kind: container, {IMAGES}}}", "", "providers[0].name: 'process' is Swell's own name"),
        ("{name: x}, {name: x}", "", "providers[1].name: 'x' is already the name of the provider at providers[0]"),
        ("{name: x, socket: /a}", "", "providers[0].socket: is not a known field"),
        ("{name: x}", ", provider: y", "models[0].provider: there is no provider 'y'; name one of: x"),
    ],
)
def test_what_is_wrong_is_said_at_its_path(place: str, model: str, said: str) -> None:
    assert said in refusal(place, model)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024), ("1KiB", 1024), ("1.5GiB", 3 * 512 * 1024**2), ("8Gi", 8 * 1024**3), ("16GB", 16 * 10**9),
        ("2 MiB", 2 * 1024**2), ("1k", 1000), ("", None), ("GiB", None), ("1gib", None), ("-1", None), ("1e3", None),
    ],
)  # fmt: skip
def test_sizes_are_read_as_written(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_places_are_remembered_whole() -> None:
    spec = spec_of(f"{{name: docker, kind: container, {IMAGES}, memory: 8GiB, network: swell}}, {{name: own}}")
    assert places_from_json(places_to_json(spec.providers)) == spec.providers
    with pytest.raises(ValueError, match="kind"):
        places_from_json(json.dumps([{"name": "a", "kind": "unheard of"}]).encode())


def test_the_schema_tells_the_kinds_apart() -> None:
    schema = spec_json_schema()
    kinds = schema["properties"]["providers"]["items"]["discriminator"]["mapping"]
    assert {"process", "container"} <= set(kinds)
    assert schema["$defs"]["ContainerSpec"]["properties"]["kind"]["const"] == "container"
