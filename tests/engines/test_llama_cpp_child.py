"""The llama.cpp child with the real small model: what it serves, to whom, and how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from swell.adapters.engines.llama_cpp import KEY_VARIABLE, LlamaCpp
from swell.adapters.engines.llama_cpp_child import EXIT_CANNOT_SERVE
from swell.gateway.events import Usage, usage_of_answer
from swell.spec import ModelSpec

KEY = "test-engine-key"
CHAT = {"model": "smollm2", "max_tokens": 8, "temperature": 0, "messages": [{"role": "user", "content": "Say hi"}]}

LONG = "The sea is wide and the ships are many. " * 10


@contextmanager
def _child(model_file: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    model = ModelSpec.model_validate({"name": "smollm2", "source": "smollm2.gguf", "parallel": 2})
    command = LlamaCpp().launch(model, model_file, port, cores=os.cpu_count() or 1, key=KEY)
    with log.open("wb") as output:
        process = subprocess.Popen(command.argv, env={**os.environ, **command.env}, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def served(
    model_file: Path, tmp_path_factory: pytest.TempPathFactory, eventually: Callable[..., Any]
) -> Iterator[httpx.Client]:
    """A client of a ready child."""
    from swell_process import choose_free_port

    port = choose_free_port()
    with (
        _child(model_file, port, tmp_path_factory.mktemp("llama") / "log"),
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            timeout=60,
            headers={"authorization": f"Bearer {KEY}"},
            limits=httpx.Limits(max_keepalive_connections=0),  # the server closes after a stream without a word
        ) as client,
    ):
        eventually(lambda: _health(client) == 200, seconds=30, what="the model is loaded")
        yield client


def _health(client: httpx.Client) -> int | None:
    try:
        return client.get("/health").status_code
    except httpx.TransportError:
        return None


def test_chat_counts_its_tokens(served: httpx.Client) -> None:
    answer = served.post("/v1/chat/completions", json=CHAT).json()
    assert answer["model"] == "smollm2"
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 8


def test_a_stream_ends_with_its_usage(served: httpx.Client) -> None:
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    with served.stream("POST", "/v1/chat/completions", json=body) as response:
        events = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "data: [DONE]"
    assert '"completion_tokens":8' in events[-2]


@pytest.mark.parametrize(
    ("path", "prompt", "limit"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "max_tokens"),
        ("/v1/completions", {"prompt": LONG}, "max_tokens"),
        ("/v1/messages", {"messages": [{"role": "user", "content": LONG}]}, "max_tokens"),
        ("/v1/responses", {"input": LONG}, "max_output_tokens"),
    ],
)
def test_every_endpoint_tells_what_the_prefix_cache_had(
    served: httpx.Client, path: str, prompt: dict[str, object], limit: str
) -> None:
    def ask() -> Usage:
        usage = usage_of_answer(served.post(path, json={"model": "smollm2", limit: 2, **prompt}).content)
        assert usage is not None
        return usage

    first, again = ask(), ask()
    assert first.prompt == again.prompt
    assert again.prompt is not None
    assert again.prompt / 2 < again.cached < again.prompt


def test_embeddings_are_unit_vectors_of_the_mean(served: httpx.Client) -> None:
    answer = served.post("/v1/embeddings", json={"model": "smollm2", "input": ["a sea", "an ocean"]}).json()
    vectors = [entry["embedding"] for entry in answer["data"]]
    assert [round(sum(x * x for x in vector), 3) for vector in vectors] == [1.0, 1.0]
    assert vectors[0] != vectors[1]
    assert answer["usage"]["prompt_tokens"] > 0


def test_an_embedding_may_be_as_long_as_the_context(served: httpx.Client) -> None:
    answer = served.post("/v1/embeddings", json={"model": "smollm2", "input": "word " * 520})
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] > 512  # more than the library's default batch


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"model": "smollm2", "prompt": "Hello", "max_tokens": 2}),
        ("/v1/responses", {"model": "smollm2", "input": "Say hi", "max_output_tokens": 2}),
        ("/v1/messages", {"model": "smollm2", "max_tokens": 2, "messages": [{"role": "user", "content": "Say hi"}]}),
    ],
)
def test_every_offered_endpoint_answers(served: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert path in LlamaCpp().endpoints(ModelSpec.model_validate({"name": "m", "source": "m.gguf"}))
    assert served.post(path, json=body).status_code == 200


def test_nobody_without_the_key_is_served(served: httpx.Client) -> None:
    assert served.post("/v1/chat/completions", json=CHAT, headers={"authorization": "Bearer no"}).status_code == 401
    assert served.get("/metrics", headers={"authorization": ""}).status_code == 401
    assert served.get("/slots").status_code == 501  # they would show other people's prompts


def test_pages_in_a_browser_may_not_read_answers(served: httpx.Client) -> None:
    response = served.get("/health", headers={"origin": "https://evil.test"})
    assert response.headers.get("access-control-allow-origin", "") == ""


def test_metrics_have_the_names_that_are_promised(served: httpx.Client) -> None:
    text = served.get("/metrics").text
    metrics = LlamaCpp().metrics
    for name in (
        metrics.running_requests,
        metrics.waiting_requests,
        metrics.prompt_tokens,
        metrics.generated_tokens,
    ):
        assert f"\n{name} " in text


def test_it_loads_then_serves_then_ends_when_told(
    model_file: Path, free_port: int, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with (
        _child(model_file, free_port, tmp_path / "log") as process,
        httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=10) as client,
    ):
        seen: set[int | None] = set()
        eventually(lambda: seen.add(_health(client)) or 200 in seen, seconds=30)
        assert seen <= {None, 503, 200}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_it_ends_at_once_while_it_loads(
    model_file: Path, free_port: int, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    with (
        _child(model_file, free_port, tmp_path / "log") as process,
        httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=10) as client,
    ):
        eventually(lambda: _health(client) is not None, seconds=30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read the model file"), (b"PK\x03\x04 pickled", "is not a GGUF file")]
)
def test_a_missing_or_wrong_file_is_named(tmp_path: Path, free_port: int, content: bytes | None, says: str) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    ended = _run_to_the_end(path, free_port)
    assert ended.returncode == EXIT_CANNOT_SERVE
    assert says in ended.stderr.splitlines()[-1]
    assert str(path) in ended.stderr.splitlines()[-1]


def test_a_damaged_file_ends_it_with_a_reason(tmp_path: Path, free_port: int) -> None:
    pytest.importorskip("xllamacpp", reason="needs the `local` extra: pip install swell[local]")
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(64))
    ended = _run_to_the_end(path, free_port)
    assert ended.returncode == EXIT_CANNOT_SERVE
    assert "llama.cpp cannot serve" in ended.stderr.splitlines()[-1]


def _run_to_the_end(path: Path, port: int) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "swell.adapters.engines.llama_cpp_child"]
    argv += [f"--model={path}", f"--port={port}", "--alias=m"]
    environ = {**os.environ, KEY_VARIABLE: KEY}
    return subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
