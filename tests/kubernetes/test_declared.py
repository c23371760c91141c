"""Resources beside the file: each is served or refused with a reason, and the file is served in any case."""

import json
from typing import Any

import jsonschema
import pytest
from custom_schemas import closed, values
from hypothesis import given, settings
from hypothesis import strategies as st

from swell.errors import SpecError
from swell.server.resource_status import status_of
from swell.spec import Spec, check_spec
from swell.spec.custom_resources import KINDS, MODELS, TENANTS, definition, resource_schema
from swell.spec.declared import INVALID, NAME_TAKEN, UNAVAILABLE, Declared, Refusal, merge
from swell.spec.yaml_text import WrittenFloat

HERE = "http://127.0.0.1:9101"
FILE: dict[str, Any] = {
    "models": [{"name": "chat", "endpoints": [HERE]}],
    "tenants": [{"name": "search"}],
    "prices": {"chat": {"usd_per_million_prompt_tokens": 1}, "later": {"usd_per_million_prompt_tokens": 2}},
    "server": {"custom_resources": {}},
}


def file_with(**others: Any) -> Spec:
    return check_spec({**FILE, **others}, origin="a test")


def declared(plural: str, name: str, content: object, created: str = "2026-01-01T00:00:00Z") -> Declared:
    text = content if isinstance(content, str) else json.dumps(content)
    return Declared(created, plural, name, f"uid-of-{name}", 1, text)


def model(name: str, /, **content: Any) -> Declared:
    return declared(MODELS, name, content or {"endpoints": [HERE]})


def names(spec: Spec) -> tuple[list[str], list[str]]:
    return [each.name for each in spec.models], [each.name for each in spec.tenants]


def test_what_is_declared_is_served_beside_the_file() -> None:
    found = merge(file_with(), [model("second"), declared(TENANTS, "ads", {"budget": [{"usd": 0.1}]})])
    assert names(found.spec) == (["chat", "second"], ["search", "ads"])
    assert found.refusals == {}
    assert found.served == {(MODELS, "second"): "second", (TENANTS, "ads"): "ads"}
    assert str(found.spec.tenants[1].budget[0].usd) == "0.1", "an amount is what was written"


def test_a_file_without_models_is_one_where_resources_are_read() -> None:
    assert names(merge(file_with(models=[], prices={}), []).spec)[0] == []
    with pytest.raises(SpecError, match="name at least one"):
        file_with(models=[], prices={}, server={})


def test_a_name_is_whose_it_was_first() -> None:
    items = [
        model("mine", name="chat", endpoints=[HERE]),
        declared(MODELS, "younger", {"name": "same", "endpoints": [HERE]}, "2026-01-02T00:00:00Z"),
        declared(MODELS, "older", {"name": "same", "endpoints": [HERE]}),
    ]
    found = merge(file_with(), items)
    assert {key: each.reason for key, each in found.refusals.items()} == {
        (MODELS, "mine"): NAME_TAKEN,
        (MODELS, "younger"): NAME_TAKEN,
    }
    assert "older" in found.refusals[MODELS, "younger"].message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"endpoints": [HERE], "replicas": {"min": 3, "max": 2}}, "spec.replicas.min: 3 is more than max (2)"),
        ({"endpoints": [HERE], "api_key_env": "HOME"}, "spec.api_key_env: names a secret of the server's"),
        ({"endpoints": [HERE], "api_key_file": "/etc/passwd"}, "spec.api_key_file: names a secret of the server's"),
        ({"endpoints": [HERE], "enpoints": []}, "spec.enpoints: is not a known field"),
        ({"source": "hf://a/b", "provider": "moon"}, "spec.provider: there is no provider 'moon'"),
        ({"endpoints": [HERE], "cheaper_variant": "none"}, "spec.cheaper_variant: there is no model 'none'"),
        ("[]", "spec: must be a mapping of fields"),
        ("null", "spec: must be a mapping of fields"),
        ("{", "spec: cannot be read"),
        ("[" * 5000 + "]" * 5000, "spec: cannot be read"),
    ],
)
def test_a_refusal_names_the_path(content: object, message: str) -> None:
    found = merge(file_with(), [declared(MODELS, "it", content), model("other")])
    assert found.refusals[MODELS, "it"].message.startswith(message)
    assert found.refusals[MODELS, "it"].reason == INVALID
    assert names(found.spec)[0] == ["chat", "other"]


