"""One gateway with small bounds and short timeouts before one scripted upstream, for every file here."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from raw_http import Exchange

from scripted_upstream import UpstreamThread
from swell_process import SwellProcess

SPEC = """
models:
  - name: m
    engine: external
    endpoints: ["{url}"]
    max_tokens: {{default: 8, max: 64}}
    n_max: 4
server:
  bounds: {{header_bytes: 8192, header_count: 40, body_bytes: 65536, json_depth: 16, pipelined_requests: 4}}
  timeouts: {{header_seconds: 0.6, body_seconds: 0.6, keep_alive_seconds: 3}}
"""


@pytest.fixture(scope="module")
def gateway(shared_upstream: UpstreamThread, shared_swell_up: Callable[..., SwellProcess]) -> Iterator[SwellProcess]:
    """A real `swell up` with one worker."""
    server = shared_swell_up(SPEC.format(url=shared_upstream.url))
    workers = [process.pid for process in server.workers()]
    yield server
    assert [process.pid for process in server.workers()] == workers, "a request ended the gateway worker"


@pytest.fixture
def forwarded(shared_upstream: UpstreamThread) -> Callable[[], int]:
    """How many requests reached the upstream since the test began."""
    before = len(shared_upstream.seen)
    return lambda: len(shared_upstream.seen) - before


@pytest.fixture(scope="session")
def assert_refused() -> Callable[..., None]:
    """Checks that the only or last answer is an error in OpenAI's shape and that the connection was closed."""

    def check(result: Exchange, *statuses: int) -> None:
        assert result.answers, "closed without an answer" if result.closed else "no answer and not closed"
        last = result.answers[-1]
        assert 400 <= last.status < 600, last
        assert not statuses or last.status in statuses, last
        error: dict[str, Any] = last.json["error"]
        assert error["message"]
        assert error["type"]
        assert set(error) == {"message", "type", "param", "code"}
        assert last.headers["connection"] == "close"
        assert result.closed

    return check
