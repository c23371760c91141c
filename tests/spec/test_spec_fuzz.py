"""Whatever a file holds, the answer is a Spec or a SpecError, and a Spec survives being written and read."""

import json
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swell.errors import SpecError
from swell.spec import ModelSpec, ServerSpec, Spec, TenantSpec, check_spec, parse_spec

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["auto", "external", "llama.cpp", "a.gguf", "hf://a/b", "http://127.0.0.1:1", "1..4"])
)
KEYS = st.text(max_size=8) | st.sampled_from(
    sorted(
        {*Spec.model_fields, *ModelSpec.model_fields, *ModelSpec.aliases, *TenantSpec.aliases, *ServerSpec.model_fields}
    )
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=20
)
NEARLY_MODELS = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "c/d:e"])},
    optional={name: SCALARS | ANYTHING for name in [*ModelSpec.model_fields, *ModelSpec.aliases] if name != "name"},
)
NEARLY_SPECS = st.fixed_dictionaries(
    {"models": st.lists(NEARLY_MODELS, min_size=1, max_size=3)},
    optional={"tenants": ANYTHING, "server": ANYTHING, "providers": ANYTHING, "other": ANYTHING},
)


def check_answer(give: Callable[[], Spec]) -> None:
    """Either a spec, or a refusal that can be printed; any other exception fails the test by itself."""
    message = ""
    try:
        spec: Spec | None = give()
    except SpecError as error:
        spec, message = None, error.message
    assert spec is not None or 0 < len(message.encode("utf-8")) < 20_000
    assert all(line.isprintable() for line in message.split("\n"))


@given(ANYTHING | NEARLY_SPECS)
def test_any_values_give_a_spec_or_a_spec_error(values: Any) -> None:
    check_answer(lambda: check_spec(values, origin="fuzz"))


@given(st.text(max_size=200) | ANYTHING.map(json.dumps) | st.text("{}[]&*!|>:-?\"'a1,\n #<", max_size=60))
@example("a: \ud800")
@example('a: "\\uD800"')
@example("=: 1")
@example("2024-99-99: 2024-01-01")
@example("models: [{<<: [1]}]")
def test_any_text_gives_a_spec_or_a_spec_error(text: str) -> None:
    check_answer(lambda: parse_spec(text, origin="fuzz"))


COUNTS = st.integers(0, 50)
MODELS = st.builds(
    lambda source, low, more, n_max, context: {
        "source": source,
        "replicas": {"min": low, "max": low + more},
        "n_max": n_max,
        "context_tokens": context,
    },
    st.sampled_from(["a.gguf", "pypi://a/b.gguf", "hf://a/b", "/folder"]),
    COUNTS,
    COUNTS,
    st.integers(1, 128),
    st.integers(64, 10_000),
)


@settings(max_examples=50)
@given(st.lists(MODELS, min_size=1, max_size=4), st.integers(1, 65_535))
def test_valid_specs_survive_being_written_and_read(models: list[dict[str, Any]], port: int) -> None:
    values = {"models": [{"name": f"m{i}", **model} for i, model in enumerate(models)], "server": {"port": port}}
    spec = check_spec(values, origin="fuzz")
    assert parse_spec(yaml.safe_dump(spec.model_dump(mode="json")), origin="again") == spec


@given(COUNTS, COUNTS)
def test_replica_aliases_are_equivalent(low: int, more: int) -> None:
    high = low + more
    forms: list[dict[str, Any]] = [
        {"replicas": {"min": low, "max": high}},
        {"replicas": f"{low}..{high}"},
        {"min_replicas": low, "max_replicas": high},
        {"minReplicas": low, "maxReplicas": high},
    ]
    specs = {check_spec({"models": [{"name": "m", "source": "a.gguf", **form}]}, origin="fuzz") for form in forms}
    assert len(specs) == 1
