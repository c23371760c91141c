"""A streaming client whose model has no replica yet: it gets the head and a comment now and then.

Proxies and SDKs give up on connections that stay silent; a comment is no event, so it reaches nobody's parser. Once
the head is out the status is 200, whatever comes: from then on an error is an event in the stream.
"""

from swell.gateway.asker import Client
from swell.gateway.responses import LAST_CHUNK, Refusal, chunk, error_event

FIRST_COMMENT_SECONDS = 1.0  # what is there earlier needs none, and an early refusal keeps its status
COMMENT_SECONDS = 5.0  # between two; proxies usually give up after 30 or 60
COMMENT = b": warming up\n\n"
_EVENT_STREAM = b"text/event-stream"


class HeldStream:
    """Stands for a client whose stream has begun, and does the rest in it (`asker.Client`)."""

    __slots__ = ("_client", "_framed", "_is_anthropic", "_spoken_at", "transport")

    def __init__(self, client: Client, headers: bytes, now: float, *, is_anthropic: bool) -> None:
        """Begins the stream."""
        self._client = client
        self._is_anthropic = is_anthropic
        self._spoken_at = now
        self.transport = client.transport
        head, self._framed = client.begin(200, b"cache-control: no-cache\r\n" + headers, _EVENT_STREAM)
        self._write(COMMENT, head)

    def comment(self, now: float) -> None:
        """Say again that the request is not forgotten, if that is due."""
        if now - self._spoken_at >= COMMENT_SECONDS:
            self._spoken_at = now
            self._write(COMMENT)

    def respond(self, status: int, headers: bytes, content_type: bytes, body: bytes) -> None:
        """A whole answer, such as an engine's error object, as one event."""
        name = b"event: error\n" if status >= 400 and self._is_anthropic else b""
        lines = b"".join(b"data: %b\n" % line for line in body.splitlines())
        self._end_with(name + lines + b"\n")

    def begin(self, status: int, headers: bytes, content_type: bytes) -> tuple[bytes, bool]:
        """The head is out already."""
        return b"", self._framed

    def finish(self) -> None:
        self._client.finish()

    def abort(self) -> None:
        self._client.abort()

    def refuse(self, refusal: Refusal, headers: bytes = b"") -> None:
        """An error of Swell's own, as an event."""
        self._end_with(error_event(refusal, anthropic=self._is_anthropic))

    def _end_with(self, event: bytes) -> None:
        self._write(event, last=LAST_CHUNK if self._framed else b"")
        self._client.finish()

    def _write(self, payload: bytes, head: bytes = b"", last: bytes = b"") -> None:
        if not self.transport.is_closing():
            self.transport.write(head + (chunk(payload) if self._framed else payload) + last)
