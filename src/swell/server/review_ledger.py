"""The ledger as a review's own process reads it: from the running server, in small pages, with pauses in between.

Each page takes the store's one thread for a moment; after it the server has at least as long for everything else.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec

from swell.errors import SwellError
from swell.state.records import UsageFilter

PAGE_ROWS = 2_000
REQUEST_SECONDS = 60.0
MAX_PAUSE_SECONDS = 5.0


class ReviewLedger:
    """Asks over the admin socket. Raises SwellError where the server does not answer as it should: later it may."""

    def __init__(self, socket: Path, pause: Callable[[float], None] = time.sleep) -> None:
        transport = httpx.HTTPTransport(uds=str(socket))
        self._client = httpx.Client(
            transport=transport, base_url="http://swell", timeout=REQUEST_SECONDS, trust_env=False
        )
        self._pause = pause

    def usage(self, where: UsageFilter, limit: int) -> Any:
        """The newest requests that match, newest first."""
        begun = time.monotonic()
        try:
            response = self._client.post("/api/usage", content=msgspec.json.encode({"where": where, "limit": limit}))
        except httpx.TransportError as error:
            raise SwellError(f"the server did not answer when it was asked for its ledger ({error})") from error
        if response.is_error:
            raise SwellError(f"the server did not give its ledger: {response.text[:200]}")
        self._pause(min(time.monotonic() - begun, MAX_PAUSE_SECONDS))
        return msgspec.json.decode(response.content)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
