"""What `--ha` refuses: what another server could not take over."""

import pytest

from swell.errors import SpecError
from swell.server.several import require_movable
from swell.spec import parse_spec

STORE = "server: {store: {url: postgresql://swell@db.example/swell}}"
EXTERNAL = "models: [{name: m, engine: external, endpoints: ['http://10.0.0.5:8000']}]"
CLUSTER = """
models: [{name: m, source: hf://org/m, engine: vllm, accelerators: [L4], provider: k}, {name: own, source: a.gguf}]
providers: [{name: here}, {name: k, kind: kubernetes, images: {vllm: 'v:1'}}]
"""


def test_a_file_as_the_store_is_refused_unless_the_environment_names_another() -> None:
    spec = parse_spec(EXTERNAL, origin="swell.yaml")
    with pytest.raises(SpecError, match="give the url of a Postgres database") as refused:
        require_movable(spec, {})
    assert refused.value.path == "server.store"
    require_movable(spec, {"SWELL_STORE_URL": "postgresql://swell@db.example/swell"})
    require_movable(parse_spec(f"{EXTERNAL}\n{STORE}", origin="swell.yaml"), {})


def test_replicas_that_are_processes_are_refused_by_the_model_that_has_them() -> None:
    with pytest.raises(
        SpecError, match=r"is here, whose replicas are processes.*kind container or kubernetes"
    ) as refused:
        require_movable(parse_spec(f"{CLUSTER}\n{STORE}", origin="swell.yaml"), {})
    assert refused.value.path == "models[1].provider"
