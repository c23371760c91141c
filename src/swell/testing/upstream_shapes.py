"""The documents and events of each endpoint, as an OpenAI- or Anthropic-shaped engine words them.

Each endpoint is one `Shape`: a function to a JSON document and a function to a list of events. An
event is `(name, data, content)`: the SSE event name or none, its JSON or text, and how many content
chunks it stands for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from swell.testing.upstream_script import UsageMode

CREATED = 1_700_000_000
WORD = " token"


@dataclass(frozen=True, slots=True)
class Reply:
    """What there is to say, in any shape."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    chunks: int  # content chunks per choice
    choices: int
    inputs: int
    cut_short: bool  # the token limit ended it
    include_usage: bool
    usage: UsageMode
    cached_tokens: int = -1  # of the prompt's; negative: not told


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: dict[str, Any] | str
    content: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    document: Callable[[Reply], dict[str, Any]]
    events: Callable[[Reply], Iterator[Event]] | None


def openai_usage(reply: Reply, completion_tokens: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": reply.prompt_tokens + completion_tokens,
    }
    if reply.cached_tokens >= 0:
        usage["prompt_tokens_details"] = {"cached_tokens": reply.cached_tokens}
    return usage


def _finish(reply: Reply) -> str:
    return "length" if reply.cut_short else "stop"


def _with_usage(reply: Reply, document: dict[str, Any]) -> dict[str, Any]:
    if reply.usage is not UsageMode.NEVER:
        document["usage"] = openai_usage(reply, reply.completion_tokens)
    return document


def _chat_document(reply: Reply) -> dict[str, Any]:
    message = {"role": "assistant", "content": WORD * reply.chunks, "tool_calls": []}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": _finish(reply)}
        for index in range(reply.choices)
    ]
    document = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": CREATED,
        "model": reply.model,
        "choices": choices,
    }
    return _with_usage(reply, document)


def _completion_document(reply: Reply) -> dict[str, Any]:
    choices = [
        {"index": index, "text": WORD * reply.chunks, "logprobs": None, "finish_reason": _finish(reply)}
        for index in range(reply.choices)
    ]
    document = {
        "id": "cmpl-scripted",
        "object": "text_completion",
        "created": CREATED,
        "model": reply.model,
        "choices": choices,
    }
    return _with_usage(reply, document)


def _openai_events(
    reply: Reply, template: dict[str, Any], choices: Iterator[tuple[dict[str, Any], int]]
) -> Iterator[Event]:
    """Lay choices over events, with usage as the reply's mode says, and the closing `[DONE]`."""
    delivered = 0
    for choice, content in choices:
        delivered += content
        data = {**template, "choices": [choice]}
        if reply.usage is UsageMode.NULL:
            data["usage"] = None
        elif reply.usage is UsageMode.EVERY:
            data["usage"] = openai_usage(reply, delivered)
        yield Event("", data, content)
    asked = reply.include_usage and reply.usage is not UsageMode.NEVER
    if asked or reply.usage is UsageMode.ALWAYS:
        yield Event("", {**template, "choices": [], "usage": openai_usage(reply, reply.completion_tokens)})
    yield Event("", "[DONE]")


def _chat_events(reply: Reply) -> Iterator[Event]:
    template = {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": reply.model,
    }

    def choice(index: int, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    def choices() -> Iterator[tuple[dict[str, Any], int]]:
        for index in range(reply.choices):
            yield choice(index, {"role": "assistant", "content": ""}), 0
        for _ in range(reply.chunks):
            for index in range(reply.choices):
                yield choice(index, {"content": WORD}), 1
        for index in range(reply.choices):
            yield choice(index, {}, _finish(reply)), 0

    return _openai_events(reply, template, choices())


def _completion_events(reply: Reply) -> Iterator[Event]:
    template = {"id": "cmpl-scripted", "object": "text_completion", "created": CREATED, "model": reply.model}

    def choices() -> Iterator[tuple[dict[str, Any], int]]:
        for _ in range(reply.chunks):
            for index in range(reply.choices):
                yield {"index": index, "text": WORD, "logprobs": None, "finish_reason": None}, 1
        for index in range(reply.choices):
            yield {"index": index, "text": "", "logprobs": None, "finish_reason": _finish(reply)}, 0

    return _openai_events(reply, template, choices())


def _embeddings_document(reply: Reply) -> dict[str, Any]:
    vector = [((index * 37) % 17 - 8) / 16 for index in range(8)]
    document: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(reply.inputs)],
        "model": reply.model,
    }
    if reply.usage is not UsageMode.NEVER:
        document["usage"] = {"prompt_tokens": reply.prompt_tokens, "total_tokens": reply.prompt_tokens}
    return document


