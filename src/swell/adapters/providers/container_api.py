"""The Docker API over a Unix socket, as dockerd and podman speak it: bounded calls, streams, and errors in our words.

Paths carry no version: the daemon then speaks its own, and everything used here has been the same since 1.24. Bodies
hold secrets (a container's environment), so neither they nor answers are ever logged or put into a message whole.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from swell.errors import AtCapacity, LaunchFailed
from swell.ports.provider import Confirm, unquestioned

CONNECT_SECONDS = 2.0
CALL_SECONDS = 20.0  # a container is created in 0.2 s and started in 0.5 s on a quiet machine
AWAY_SECONDS = 5.0  # after a daemon did not answer, until it is asked again
MAX_CONNECTIONS = 1024  # each container's log is one
MAX_LINE_BYTES = 1024 * 1024  # of an event or a line of progress
MAX_MESSAGE_LENGTH = 500  # characters of what the daemon says
_NO_ROOM = ("no space left", "cannot allocate memory", "resource temporarily unavailable", "all predefined address")

Params = Mapping[str, str]


class RefusedError(Exception):
    """The daemon's answer was an error: its HTTP status and its own sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class DockerApi:
    """A daemon behind `socket`. All raise AtCapacity where it does not answer, RefusedError where it says no."""

    def __init__(self, socket: Path, confirm: Confirm = unquestioned) -> None:
        self._socket = socket
        self._confirm = confirm
        self._away_until = 0.0  # on the event loop's clock
        self._away = ""
        limits = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=8)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket), limits=limits),
            base_url="http://container-daemon",
            timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
        )

    async def call(self, method: str, path: str, params: Params | None = None, body: object = None) -> Any:
        """One call; what it answered, or None where that was nothing.

        Fails at once for AWAY_SECONDS after the daemon did not answer, so that no loop waits for it again and again.
        """
        if asyncio.get_running_loop().time() < self._away_until:
            raise self._at_capacity(self._away)
        if method != "GET":
            await self._confirm()
        try:
            async with asyncio.timeout(CALL_SECONDS + CONNECT_SECONDS):
                answer = await self._client.request(method, path, params=params, json=body)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._is_away(error) from error
        self._away_until = 0.0
        if answer.status_code >= 300 and answer.status_code != 304:
            raise RefusedError(answer.status_code, message_of(answer.content))
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, params: Params, *, silence_seconds: float | None
    ) -> AsyncGenerator[httpx.Response, None]:
        """An answer that goes on; `silence_seconds` is the longest wait for its next bytes (None: any)."""
        timeout = httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS, read=silence_seconds)
        try:
            async with self._client.stream(method, path, params=params, timeout=timeout) as answer:
                if answer.status_code >= 300:
                    raise RefusedError(answer.status_code, message_of(await answer.aread()))
                yield answer
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise self._is_away(error) from error
        except httpx.HTTPError as error:  # one stream that broke says nothing of the next call
            raise self._at_capacity(_why(error)) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    def heard(self) -> None:
        """The daemon answers again."""
        self._away_until = 0.0

    def _is_away(self, error: Exception) -> AtCapacity:
        self._away = _why(error)
        self._away_until = asyncio.get_running_loop().time() + AWAY_SECONDS
        return self._at_capacity(self._away)

    def _at_capacity(self, why: str) -> AtCapacity:
        return _at_capacity(self._socket, why)


def daemon_version(socket: Path) -> str:
    """Which daemon answers, such as `Docker Engine 28.2`. Waits; raises AtCapacity where none does."""
    transport = httpx.HTTPTransport(uds=str(socket))
    with httpx.Client(transport=transport, base_url="http://container-daemon", timeout=CONNECT_SECONDS) as client:
        try:
            told = client.get("/version").json()
        except (httpx.HTTPError, ValueError) as error:
            raise _at_capacity(socket, _why(error)) from error
    parts = told.get("Components") or [{"Name": "daemon", "Version": told.get("Version", "")}]
    return f"{parts[0].get('Name', 'daemon')} {parts[0].get('Version', '')}".strip()


def _at_capacity(socket: Path, why: str) -> AtCapacity:
    advice = "start it, or name its socket in providers[].socket"
    if "ermission" in why:
        advice = "let this user use it (for dockerd: a member of the group docker), or name another socket"
    return AtCapacity(
        f"the container daemon at {socket} does not answer ({why}); {advice}", retry_after_seconds=AWAY_SECONDS
    )


async def json_lines(answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """The objects of a stream, one a line. Lines that are too long or no object are left out."""
    rest = b""
    async for piece in answer.aiter_raw():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            try:
                value = json.loads(line) if line.strip() else None
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value
        if len(rest) > MAX_LINE_BYTES:
            rest = b""


def message_of(content: bytes) -> str:
    """The sentence in a daemon's error."""
    try:
        told = json.loads(content)
        text = str(told.get("message") or told.get("cause") or "") if isinstance(told, dict) else ""
    except ValueError:
        text = content.decode("utf-8", "replace")
    return " ".join(text.split())[:MAX_MESSAGE_LENGTH] or "it gives no reason"


def launch_error(refused: RefusedError, what: str, *, advice: str = "") -> AtCapacity | LaunchFailed:
    """What a refusal means for a start. `advice` ends the sentence where there is no lack of room."""
    if any(sign in refused.message.lower() for sign in _NO_ROOM):
        return AtCapacity(
            f"{what}: {refused.message}; free disk or memory of its machine", retry_after_seconds=AWAY_SECONDS
        )
    return LaunchFailed(f"{what}: {refused.message}{advice}")


def _why(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return "it takes too long"
    return str(error).partition("] ")[2] or str(error) or type(error).__name__
