"""Launch lines, readiness and what is offered: pure, engine by engine."""

from pathlib import Path

import pytest

from swell.adapters.engines import local_engines
from swell.adapters.engines.external import External, read_key
from swell.adapters.engines.llama_cpp import KEY_VARIABLE, LlamaCpp
from swell.adapters.engines.vllm import Vllm
from swell.errors import UserError
from swell.ports.engine import CHAT_COMPLETIONS, EMBEDDINGS, Address, Span
from swell.spec import Engine, ModelSpec

MODEL_PATH = Path("/models/m")


def _model(**fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "chat", **fields})


def test_every_engine_of_the_spec_has_a_description() -> None:
    engines = local_engines({})
    assert set(engines) == {engine.value for engine in Engine if engine is not Engine.AUTO}
    assert all(engine.name == name for name, engine in engines.items())


@pytest.mark.parametrize("name", ["llama.cpp", "vllm"])
def test_a_launched_engine_keeps_its_key_out_of_the_command_line(name: str) -> None:
    source = "m.gguf" if name == "llama.cpp" else "hf://org/m"
    command = local_engines({})[name].launch(_model(source=source), MODEL_PATH, 4711, cores=2, key="s3cret")
    assert not any("s3cret" in word for word in command.argv)
    assert "s3cret" in command.env.values()
    assert "--port=4711" in command.argv


def test_llama_cpp_gets_slots_context_and_threads() -> None:
    model = _model(source="m.gguf", parallel=3, context_tokens=1024, engine_args=["--threads=1", "--port=1"])
    command = LlamaCpp().launch(model, MODEL_PATH, 4711, cores=2, key="k")
    assert command.argv[1:3] == ("-m", "swell.adapters.engines.llama_cpp_child")
    assert {"--parallel=3", "--context-tokens=1024", "--max-in-flight=3", "--alias=chat"} <= set(command.argv)
    threads = [word for word in command.argv if word.startswith("--threads")]
    assert threads == ["--threads=2", "--threads=1"]  # the later one counts: engine arguments change it
    assert [word for word in command.argv if word.startswith("--port")][-1] == "--port=4711"  # but not this
    assert command.env == {KEY_VARIABLE: "k"}


def test_llama_cpp_offers_embeddings_beside_chat() -> None:
    offered = LlamaCpp().endpoints(_model(source="m.gguf"))
    assert {CHAT_COMPLETIONS, EMBEDDINGS} <= set(offered)
    assert LlamaCpp().is_ready(_model(source="m.gguf"), 200)
    assert not LlamaCpp().is_ready(_model(source="m.gguf"), 503)


def test_vllm_gets_lengths_adapters_and_loopback() -> None:
    lora = {"sql": "/adapters/sql", "legal": "/adapters/legal"}
    model = _model(source="hf://org/m", context_tokens=4096, parallel=32, lora=lora, engine_args=["--dtype", "auto"])
    argv = Vllm(python="/venv/bin/python").launch(model, MODEL_PATH, 4711, cores=2, key="k").argv
    assert argv[:3] == ("/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server")
    assert {"--max-model-len=4096", "--max-num-seqs=32", "--enable-lora", "--max-loras=2", "--host=127.0.0.1"} <= set(
        argv
    )
    modules = argv.index("--lora-modules")
    assert argv[modules + 1 : modules + 3] == ("sql=/adapters/sql", "legal=/adapters/legal")
    assert argv[modules + 3].startswith("--")
    assert {f"--model={MODEL_PATH}", "--served-model-name=chat"} <= set(argv)
    assert "--enforce-eager" not in argv


def test_what_swell_says_of_where_vllm_listens_wins_over_a_file_of_arguments() -> None:
    model = _model(source="hf://org/m", engine_args=["--config", "/m/vllm.yaml", "--port=1", "--host", "::1"])
    argv = Vllm().launch(model, MODEL_PATH, 4711, cores=2, key="k").argv
    assert argv[3].startswith("--"), "vLLM reads the file's as if they stood first"
    assert argv[-4:] == (f"--model={MODEL_PATH}", "--served-model-name=chat", "--host=127.0.0.1", "--port=4711")


def test_vllm_leaves_its_own_defaults_alone_but_tells_what_its_prefix_cache_had() -> None:
    argv = Vllm().launch(_model(source="hf://org/m"), MODEL_PATH, 4711, cores=2, key="k").argv
    changed = [word for word in argv if word.startswith(("--max", "--lora", "--enable"))]
    assert changed == ["--enable-prompt-tokens-details"]


def test_vllm_is_eager_where_there_is_no_accelerator(tmp_path: Path) -> None:
    assert Vllm.on_this_machine({}, devices=tmp_path).enforce_eager
    (tmp_path / "nvidia0").touch()
    found = Vllm.on_this_machine({"SWELL_VLLM_PYTHON": "/v/bin/python"}, devices=tmp_path)
    assert (found.enforce_eager, found.python) == (False, "/v/bin/python")