def _responses_item(text: str, status: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    return {"id": "msg_scripted", "type": "message", "status": status, "role": "assistant", "content": content}


def _responses_object(reply: Reply, status: str, text: str) -> dict[str, Any]:
    finished = status != "in_progress"
    usage = None
    if finished and reply.usage is not UsageMode.NEVER:
        usage = {
            "input_tokens": reply.prompt_tokens,
            "input_tokens_details": {"cached_tokens": max(0, reply.cached_tokens)},
            "output_tokens": reply.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        }
    return {
        "id": "resp_scripted",
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": None,
        "metadata": {},
        "model": reply.model,
        "output": [_responses_item(text, "completed")] if finished else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": usage,
    }


def _responses_document(reply: Reply) -> dict[str, Any]:
    return _responses_object(reply, "incomplete" if reply.cut_short else "completed", WORD * reply.chunks)


def _responses_events(reply: Reply) -> Iterator[Event]:
    text = WORD * reply.chunks
    place = {"item_id": "msg_scripted", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    last = "incomplete" if reply.cut_short else "completed"

    def bodies() -> Iterator[tuple[str, dict[str, Any], int]]:
        yield "created", {"response": _responses_object(reply, "in_progress", "")}, 0
        yield "in_progress", {"response": _responses_object(reply, "in_progress", "")}, 0
        yield "output_item.added", {"output_index": 0, "item": _responses_item("", "in_progress")}, 0
        yield "content_part.added", {**place, "part": part}, 0
        for _ in range(reply.chunks):
            yield "output_text.delta", {**place, "delta": WORD, "logprobs": []}, 1
        yield "output_text.done", {**place, "text": text, "logprobs": []}, 0
        yield "content_part.done", {**place, "part": {**part, "text": text}}, 0
        yield "output_item.done", {"output_index": 0, "item": _responses_item(text, "completed")}, 0
        yield last, {"response": _responses_object(reply, last, text)}, 0

    for number, (kind, body, content) in enumerate(bodies()):
        name = f"response.{kind}"
        yield Event(name, {"type": name, "sequence_number": number, **body}, content)


def _messages_object(reply: Reply, text: str, stop: str | None, output_tokens: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": "msg_scripted",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": stop,
        "stop_sequence": None,
    }
    if reply.usage is not UsageMode.NEVER:
        usage = {"input_tokens": reply.prompt_tokens, "output_tokens": output_tokens}
        if reply.cached_tokens >= 0:  # which Anthropic does not count as input
            usage["cache_read_input_tokens"] = reply.cached_tokens
            usage["input_tokens"] -= reply.cached_tokens
        document["usage"] = usage
    return document


def _messages_document(reply: Reply) -> dict[str, Any]:
    stop = "max_tokens" if reply.cut_short else "end_turn"
    return _messages_object(reply, WORD * reply.chunks, stop, reply.completion_tokens)


def _messages_events(reply: Reply) -> Iterator[Event]:
    stop = "max_tokens" if reply.cut_short else "end_turn"

    def bodies() -> Iterator[tuple[dict[str, Any], int]]:
        yield {"type": "message_start", "message": _messages_object(reply, "", None, 1)}, 0
        yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, 0
        yield {"type": "ping"}, 0
        for _ in range(reply.chunks):
            yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}}, 1
        yield {"type": "content_block_stop", "index": 0}, 0
        delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}}
        if reply.usage is not UsageMode.NEVER:
            delta["usage"] = {"output_tokens": reply.completion_tokens}
        yield delta, 0
        yield {"type": "message_stop"}, 0

    for body, content in bodies():
        yield Event(body["type"], body, content)


SHAPES: dict[str, Shape] = {
    "/v1/chat/completions": Shape(_chat_document, _chat_events),
    "/v1/completions": Shape(_completion_document, _completion_events),
    "/v1/embeddings": Shape(_embeddings_document, None),
    "/v1/responses": Shape(_responses_document, _responses_events),
    "/v1/messages": Shape(_messages_document, _messages_events),
}


def error_document(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
