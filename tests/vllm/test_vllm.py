"""vLLM really serving on the CPU through Swell's adapter and gateway. `make test-vllm` prepares what this needs."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import NotFoundError, OpenAI

from swell_process import SwellProcess

pytestmark = [pytest.mark.vllm, pytest.mark.process]

START_SECONDS = 300.0  # torch and vLLM alone take half a minute to import on two cores
SPEC = """
models:
  - name: smol
    source: {model}
    engine: vllm
    context_tokens: 1024
    parallel: 4
    replicas: {{min: 1, max: 1}}
    start_timeout_seconds: 300
"""
MESSAGES = [{"role": "user", "content": "Say hello."}]


@pytest.fixture(scope="module")
def server(shared_swell_up: Callable[..., SwellProcess]) -> SwellProcess:
    """`swell up` with one vLLM replica that answers."""
    home = os.environ.get("SWELL_TEST_VLLM")
    if home is None:
        pytest.skip("vLLM is not installed for tests; run `make test-vllm`")
    environment = {"SWELL_VLLM_PYTHON": str(Path(home, "venv/bin/python")), "VLLM_CPU_KVCACHE_SPACE": "1"}
    running = shared_swell_up(SPEC.format(model=Path(home, "model")), environment=environment)
    running.wait_model("smol", START_SECONDS)
    return running


@pytest.fixture
def client(server: SwellProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=120) as made:
        yield made


def test_vllm_answers_a_chat_with_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="smol", messages=MESSAGES, max_tokens=8)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8


def test_vllm_streams_and_its_usage_stays_hidden_unless_asked_for(client: OpenAI) -> None:
    events = list(client.chat.completions.create(model="smol", messages=MESSAGES, max_tokens=8, stream=True))
    assert "".join(event.choices[0].delta.content or "" for event in events)
    assert all(event.usage is None for event in events)


def test_vllm_streams_with_usage(client: OpenAI) -> None:
    options = {"include_usage": True}
    events = list(
        client.chat.completions.create(
            model="smol", messages=MESSAGES, max_tokens=8, stream=True, stream_options=options
        )
    )
    assert events[-1].choices == []
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens >= 1


def test_vllm_serves_no_other_model(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.chat.completions.create(model="other", messages=MESSAGES)


def test_vllm_requests_are_in_the_ledger(
    client: OpenAI, server: SwellProcess, eventually: Callable[..., object]
) -> None:
    answer = client.chat.completions.with_raw_response.create(model="smol", messages=MESSAGES, max_tokens=4)
    request_id, usage = answer.headers["x-request-id"], answer.parse().usage
    assert usage is not None

    def settled() -> bool:
        return any(
            record["request_id"] == request_id
            and record["status"] == "settled"
            and record["prompt_tokens"] == usage.prompt_tokens
            and record["completion_tokens"] == usage.completion_tokens
            for record in server.command("usage")
        )

    assert eventually(settled, what="the request is settled with vLLM's own figures")
