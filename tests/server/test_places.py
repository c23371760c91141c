"""Where a container finds its model, and what it is given of the machine."""

from pathlib import Path

import pytest

from swell.errors import StateError, UserError
from swell.ports.provider import Mount
from swell.server import assembly
from swell.server.places import contained
from swell.server.state_directory import StateDirectory
from swell.spec import ContainerSpec, ModelSpec, Spec, parse_spec

CACHE = Path("/home/somebody/.cache/models")


def model_of(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "chat", "source": "hf://org/chat", "engine": "vllm", **fields})


def place_of(**fields: object) -> ContainerSpec:
    return ContainerSpec.model_validate(
        {"name": "docker", "kind": "container", "images": {"vllm": "vllm:1", "llama.cpp": "engine:1"}, **fields}
    )


def test_a_model_of_the_cache_is_found_where_the_cache_is_mounted() -> None:
    found = contained(model_of(), place_of(gpus=["0"], cpus=4, memory="8GiB"), CACHE / "views/ab/chat", CACHE)
    assert found.path == Path("/models/views/ab/chat")
    needs = found.needs
    assert needs.mounts == (Mount(str(CACHE), "/models"),)
    assert (needs.image, needs.cpus, needs.memory_bytes, needs.accelerators) == ("vllm:1", 4.0, 8 * 1024**3, 1)


def test_a_cache_may_be_a_volume() -> None:
    found = contained(model_of(), place_of(model_cache="swell-models"), CACHE / "views/ab", CACHE)
    assert found.needs.mounts == (Mount("swell-models", "/models"),)
    with pytest.raises(UserError, match="is not in the model cache"):
        contained(model_of(), place_of(model_cache="swell-models"), Path("/elsewhere/chat"), CACHE)


def test_files_of_the_users_own_are_mounted_alone(tmp_path: Path) -> None:
    lora = {"short": str(tmp_path / "short"), "long": str(CACHE / "long")}
    found = contained(model_of(lora=lora), place_of(), tmp_path / "chat", CACHE)
    assert found.path == Path("/files/chat")
    assert [adapter.path for adapter in found.spec.lora] == ["/adapters/0", "/models/long"]
    assert {mount.target: mount.source for mount in found.needs.mounts} == {
        "/files/chat": str(tmp_path / "chat"),
        "/adapters/0": str(tmp_path / "short"),
        "/models": str(CACHE),
    }


def _spec(places: str) -> Spec:
    return parse_spec(f"models: [{{name: m, endpoints: ['http://127.0.0.1:1']}}]\nproviders: {places}", origin="test")


def test_places_that_a_spec_no_longer_names_are_still_known(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    state.create()
    assert assembly.remembered_places(state) == ()
    image = "images: {llama.cpp: 'e:1'}"
    assembly.remember_spec(state, _spec(f"[{{name: a, kind: container, {image}}}]"))
    assembly.remember_spec(state, _spec(f"[{{name: b, kind: container, {image}, socket: /run/b.sock}}]"))
    assembly.remember_spec(state, _spec(f"[{{name: b, kind: container, {image}, socket: /run/c.sock}}, {{name: own}}]"))
    places = {place.name: place for place in assembly.remembered_places(state)}
    assert list(places) == ["b", "own", "a"]
    assert isinstance(places["b"], ContainerSpec)
    assert places["b"].socket == "/run/c.sock"
    assert set(assembly.providers(state, lambda child_id: None).by_name) >= {"process", "external", "a", "b"}
    state.places.write_text("?")
    with pytest.raises(StateError, match="remove"):
        assembly.remembered_places(state)


CREDENTIALS = """
current-context: one
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}]
users: [{name: u, user: {token: t}}]
contexts:
- {name: one, context: {cluster: c, user: u, namespace: models}}
- {name: two, context: {cluster: c, user: u, namespace: others}}
"""


async def test_a_namespace_has_one_provider_under_the_newest_of_its_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(CREDENTIALS)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    state = StateDirectory(tmp_path / "state")
    state.create()
    image = "kind: kubernetes, images: {llama.cpp: 'e:1'}"
    for place in ("first", "second", "third, namespace: models", "else, context: two", "first"):
        assembly.remember_spec(state, _spec(f"[{{name: {place}, {image}}}]"))
    made = assembly.providers(state, lambda child_id: None)
    await made.close()
    assert set(made.by_name) == {"process", "external", "first", "else"}
    assert made.renamed == {"second": "first", "third": "first"}
    of_old = assembly.providers(state, lambda child_id: None, named=["second"])
    await of_old.close()
    assert set(of_old.spared) == {"else"}, "what runs by an earlier name needs the place as it is called now"


def test_two_places_that_are_one_namespace_are_refused_however_each_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(CREDENTIALS)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    image = "kind: kubernetes, images: {llama.cpp: 'e:1'}"
    two = f"[{{name: a, {image}}}, {{name: b, namespace: %s, {image}}}]"
    assembly.require_own_namespaces(_spec(two % "others"))
    with pytest.raises(UserError, match=r"a and b are both the namespace models of http://127.0.0.1:9; give each one"):
        assembly.require_own_namespaces(_spec(two % "models"))


def test_an_installation_is_known_by_the_same_id_for_ever_and_no_other_has_it(tmp_path: Path) -> None:
    states = [StateDirectory(tmp_path / name) for name in ("a", "b")]
    for state in states:
        state.create()
    ids = [state.installation() for state in states]
    assert [state.installation() for state in states] == ids
    assert len(set(ids)) == 2
