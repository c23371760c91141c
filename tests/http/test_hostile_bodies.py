"""What stands in a body cannot get round the limits: each number that reaches the engine is one that was admitted."""

import json
from collections.abc import Callable

import pytest
from raw_http import Exchange, chat_body, exchange, request

from scripted_upstream import UpstreamThread
from swell_process import SwellProcess

pytestmark = pytest.mark.process

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'

REFUSED: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("not JSON", b"hello"),
    ("cut off", b'{"model":"m",' + MESSAGES),
    ("two documents", chat_body() + chat_body()),
    ("an array", b"[" + chat_body() + b"]"),
    ("a byte order mark", b"\xef\xbb\xbf" + chat_body()),
    ("UTF-16", chat_body().decode().encode("utf-16")),
    ("nested too deep", b'{"model":"m","messages":' + b"[" * 40 + b"]" * 40 + b"}"),
    ("nested far too deep", b'{"model":"m","messages":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    ("opened and never closed", b'{"model":"m","messages":' + b"[" * 60_000),
    ("invalid UTF-8", chat_body().replace(b"hello", b"\xff\xfe")),
    ("an overlong UTF-8 form", chat_body().replace(b"hello", b"\xc0\xaf")),
    ("a surrogate in UTF-8", chat_body().replace(b"hello", b"\xed\xa0\x80")),
    ("no model", b"{" + MESSAGES + b"}"),
    ("a model that is a number", b'{"model":7,' + MESSAGES + b"}"),
    ("a model that is an object", b'{"model":{"$ne":""},' + MESSAGES + b"}"),
    ("no messages", b'{"model":"m"}'),
    ("n of 16384", chat_body(n=16384)),
    ("n of 0", chat_body(n=0)),
    ("n below zero", chat_body(n=-1)),
    ("n beyond 64 bits", b'{"model":"m","n":99999999999999999999999,' + MESSAGES + b"}"),
    ("n as a fraction", chat_body(n=1.5)),
    ("n as text", chat_body(n="4")),
    ("n as a list", chat_body(n=[1])),
    ("best_of of 16384", chat_body(best_of=16384)),
    ("max_tokens over the cap", chat_body(max_tokens=65)),
    ("max_completion_tokens over the cap", chat_body(max_completion_tokens=65)),
    ("one limit within and one over", chat_body(max_tokens=1, max_completion_tokens=10_000)),
    ("max_tokens below zero", chat_body(max_tokens=-1)),
    ("max_tokens of 0", chat_body(max_tokens=0)),
    ("max_tokens as an exponent", b'{"model":"m","max_tokens":1e9,' + MESSAGES + b"}"),
    ("max_tokens as text", chat_body(max_tokens="5")),
    ("max_tokens as NaN", b'{"model":"m","max_tokens":NaN,' + MESSAGES + b"}"),
    ("max_tokens in an escaped name", b'{"model":"m","max\\u005ftokens":100000,' + MESSAGES + b"}"),
    ("max_tokens twice, the last over", b'{"model":"m","max_tokens":4,' + MESSAGES + b',"max_tokens":100000}'),
    ("max_tokens twice, one escaped", b'{"max_tokens":4,"model":"m",' + MESSAGES + b',"max_t\\u006fkens":100000}'),
    ("n twice, the last over", b'{"model":"m","n":1,' + MESSAGES + b',"n":16384}'),
    ("an engine's own name for the limit", chat_body(n_predict=100_000)),
    ("a stream flag that is text", chat_body(stream="yes")),
    ("a duplicate of a wrong model", b'{"model":"m","model":7,' + MESSAGES + b"}"),
]


@pytest.mark.parametrize("body", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_body_that_breaks_the_rules_is_refused_and_the_connection_lives(
    gateway: SwellProcess, forwarded: Callable[[], int], body: bytes
) -> None:
    result = exchange(gateway.port, request(gateway.key, body) + request(gateway.key, chat_body()), expected=2)
    refused, served = result.answers
    assert refused.status == 400
    assert refused.json["error"]["type"] == "invalid_request_error"
    assert served.status == 200
    assert forwarded() == 1


@pytest.mark.parametrize(
    ("body", "name", "value"),
    [
        (b'{"model":"m","max_tokens":100000,' + MESSAGES + b',"max_tokens":4}', "max_tokens", 4),
        (b'{"model":"m","max_t\\u006fkens":100000,' + MESSAGES + b',"max_tokens":4}', "max_tokens", 4),
        (b'{"model":"m","n":16384,' + MESSAGES + b',"n":2}', "n", 2),
        (b'{"model":"other","model":"m",' + MESSAGES + b"}", "model", "m"),
        (b'{"model":"m","max_tokens":null,' + MESSAGES + b"}", "max_tokens", 8),
        (b'{"model":"m",' + MESSAGES + b"}", "max_tokens", 8),
    ],
    ids=["max_tokens", "an escaped max_tokens", "n", "model", "max_tokens of null", "no max_tokens"],
)
def test_what_goes_upstream_says_each_thing_once(
    gateway: SwellProcess, shared_upstream: UpstreamThread, body: bytes, name: str, value: object
) -> None:
    assert exchange(gateway.port, request(gateway.key, body)).answers[0].status == 200
    pairs: list[tuple[str, object]] = json.loads(shared_upstream.seen[-1].body, object_pairs_hook=list)
    names = [pair[0] for pair in pairs]
    assert len(names) == len(set(names))
    assert dict(pairs)[name] == value


@pytest.mark.parametrize("text", [b"\\ud800", b"\\udc00\\ud800", b"\\u0000", b"\\ud83d\\ude00"])
def test_odd_escapes_in_a_prompt_end_in_an_answer(gateway: SwellProcess, text: bytes) -> None:
    result = exchange(gateway.port, request(gateway.key, chat_body().replace(b"hello", text)))
    assert result.answers[0].status in (200, 400)


@pytest.mark.parametrize("name", [b"\\ud800", b"m\\u0000", b"../m", b"m' OR '1'='1", b"M", b"", b"x" * 5000])
def test_a_model_by_another_name_is_not_found(gateway: SwellProcess, forwarded: Callable[[], int], name: bytes) -> None:
    result = exchange(gateway.port, request(gateway.key, b'{"model":"%b",' % name + MESSAGES + b"}"))
    assert result.answers[0].status in (400, 404)
    assert "error" in result.answers[0].json
    assert forwarded() == 0


PATHS = [
    b"/v1/../metrics",
    b"//v1/chat/completions",
    b"/v1/chat/completions/",
    b"/v1/chat%2Fcompletions",
    b"/V1/chat/completions",
    b"/v1/chat/completions;a=b",
    b"/v1/chat/completions#x",
    b"/chat/completions",
    b"/completion",
    b"/slots",
    b"/props",
    b"/pause",
    b"/update_weights",
    b"/invocations",
    b"/tokenize",
    b"/v1/load_lora_adapter",
    b"/_upstream/stats",
    b"*",
]


@pytest.mark.parametrize("path", PATHS, ids=[path.decode() for path in PATHS])
def test_only_listed_paths_reach_a_replica(gateway: SwellProcess, forwarded: Callable[[], int], path: bytes) -> None:
    result = exchange(gateway.port, request(gateway.key, chat_body(), line=b"POST " + path + b" HTTP/1.1"))
    assert result.answers[0].status in (400, 404, 405)
    assert result.answers[0].json["error"]["message"]
    assert forwarded() == 0


CREDENTIALS = [
    b"",
    b"authorization: Bearer\r\n",
    b"authorization: Bearer \r\n",
    b"authorization: Bearer x\r\n",
    b"authorization: Bearer ' OR 1=1; --\r\n",
    b"authorization: Bearer sk-swell-" + b"a" * 3000 + b"\r\n",
    b"authorization: Bearer \xff\xfe\r\n",
    b"authorization: Basic eDp5\r\n",
    b"authorization: bearer\r\nx-api-key: \r\n",
    b"x-api-key: x\r\n",
    b"host: localhost\r\n",
    b"x-forwarded-for: 127.0.0.1\r\nx-original-url: /healthz\r\n",
]


@pytest.mark.parametrize("lines", CREDENTIALS)
def test_without_a_valid_key_nothing_is_served(
    gateway: SwellProcess, forwarded: Callable[[], int], lines: bytes
) -> None:
    host = b"" if b"host" in lines else b"host: swell\r\n"
    body = chat_body()
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + host + lines + b"content-length: %d\r\n\r\n" % len(body)
    answer = exchange(gateway.port, head + body).answers[0]
    assert answer.status == 401
    assert answer.json["error"]["type"] == "authentication_error"
    assert forwarded() == 0


def test_a_mistyped_key_is_refused_and_never_repeated_in_the_answer(gateway: SwellProcess) -> None:
    swapped = gateway.key[:-1] + ("a" if gateway.key[-1] != "a" else "b")
    answer = exchange(gateway.port, request(swapped, chat_body())).answers[0]
    assert answer.status == 401
    assert swapped.encode() not in answer.body
    assert gateway.key_id.encode() not in answer.body


def test_two_authorizations_are_refused(gateway: SwellProcess, forwarded: Callable[[], int]) -> None:
    extra = b"authorization: Bearer other\r\n"
    result: Exchange = exchange(gateway.port, request(gateway.key, chat_body(), extra=extra))
    assert result.answers[0].status in (400, 401)
    assert forwarded() == 0
