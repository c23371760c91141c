"""What a stream that ends early is counted at: what went out, never more, and never the engine's first guess."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

from scripted_upstream import UpstreamThread
from swell.testing.upstream_script import Script, encode_script
from swell_process import SwellProcess

pytestmark = pytest.mark.process

SLOW_MS = 400.0  # between two events: time for the client to leave


@pytest.fixture(scope="module")
def server(shared_swell_up: Callable[..., SwellProcess], shared_upstream: UpstreamThread) -> SwellProcess:
    return shared_swell_up(f'models: [{{name: m, engine: external, endpoints: ["{shared_upstream.url}"]}}]')


def read_until(server: SwellProcess, body: dict[str, Any], *marks: bytes) -> None:
    """Ask for a stream and hang up as soon as every mark has come."""
    data = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}], **body}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: swell\r\nauthorization: Bearer {server.key}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head.encode() + data)
        seen = b""
        while not all(mark in seen for mark in marks):
            read = connection.recv(65536)
            assert read, seen
            seen += read


def last_row(server: SwellProcess, eventually: Any) -> dict[str, Any]:
    row: dict[str, Any] = eventually(lambda: [r for r in server.command("usage")[:1] if r["status"] != "reserved"])[0]
    return row


def test_leaving_between_the_last_word_and_the_usage_counts_the_words(server: SwellProcess, eventually: Any) -> None:
    read_until(server, {"user": encode_script(Script(chunks=2, delay_ms=SLOW_MS))}, b'"finish_reason":"stop"')
    row = last_row(server, eventually)
    assert (row["status"], row["completion_tokens"]) == ("estimated", 2)


def test_leaving_after_the_usage_is_settled_with_it(server: SwellProcess, eventually: Any) -> None:
    script = encode_script(Script(chunks=2, delay_ms=SLOW_MS))
    read_until(server, {"stream_options": {"include_usage": True}, "user": script}, b'"completion_tokens":2')
    row = last_row(server, eventually)
    assert (row["status"], row["completion_tokens"]) == ("settled", 2)


def test_the_ends_of_several_choices_are_not_counted_as_words(server: SwellProcess, eventually: Any) -> None:
    first, second = (b'"index":%d,"delta":{},"logprobs":null,"finish_reason":"stop"' % index for index in (0, 1))
    read_until(server, {"n": 2, "user": encode_script(Script(chunks=2, delay_ms=SLOW_MS))}, first, second)
    row = last_row(server, eventually)
    assert (row["status"], row["completion_tokens"]) == ("estimated", 4)


def test_the_usage_at_a_messages_start_is_not_taken_for_its_end(server: SwellProcess) -> None:
    script = json.dumps({"chunks": 9, "die_after": 5})
    body = {"model": "m", "stream": True, "max_tokens": 20, "messages": [{"role": "user", "content": "x"}]}
    reply = server.request("POST", "/v1/messages", {**body, "metadata": {"user_id": script}})
    assert reply.body.count(b"event: content_block_delta") == 5
    row = server.command("usage", "--limit", "1")[0]
    assert (row["status"], row["completion_tokens"]) == ("estimated", 5)
