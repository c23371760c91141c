"""The official OpenAI client for Python against a real model behind a real `swell up`."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from swell_process import SwellProcess

pytestmark = [pytest.mark.process, pytest.mark.model]

MODEL = "smollm2"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Name three colours."}]
LONG = "word " * 4000  # the default model's context is 2048 tokens


def test_list_names_the_model(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_one_model_can_be_looked_up(client: OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL


def test_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=16, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 5
    assert 1 <= answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    options: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "max_tokens": 16, "temperature": 0, "seed": 1}
    whole = client.chat.completions.create(**options)
    events = list(client.chat.completions.create(**options, stream=True))
    text = "".join(event.choices[0].delta.content or "" for event in events)
    assert text == whole.choices[0].message.content
    assert events[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_a_stream_carries_no_usage_unless_asked(client: OpenAI) -> None:
    events = list(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4, stream=True))
    assert all(event.choices for event in events)
    assert all(event.usage is None for event in events)


def test_a_stream_carries_usage_when_asked(client: OpenAI) -> None:
    events = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
    )
    usage = events[-1].usage
    assert usage is not None
    assert events[-1].choices == []
    assert usage.prompt_tokens > 5
    assert 1 <= usage.completion_tokens <= 6


def test_a_cancelled_stream_is_counted_as_far_as_it_got(
    client: OpenAI, server: SwellProcess, eventually: Callable[..., Any]
) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Count from one to five hundred in words."}],
        max_tokens=400,
        stream=True,
    )
    request_id = stream.response.headers["x-request-id"]
    for _ in range(4):
        next(stream)
    stream.close()

    def record() -> Any:
        found = [entry for entry in server.command("usage") if entry["request_id"] == request_id]
        return found[0] if found and found[0]["status"] != "reserved" else None

    settled = eventually(record, seconds=15, what="the cancelled stream is in the ledger")
    assert settled["model"] == MODEL
    assert settled["key_id"] == server.key_id
    assert settled["status"] == "estimated"
    assert 1 <= settled["completion_tokens"] < 400


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=8)
    assert answer.choices[0].text
    assert answer.usage is not None
    assert 1 <= answer.usage.completion_tokens <= 8


def test_embeddings_of_two_texts(client: OpenAI) -> None:
    answer = client.embeddings.create(model=MODEL, input=["a cat", "a theory of everything"])
    first, second = (entry.embedding for entry in answer.data)
    assert len(first) == len(second) > 100
    assert first != second
    assert answer.usage.prompt_tokens > 0


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16)
    assert answer.output_text
    assert answer.usage is not None
    assert answer.usage.output_tokens >= 1


def test_messages_in_anthropic_shape(server: SwellProcess) -> None:
    body = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}
    headers = {"x-api-key": server.key, "anthropic-version": "2023-06-01", "authorization": None}
    answer = server.request("POST", "/v1/messages", body, headers=headers)
    assert answer.status == 200, answer.body
    assert answer.json["type"] == "message"
    assert answer.json["content"][0]["text"]
    assert 1 <= answer.json["usage"]["output_tokens"] <= 8


def test_eight_requests_at_once(server: SwellProcess) -> None:
    async def ask() -> list[str | None]:
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=60) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=8) for _ in range(8))
            )
        return [answer.choices[0].message.content for answer in answers]

    assert all(asyncio.run(ask()))


def test_a_wrong_key_is_an_authentication_error(server: SwellProcess) -> None:
    with (
        OpenAI(base_url=server.base_url, api_key="sk-swell-wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert caught.value.status_code == 401
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=QUESTION)
    assert caught.value.code == "model_not_found"


def test_a_prompt_beyond_the_context_is_a_bad_request(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": LONG}], max_tokens=8)
    assert "context" in str(caught.value).lower()


def test_a_bad_value_is_a_bad_request_that_names_it(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=QUESTION, n=1000)
    assert caught.value.param == "n"