@pytest.mark.parametrize("arguments", [["--runner", "pooling"], ["--runner=pooling"], ["--task=embed"]], ids=str)
def test_vllm_offers_embeddings_or_generation(arguments: list[str]) -> None:
    assert Vllm().endpoints(_model(source="hf://org/m", engine_args=arguments)) == (EMBEDDINGS,)
    assert EMBEDDINGS not in Vllm().endpoints(_model(source="hf://org/m"))


def test_metrics_go_by_the_engines_own_names() -> None:
    for engine in (LlamaCpp(), Vllm()):
        prefix = "llamacpp:" if engine.name == "llama.cpp" else "vllm:"
        names = (engine.metrics.running_requests, engine.metrics.waiting_requests, engine.metrics.generated_tokens)
        assert all(name.startswith(prefix) for name in names)
    assert External().metrics.path == ""


@pytest.mark.parametrize(
    ("health_path", "status", "ready"),
    [
        (None, 200, True),
        (None, 204, True),
        (None, 404, True),
        (None, 405, True),
        (None, 401, False),
        (None, 503, False),
        (None, 302, False),
        ("/up", 200, True),
        ("/up", 404, False),
    ],
)
def test_an_external_endpoint_need_not_have_a_health_path(health_path: str | None, status: int, ready: bool) -> None:
    model = _model(endpoints=["http://127.0.0.1:9101"], health_path=health_path)
    assert External().is_ready(model, status) is ready
    assert External().health_path(model) == (health_path or "/health")


def test_external_endpoints_are_addresses_and_never_launched() -> None:
    model = _model(endpoints=["http://[::1]:9101", "https://example.test/openai/v1/"])
    assert External().addresses(model) == (
        Address("::1", 9101),
        Address("example.test", 443, tls=True, base_path="/openai"),
    )
    assert External().addresses(model)[0].url("/health") == "http://[::1]:9101/health"
    with pytest.raises(ValueError, match="nothing to launch"):
        External().launch(model, MODEL_PATH, 1, cores=1, key="")
    with pytest.raises(ValueError, match="ftp"):
        Address.parse("ftp://example.test")


def test_a_key_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    endpoints = ["http://127.0.0.1:9101"]
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert read_key(_model(endpoints=endpoints), {}) == ""
    assert read_key(_model(endpoints=endpoints, api_key_env="KEY"), {"KEY": "from-variable"}) == "from-variable"
    assert read_key(_model(endpoints=endpoints, api_key_file=str(file)), {}) == "from-file"


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel"], ids=repr)
def test_a_key_that_cannot_be_one_is_refused(key: str) -> None:
    model = _model(endpoints=["http://127.0.0.1:9101"], api_key_env="KEY")
    with pytest.raises(UserError, match="KEY"):
        read_key(model, {"KEY": key})


def test_an_unreadable_key_file_is_refused(tmp_path: Path) -> None:
    model = _model(endpoints=["http://127.0.0.1:9101"], api_key_file=str(tmp_path / "absent"))
    with pytest.raises(UserError, match="absent"):
        read_key(model, {})


SPAN = Span(4, "LEADER", "RANK")


def test_vllm_over_nodes_of_gpus_is_the_same_on_each_but_for_its_rank() -> None:
    arguments = ["--tensor-parallel-size=8", "--pipeline-parallel-size=4"]
    model = _model(source="hf://org/m", accelerators=["8xH100"], nodes=4, context_tokens=4096, engine_args=arguments)
    command = Vllm(python="python3").launch(model, Path("org/m"), 8000, cores=2, key="k", span=SPAN)
    place = ("--nnodes=4", "--node-rank=0", "--master-addr=LEADER")
    assert command.argv[-3:] == place
    assert {"--host=127.0.0.1", "--port=8000", "--model=org/m", *arguments} <= set(command.argv)
    serve = ("python3", "-m", "vllm.entrypoints.cli.main", "serve", "org/m", "--headless")
    assert command.worker_argv[:6] == serve
    assert command.worker_argv[6:] == (
        "--max-model-len=4096", *arguments, "--nnodes=4", "--node-rank=RANK", "--master-addr=LEADER",
    )  # fmt: skip
    assert Vllm(python="python3").launch(model, Path("org/m"), 8000, cores=2, key="k").worker_argv == ()


def test_vllm_over_a_slice_of_tpus_goes_by_ray() -> None:
    model = _model(source="hf://org/m", accelerators=["4xv6e"], nodes=4, engine_args=["--tensor-parallel-size=16"])
    command = Vllm(python="python3").launch(model, Path("org/m"), 8000, cores=2, key="k", span=SPAN)
    assert command.argv[:2] == ("python3", "-c")
    assert command.argv[3:6] == ("4", "python3", "-m")
    assert command.argv[-1] == "--distributed-executor-backend=ray"
    assert command.worker_argv[:2] == ("python3", "-c")
    assert command.worker_argv[3:] == ("LEADER",)
    assert command.env["TPU_MULTIHOST_BACKEND"] == "ray"
    for script in (command.argv[2], command.worker_argv[2]):
        assert compile(script, "script", "exec")


def test_llama_cpp_runs_on_one_node() -> None:
    with pytest.raises(ValueError, match="one node"):
        LlamaCpp().launch(_model(source="m.gguf"), MODEL_PATH, 4711, cores=2, key="k", span=SPAN)
