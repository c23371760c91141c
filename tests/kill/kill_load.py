"""Seeded load from clients that speak HTTP themselves, so that every byte and every end is accounted for."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from kill_asks import CHAT, Ask, End, Outcome, draw

ANSWER_SECONDS = 45.0
RETRY_SECONDS = 0.05  # a client that found nobody to connect to
_REUSED_SHARE = 0.7


class Meter:
    """Counts what has been seen of a run, and acts in the very moment in which a count is reached."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._armed: list[tuple[str, int, Callable[[], None], asyncio.Future[None]]] = []

    def add(self, measure: str, amount: int = 1) -> None:
        self.counts[measure] += amount
        for entry in [entry for entry in self._armed if entry[0] == measure and entry[1] <= self.counts[measure]]:
            self._armed.remove(entry)
            entry[2]()
            if not entry[3].done():
                entry[3].set_result(None)

    def reach(self, measure: str, more: int, action: Callable[[], None] = lambda: None) -> "asyncio.Future[None]":
        """Done once `more` of `measure` have been seen from now on, after `action` was called."""
        reached = asyncio.get_running_loop().create_future()
        self._armed.append((measure, self.counts[measure] + more, action, reached))
        return reached


class Load:
    """Clients in the running loop, each with dice of its own. `keys` are dealt out in turn."""

    def __init__(self, port: int, keys: Sequence[str], seed: int, clients: int, meter: Meter) -> None:
        self.outcomes: list[Outcome] = []
        self._port = port
        self._meter = meter
        self._stop = asyncio.Event()
        self._tasks = [
            asyncio.create_task(self._client(keys[number % len(keys)], random.Random(f"{seed}/{number}")))
            for number in range(clients)
        ]

    async def stop(self) -> None:
        """Let every client finish what it asked."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, key: str, dice: random.Random) -> None:
        connection: Connection | None = None
        while not self._stop.is_set():
            ask = draw(dice, key)
            if connection is None or connection.is_closed or dice.random() > _REUSED_SHARE:
                if connection is not None:
                    connection.close()
                connection = Connection(self._port, self._meter)
            outcome = await connection.ask(ask)
            self.outcomes.append(outcome)
            self._meter.add(outcome.end)
            if outcome.end is End.UNREACHABLE or outcome.status in (429, 503):
                await self._pause()
        if connection is not None:
            connection.close()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self._stop.wait()
        except TimeoutError:
            return


class Connection:
    """One HTTP connection, made with the first ask. Meters requests as `sent` and what arrives as `bytes`."""

    def __init__(self, port: int, meter: Meter) -> None:
        self._port = port
        self._meter = meter
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True
        if self._writer is not None:
            self._writer.transport.abort()

    async def ask(self, ask: Ask) -> Outcome:
        """Send and read to the end, whatever it is."""
        outcome = Outcome(ask)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._exchange(ask, outcome)
        except TimeoutError:
            outcome.end = End.HUNG
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            outcome.end = End.UNREACHABLE if self._writer is None else End.BROKEN
        if outcome.end in (End.HUNG, End.BROKEN, End.LEFT, End.UNREACHABLE):
            self.close()
        return outcome

    async def _exchange(self, ask: Ask, outcome: Outcome) -> None:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(ask.encode())
        self._meter.add("sent")
        headers = await self._read_head(outcome)
        if "chunked" in headers.get("transfer-encoding", ""):
            await self._read_events(outcome)
        else:
            self._read_document(await self._read(int(headers["content-length"])), outcome)
        if headers.get("connection") == "close":
            self.close()

    async def _read(self, size: int) -> bytes:
        assert self._reader is not None
        data = await self._reader.readexactly(size)
        self._meter.add("bytes", size)
        return data

    async def _read_head(self, outcome: Outcome) -> dict[str, str]:
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self._meter.add("bytes", len(head))
        first, *lines = head.strip().split("\r\n")
        outcome.status = int(first.split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        outcome.request_id = headers.get("x-request-id", "")
        return headers

    def _read_document(self, body: bytes, outcome: Outcome) -> None:
        document = json.loads(body)
        if outcome.status != 200:
            outcome.end = End.REFUSED
            outcome.code = str(document["error"].get("code"))
            return
        outcome.end = End.COMPLETE
        outcome.usage = _usage(document)

    async def _read_events(self, outcome: Outcome) -> None:
        assert self._reader is not None
        pending = b""
        while True:
            if outcome.ask.leave_after is not None and outcome.content_events >= outcome.ask.leave_after:
                outcome.end = End.LEFT
                return
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            payload = (await self._read(size + 2))[:-2]
            if not size:
                break
            *events, pending = (pending + payload).split(b"\n\n")
            for event in events:
                _read_event(event, outcome)
        assert not pending, f"half an event before the end of a stream: {pending!r}"
        if outcome.end is not End.ERROR_EVENT:
            assert outcome.code == "[DONE]", f"a stream ended as if it were complete, and is not: {outcome}"
            outcome.end = End.COMPLETE


def _read_event(event: bytes, outcome: Outcome) -> None:
    data = event.removeprefix(b"data: ")
    if data == b"[DONE]":
        if outcome.end is not End.ERROR_EVENT:
            outcome.code = "[DONE]"
        return
    document = json.loads(data)
    if "error" in document:
        outcome.end, outcome.code = End.ERROR_EVENT, str(document["error"].get("code"))
        return
    for choice in document["choices"]:
        text = choice["delta"].get("content") if outcome.ask.path == CHAT else choice["text"]
        outcome.content_events += bool(text)
    if document.get("usage"):
        outcome.usage = _usage(document)


def _usage(document: dict[str, Any]) -> tuple[int, int]:
    usage = document["usage"]
    return usage["prompt_tokens"], usage.get("completion_tokens", 0)
