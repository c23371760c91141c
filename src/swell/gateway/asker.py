"""Who asked: the client side of an exchange."""

import asyncio
from typing import Protocol

from swell.gateway.responses import Refusal


class Client(Protocol):
    """The connection that asked. Body bytes of a stream are written to `transport`, framed already."""

    transport: asyncio.Transport

    def respond(self, status: int, headers: bytes, content_type: bytes, body: bytes) -> None:
        """A whole answer."""

    def begin(self, status: int, headers: bytes, content_type: bytes) -> tuple[bytes, bool]:
        """The head of a stream, to be written before it, and whether the stream goes out in chunked coding."""

    def finish(self) -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """The answer cannot be completed: cut the connection so that the client notices."""

    def refuse(self, refusal: Refusal, headers: bytes = b"") -> None:
        """An error of Swell's own."""
