"""Sizes, counts and times are bounded; what is legal within them works: pipelining, keep-alive, Expect, HTTP/1.0."""

from collections.abc import Callable

import pytest
from raw_http import chat_body, exchange, request

from scripted_upstream import UpstreamThread
from swell_process import SwellProcess

pytestmark = pytest.mark.process


def test_one_huge_header_is_refused(
    gateway: SwellProcess, forwarded: Callable[[], int], assert_refused: Callable[..., None]
) -> None:
    sent = request(gateway.key, chat_body(), extra=b"x-a: " + b"a" * 9000 + b"\r\n")
    assert_refused(exchange(gateway.port, sent), 431)
    assert forwarded() == 0


def test_headers_that_never_end_are_refused_at_the_bound(
    gateway: SwellProcess, assert_refused: Callable[..., None]
) -> None:
    line = b"POST /v1/chat/completions HTTP/1.1\r\nhost: swell\r\nx-a: "
    assert_refused(exchange(gateway.port, line, *[b"a" * 4096] * 8), 431)


def test_too_many_headers_are_refused(gateway: SwellProcess, assert_refused: Callable[..., None]) -> None:
    sent = request(gateway.key, chat_body(), extra=b"".join(b"x-%d: 1\r\n" % index for index in range(60)))
    assert_refused(exchange(gateway.port, sent), 431)


def test_a_huge_path_is_refused(gateway: SwellProcess, assert_refused: Callable[..., None]) -> None:
    sent = request(gateway.key, chat_body(), line=b"POST /v1/" + b"a" * 9000 + b" HTTP/1.1")
    assert_refused(exchange(gateway.port, sent), 414, 431)


def test_slow_headers_are_cut(gateway: SwellProcess, assert_refused: Callable[..., None]) -> None:
    assert_refused(exchange(gateway.port, b"POST /v1/chat/completions HTTP/1.1\r\nhost: swell\r\nx-a: "), 408)


def test_a_slow_body_is_cut(
    gateway: SwellProcess, forwarded: Callable[[], int], assert_refused: Callable[..., None]
) -> None:
    assert_refused(exchange(gateway.port, request(gateway.key, chat_body())[:-5]), 408)
    assert forwarded() == 0


def test_a_length_over_the_bound_is_refused_before_the_body_is_sent(
    gateway: SwellProcess, assert_refused: Callable[..., None]
) -> None:
    head = request(gateway.key, extra=b"content-length: 65537\r\n", length=False)
    assert_refused(exchange(gateway.port, head), 413)


def test_chunks_over_the_bound_are_refused(
    gateway: SwellProcess, forwarded: Callable[[], int], assert_refused: Callable[..., None]
) -> None:
    head = request(gateway.key, extra=b"transfer-encoding: chunked\r\n", length=False)
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert_refused(exchange(gateway.port, head, *[chunk] * 9), 413)
    assert forwarded() == 0


def test_a_body_at_the_bound_is_served(gateway: SwellProcess) -> None:
    body = chat_body().ljust(65536)
    assert [answer.status for answer in exchange(gateway.port, request(gateway.key, body)).answers] == [200]


def test_pipelined_requests_are_answered_in_order(gateway: SwellProcess, forwarded: Callable[[], int]) -> None:
    sent = [request(gateway.key, chat_body(max_tokens=tokens)) for tokens in (5, 3, 7)]
    result = exchange(gateway.port, b"".join(sent), expected=3)
    assert [answer.json["usage"]["completion_tokens"] for answer in result.answers] == [5, 3, 7]
    assert forwarded() == 3


def test_more_pipelined_requests_than_the_bound_are_cut_between_two_answers(
    gateway: SwellProcess, forwarded: Callable[[], int]
) -> None:
    sent = [request(gateway.key, chat_body(max_tokens=1 + index)) for index in range(12)]
    result = exchange(gateway.port, b"".join(sent), expected=12)
    tokens = [answer.json["usage"]["completion_tokens"] for answer in result.answers if answer.status == 200]
    assert tokens == list(range(1, 1 + len(tokens)))
    assert 1 <= len(tokens) <= 5
    assert forwarded() == len(tokens)
    assert result.closed


def test_a_stream_and_a_refusal_share_a_connection(gateway: SwellProcess) -> None:
    sent = request(gateway.key, chat_body(stream=True, max_tokens=2)) + request(gateway.key, chat_body(n=99))
    first, second = exchange(gateway.port, sent, expected=2).answers
    assert first.status == 200
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert second.status == 400


def test_continue_is_said_when_it_is_waited_for(gateway: SwellProcess) -> None:
    sent = request(gateway.key, chat_body(), extra=b"expect: 100-continue\r\n")
    assert [answer.status for answer in exchange(gateway.port, sent).answers] == [100, 200]


def test_connection_close_is_honoured(gateway: SwellProcess) -> None:
    result = exchange(gateway.port, request(gateway.key, chat_body(), extra=b"connection: close\r\n"))
    assert [answer.status for answer in result.answers] == [200]
    assert result.closed
    assert result.answers[0].headers["connection"] == "close"


def test_http_1_0_is_answered_and_closed(gateway: SwellProcess) -> None:
    sent = request(gateway.key, chat_body(), line=b"POST /v1/chat/completions HTTP/1.0")
    result = exchange(gateway.port, sent)
    assert [answer.status for answer in result.answers] == [200]
    assert result.closed
    assert "transfer-encoding" not in result.answers[0].headers


def test_empty_lines_before_a_request_are_ignored(gateway: SwellProcess) -> None:
    result = exchange(gateway.port, b"\r\n\r\n" + request(gateway.key, chat_body()))
    assert [answer.status for answer in result.answers] == [200]


def test_only_the_body_goes_upstream(gateway: SwellProcess, shared_upstream: UpstreamThread) -> None:
    extra = b"cookie: secret=1\r\nx-forwarded-for: 10.0.0.1\r\nx-evil: 1\r\nconnection: x-evil\r\n"
    assert exchange(gateway.port, request(gateway.key, chat_body(), extra=extra)).answers[0].status == 200
    headers = {name.lower(): value for name, value in shared_upstream.seen[-1].headers.items()}
    assert not {"cookie", "x-evil", "x-forwarded-for"} & set(headers)
    assert gateway.key not in " ".join(headers.values())
