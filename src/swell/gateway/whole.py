"""A whole answer on its way from a replica to the client.

It is held until it is complete (bounded), so that its usage is known and a replica that dies half-way can
still be replaced.
"""

from typing import TYPE_CHECKING

from swell.gateway.events import ChunkDecoder, usage_of_answer
from swell.gateway.responses import Refusal, error_body
from swell.gateway.upstream import UpstreamConnection
from swell.state.usage import UsageStatus

if TYPE_CHECKING:
    from swell.gateway.exchange import Exchange

_JSON = b"application/json"


class Held:
    """Gathers an answer that does not come in one piece, or is an error."""

    __slots__ = ("_bytes", "_chunked", "_content_type", "_exchange", "_marks", "_pieces", "_retry_after", "_status")
    has_begun = False  # towards the client
    first_token_at = 0.0

    def __init__(self, exchange: "Exchange", connection: UpstreamConnection) -> None:
        self._exchange = exchange
        self._status = connection.status
        self._content_type = connection.content_type
        self._chunked = connection.chunked
        self._marks = connection.chunk_marks
        self._retry_after = connection.retry_after
        self._pieces: list[bytes] = []
        self._bytes = 0

    def data(self, data: bytes) -> None:
        """Raw body bytes."""
        self._exchange.touched = True
        self._pieces.append(data)
        self._marks.clear()  # nobody asks for them
        self._bytes += len(data)
        if self._bytes > self._exchange.service.bounds.response_bytes:
            self._exchange.stop_answer("it is too large")

    def end(self) -> None:
        """The answer is complete."""
        body = b"".join(self._pieces)
        if self._chunked:
            body = ChunkDecoder().feed(body)
        if 200 <= self._status < 300:
            deliver(self._exchange, self._status, self._content_type or _JSON, body)
        else:
            self._deliver_error(body)

    def cut(self, refusal: Refusal) -> None:
        """Nothing has reached the client: it is told in a plain answer."""
        self._exchange.end_with(refusal)

    def _deliver_error(self, body: bytes) -> None:
        """Engines' own error objects pass; anything else is put into the common shape."""
        exchange = self._exchange
        if self._status < 400:
            self._status, body = 502, b"a redirection, which is not followed"
        exchange.settle(UsageStatus.SETTLED, 0, 0, self._status)
        headers = exchange.headers()
        if self._retry_after.isdigit():
            headers += b"retry-after: " + self._retry_after + b"\r\n"
        if b'"error"' not in body:
            text = body[:500].decode("utf-8", "replace").strip() or "no reason given"
            refusal = Refusal(self._status, f"The engine answered {self._status}: {text}", code="engine_error")
            body = error_body(refusal, anthropic=exchange.is_anthropic)
        exchange.end()
        exchange.client.respond(self._status, headers, _JSON, body)


def deliver(exchange: "Exchange", status: int, content_type: bytes, body: bytes) -> None:
    """Settle and hand over a whole answer. Without usage in it, its size stands for the tokens."""
    usage = usage_of_answer(body)
    if usage is not None:
        exchange.settle(UsageStatus.SETTLED, usage.prompt or 0, usage.completion or 0, status, usage.cached)
    else:
        admitted = exchange.admitted
        estimate = min(len(body) // 4, admitted.completion_tokens_bound)
        exchange.settle(UsageStatus.ESTIMATED, admitted.prompt_tokens_estimate, estimate, status)
    headers = exchange.headers()
    exchange.end()
    exchange.client.respond(status, headers, content_type, body)
