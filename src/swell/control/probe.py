"""Asking health paths, many at once and never more than one at a time per child."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx  # late: it takes longer to load than all of the fleet, and a server need not wait for it

PROBE_TIMEOUT_SECONDS = 2.0
MAX_PROBES = 32  # at once
MAX_ANSWER_BYTES = 64 * 1024
PATIENCE_SECONDS = 0.05  # what a step waits for answers; later ones count in a later step


@dataclass(frozen=True)
class Answer:
    """What came back: a status, or why there is none."""

    status: int | None
    problem: str = ""


Ask = Callable[[str, str], Awaitable[Answer]]
"""Asks a URL, with a key where it is not empty; answers within PROBE_TIMEOUT_SECONDS and never raises."""


class HttpAsk:
    """Asks over HTTP. Follows no redirects and uses no proxy: the answer must be the engine's own."""

    def __init__(self) -> None:
        self._made: httpx.AsyncClient | None = None

    def _client(self) -> "httpx.AsyncClient":
        """Made on first use."""
        import httpx

        if self._made is None:
            self._made = httpx.AsyncClient(
                timeout=PROBE_TIMEOUT_SECONDS,
                follow_redirects=False,
                trust_env=False,
                limits=httpx.Limits(max_connections=MAX_PROBES, max_keepalive_connections=0),
            )
        return self._made

    async def __call__(self, url: str, key: str) -> Answer:
        import httpx

        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            async with (
                asyncio.timeout(PROBE_TIMEOUT_SECONDS),
                self._client().stream("GET", url, headers=headers) as response,
            ):
                return Answer(response.status_code)  # the body is left unread: only the status counts
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return Answer(None, f"{type(error).__name__}: {error}".rstrip(": "))

    async def close(self) -> None:
        """Close its connections."""
        if self._made is not None:
            await self._made.aclose()


class Prober:
    """Keeps probes running beside the steps, so that an endpoint that hangs delays nobody."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._running: dict[str, asyncio.Task[Answer]] = {}

    def request(self, child_id: str, url: str, key: str) -> bool:
        """Begin to ask on behalf of a child, unless that is under way or too many others are."""
        if child_id in self._running or len(self._running) >= MAX_PROBES:
            return False
        self._running[child_id] = asyncio.ensure_future(self._ask(url, key))
        return True

    async def collect(self, patience_seconds: float = PATIENCE_SECONDS) -> dict[str, Answer]:
        """The answers that are there, or come within `patience_seconds`; each is handed out once."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=patience_seconds)
        done = {child_id: task for child_id, task in self._running.items() if task.done()}
        for child_id in done:
            del self._running[child_id]
        return {child_id: task.result() for child_id, task in done.items()}

    async def close(self) -> None:
        """Stop asking."""
        tasks = list(self._running.values())
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
