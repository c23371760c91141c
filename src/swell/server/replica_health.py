"""The one plain port of a replica whose port wants certificates: kubelets have none to show.

It answers GET of the engine's health path with the engine's status and no body, and everything else with 404: nothing
of what the engine knows comes out here.
"""

import asyncio
from contextlib import suppress

MAX_ASKING = 16  # at once, of whom the oldest that has not asked yet makes room; where all have, nobody more is taken
MAX_HEAD_BYTES = 8 * 1024
ANSWER_SECONDS = 5.0  # in all, for one who asks
UNAVAILABLE, NOT_FOUND = 503, 404


class HealthPort:
    """Asks the engine at `engine` for `path`, once for everybody who asks for it here."""

    def __init__(self, engine: tuple[str, int], path: str) -> None:
        self._engine = engine
        self._path = path.encode()
        self._server: asyncio.Server | None = None
        self._asking: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._silent: dict[asyncio.Task[None], None] = {}  # of them, who has not asked yet; oldest first
        self._question: asyncio.Task[int] | None = None  # to the engine, for everybody who asks meanwhile

    async def open(self, host: str, port: int) -> None:
        """Listen. Raises OSError where the port cannot be had."""
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_HEAD_BYTES)

    @property
    def port(self) -> int:
        """Where it listens, once it does."""
        assert self._server is not None  # noqa: S101  see the contract
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
        for task in self._asking:
            task.cancel()
        if self._question is not None:
            self._question.cancel()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._asking) >= MAX_ASKING:
            oldest = next(iter(self._silent), None)
            if oldest is None:
                writer.close()
                return
            self._forget(oldest)
            oldest.cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._asking[task], self._silent[task] = writer, None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Also of one that was cancelled before it began, and so closes nothing itself."""
        self._silent.pop(task, None)
        writer = self._asking.pop(task, None)
        if writer is not None:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  it is one
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):  # it left, or is no HTTP
            async with asyncio.timeout(ANSWER_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                self._silent.pop(task, None)
                words = head.partition(b"\r\n")[0].split(b" ")
                asked = len(words) == 3 and words[0] == b"GET" and words[1] == self._path
                _answer(writer, await self._status() if asked else NOT_FOUND)
                await writer.drain()

    async def _status(self) -> int:
        """What the engine answers to one question for everybody who asks at the time."""
        if self._question is None or self._question.done():
            self._question = asyncio.get_running_loop().create_task(self._ask())
        return await asyncio.shield(self._question)

    async def _ask(self) -> int:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._put_question()
        except TimeoutError:
            return UNAVAILABLE

    async def _put_question(self) -> int:
        """The engine's status; UNAVAILABLE where it does not answer."""
        host, port = self._engine
        try:
            reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
        except OSError:
            return UNAVAILABLE
        try:
            writer.write(
                b"GET %b HTTP/1.1\r\nhost: %b:%d\r\nconnection: close\r\n\r\n" % (self._path, host.encode(), port)
            )
            line = await reader.readuntil(b"\r\n")
            status = line.split(b" ")[1]
            return int(status) if status.isdigit() and len(status) == 3 else UNAVAILABLE
        except (OSError, EOFError, asyncio.LimitOverrunError, IndexError):
            return UNAVAILABLE
        finally:
            writer.close()


def _answer(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(b"HTTP/1.1 %d Health\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
