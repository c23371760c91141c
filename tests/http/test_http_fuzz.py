"""Damaged requests, by seed: the worker survives, and nothing goes upstream but what its own connection is answered."""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from raw_http import chat_body, chunked, exchange, request

from scripted_upstream import UpstreamThread
from swell_process import SwellProcess

pytestmark = pytest.mark.process

CONNECTIONS = 40  # at a time; a request that lost its end costs the gateway's timeout, once for all of them
READ_SECONDS = 5.0
SNIPPETS = [
    b"\r\n", b"\n", b"\r", b"\x00", b"\r\n\r\n", b" ", b"\t", b":", b"0\r\n\r\n", b"content-length: 0\r\n", b"\xff",
    b"transfer-encoding: chunked\r\n", b"content-length: 10\r\n", b"GET /healthz HTTP/1.1\r\n", b"HTTP/1.1", b"}", b"{",
    b"POST /v1/chat/completions HTTP/1.1\r\n", b"a" * 5000, b"expect: 100-continue\r\n", b";", b"-1", b"ffffffffff",
]  # fmt: skip


def _damage(rng: random.Random, data: bytes) -> bytes:
    """One to four changes: bytes flipped, removed, doubled, moved, or a telling snippet put in."""
    for _ in range(rng.randint(1, 4)):
        at, span = rng.randrange(len(data) + 1), rng.randint(1, 12)
        change = rng.randrange(5)
        if change == 0 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        elif change == 1:
            data = data[:at] + data[at + span :]
        elif change == 2:
            data = data[: at + span] + data[at:]
        elif change == 3:
            other = rng.randrange(len(data) + 1)
            data = data[:at] + data[other : other + span] + data[at:]
        else:
            data = data[:at] + rng.choice(SNIPPETS) + data[at:]
    return data


def _pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The same bytes in up to four writes."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("seed", range(6))
def test_damaged_requests_never_reach_a_replica_unanswered(
    gateway: SwellProcess, shared_upstream: UpstreamThread, seed: int
) -> None:
    rng = random.Random(seed)
    body = chat_body(max_tokens=2)
    close = b"connection: close\r\n"
    originals = [
        request(gateway.key, body, extra=close),
        request(gateway.key, extra=close + b"transfer-encoding: chunked\r\n", length=False) + chunked(body),
        request(gateway.key, body) + request(gateway.key, body, extra=close),
    ]
    before = len(shared_upstream.seen)
    sent = [_pieces(rng, _damage(rng, rng.choice(originals))) for _ in range(CONNECTIONS * 2)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        results = list(
            pool.map(lambda parts: exchange(gateway.port, *parts, expected=99, read_seconds=READ_SECONDS), sent)
        )
    answered = sum(answer.status == 200 and b"chat.completion" in answer.body for r in results for answer in r.answers)
    assert len(shared_upstream.seen) - before == answered
    assert {answer.status for result in results for answer in result.answers} & {500, 502, 503, 504} == set()
    assert all(result.closed for result in results)
    assert gateway.chat().status == 200


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_are_refused(gateway: SwellProcess, forwarded: Callable[[], int], seed: int) -> None:
    rng = random.Random(1000 + seed)
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        blobs = [rng.randbytes(rng.randint(1, 3000)) for _ in range(CONNECTIONS)]
        results = list(pool.map(lambda blob: exchange(gateway.port, blob, expected=99), blobs))
    assert all(result.closed for result in results)
    assert {answer.status // 100 for result in results for answer in result.answers} <= {4, 5}
    assert forwarded() == 0
    assert gateway.chat().status == 200
