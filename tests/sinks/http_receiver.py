"""An HTTP server on loopback that answers as it is told and keeps what it was sent."""

import asyncio
import contextlib
import ssl
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType

PIECE = b"x" * 65_536


@dataclass(frozen=True)
class Posted:
    """One request."""

    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What to answer. `way`: whole, hang (no answer), close (early), drip (a head that never ends), endless (body)."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    way: str = "whole"


class HttpReceiver:
    """Answers `answer`, or what `next` holds first. Open it with `async with`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.answer = Answer()
        self.next: deque[Answer] = deque()
        self.posted: list[Posted] = []
        self.taken: list[Posted] = []
        self.heard = asyncio.Event()
        self.open_connections = 0
        self.bytes_sent = 0
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "HttpReceiver":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open_connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._answer_one(reader, writer)
        finally:
            self.open_connections -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        posted = Posted(first.split(" ")[1], headers, body)
        self.posted.append(posted)
        self.heard.set()
        answer = self.next.popleft() if self.next else self.answer
        if answer.way == "hang":
            await reader.read()  # returns when the other side hangs up
        elif answer.way == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not reader.at_eof():
                writer.write(b"x: y\r\n")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.02)
        elif answer.way != "close":
            if 200 <= answer.status < 300:
                self.taken.append(posted)
            await self._write(writer, answer)

    async def _write(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        endless = answer.way == "endless"
        length = {"content-length": str(10**12 if endless else len(answer.body))}
        lines = [f"HTTP/1.1 {answer.status} Said", *(f"{k}: {v}" for k, v in {**length, **answer.headers}.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + answer.body)
        await writer.drain()
        while endless:
            writer.write(PIECE)
            self.bytes_sent += len(PIECE)
            await writer.drain()