def test_what_no_path_blames_on_a_resource_is_blamed_on_who_brought_it() -> None:
    """A place has no image for one's engine, and the organisation's budget wants a price that another has not."""
    whole = {"infrastructure_budget": [{"usd": 100}]}
    launched = {"source": "hf://a/b", "usd_per_replica_hour": 1}
    own = {"name": "own", **launched}
    place = {"name": "cluster", "kind": "kubernetes", "images": {"vllm": "vllm"}}
    base = file_with(models=[own, *FILE["models"]], organisation=whole, providers=[place])
    items = [
        model("paid", **launched),
        model("unpaid", source="hf://a/b"),
        model("gguf", source="hf://a/b/c.gguf", usd_per_replica_hour=1),
    ]
    found = merge(base, items)
    assert set(found.refusals) == {(MODELS, "unpaid"), (MODELS, "gguf")}
    assert "llama.cpp" in found.refusals[MODELS, "gguf"].message
    assert names(found.spec)[0] == ["own", "chat", "paid"]


def test_what_is_known_to_be_unfit_is_left_out_and_a_check_is_heeded() -> None:
    def check(spec: Spec) -> None:
        for i, each in enumerate(spec.models):
            if each.name == "local":
                raise SpecError(f"models[{i}].provider", "is a process")

    refused = {(MODELS, "away"): Refusal(UNAVAILABLE, "no such file")}
    found = merge(file_with(), [model("away"), model("local"), model("good")], refused=refused, check=check)
    assert found.refusals[MODELS, "local"].message == "spec.provider: is a process"
    assert found.refusals[MODELS, "away"].reason == UNAVAILABLE
    assert names(found.spec)[0] == ["chat", "good"]


SPECS = {plural: values(resource_schema(plural)) for plural in KINDS}
STATUSES = {
    plural: closed(definition(plural)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"])
    for plural in KINDS
}
RESOURCES = st.one_of(
    [
        st.builds(
            declared,
            st.just(plural),
            st.sampled_from(["a", "b", "chat", "search", "x" * 253]),
            SPECS[plural] | st.text() | st.none() | st.lists(st.integers()),
        )
        for plural in KINDS
    ]
)


def test_one_that_is_wrong_beside_others_costs_few_checks() -> None:
    """Halves of halves: what is well is taken together, whatever stands beside it."""
    place = {"name": "cluster", "kind": "kubernetes", "images": {"vllm": "vllm"}}
    good = [model(f"good-{i}") for i in range(300)]
    bad = [model(f"bad-{i}", source="hf://a/b.gguf") for i in range(40)]
    found = merge(file_with(providers=[place]), [*good, *bad])
    assert found.refusals.keys() == {each.key for each in bad}
    assert len(found.spec.models) == 301


@settings(max_examples=200)
@given(st.lists(RESOURCES, max_size=5, unique_by=lambda each: each.key))
def test_whatever_a_schema_takes_is_served_or_refused_with_a_reason(items: list[Declared]) -> None:
    base = file_with()
    found = merge(base, items)
    assert {each.key for each in items} == found.served.keys() | found.refusals.keys()
    assert not found.served.keys() & found.refusals.keys()
    assert all(each.message and each.reason in (INVALID, NAME_TAKEN) for each in found.refusals.values())
    assert found.spec.models[:1] == base.models
    assert found.spec.tenants[:1] == base.tenants
    for each in items:
        status = status_of(each, found, {}, {}, {}, 0.0)
        assert status is not None
        jsonschema.validate(status, STATUSES[each.plural])
        assert status["conditions"][0]["status"] == str(each.key in found.served)
    served = [name for key, name in found.served.items() if key[0] == MODELS]
    assert sorted(names(found.spec)[0][1:]) == sorted(served)
    assert merge(base, list(reversed(items))) == found, "the order of reading is no matter"


NEARLY_RIGHT = st.builds(
    lambda spec, fields: {"endpoints": [HERE], **{name: spec[name] for name in fields if name in spec}},
    SPECS[MODELS],
    st.lists(st.sampled_from(sorted(resource_schema(MODELS)["properties"])), max_size=2),
)


@settings(max_examples=300)
@given((SPECS[MODELS] | NEARLY_RIGHT).filter(lambda spec: spec.get("name") not in ("chat", "it")))
def test_a_model_is_accepted_just_when_the_file_could_have_it(content: dict[str, Any]) -> None:
    written = json.dumps(content)
    found = merge(file_with(), [declared(MODELS, "it", written)])
    try:
        # The file's own way, with amounts of money as a file has them.
        whole = file_with(models=[*FILE["models"], {"name": "it", **json.loads(written, parse_float=_written)}])
    except SpecError:
        assert found.refusals
    else:
        assert not found.refusals
        assert found.spec == whole


def _written(text: str) -> WrittenFloat:
    number = WrittenFloat(text)
    number.text = text
    return number
