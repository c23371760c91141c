"""Reports from the ledger while the server runs: a long one keeps neither usage, leases nor keys from the store.

Where the store has a second way in, reports go that way, one after another on a thread of their own. Where it has none,
a long question is asked by days on the writer thread, and whatever else waits goes between them. Whoever asked and is
gone ends its report: a question that runs is interrupted, one that waits is dropped.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from swell.errors import AtCapacity
from swell.metering.questions import Answer, is_short, parts
from swell.ports.store import UsageReader, UsageReads, UsageStore
from swell.server.writer import Writer
from swell.state.records import UsageFilter
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

MAX_REPORTS = 16  # waiting or running; the admin API answers more requests than these at once
INTERRUPT_AGAIN_SECONDS = 0.1  # a question that had not begun when it was interrupted is interrupted then

_Result = TypeVar("_Result")


class LedgerDesk:
    """What the admin API asks of the ledger. `ingest` enters what gateway workers wrote."""

    def __init__(self, store: UsageStore, writer: Writer, ingest: Callable[[], Awaitable[None]]) -> None:
        self._store, self._writer, self._ingest = store, writer, ingest
        reader = store.reader()
        self._aside = None if reader is None else _Aside(reader)
        self._entering: set[asyncio.Future[None]] = set()

    async def read(self, read: Callable[[UsageReads], _Result]) -> _Result:
        """What `read` makes of the ledger up to now: one listing, or a look that is short."""
        await self._up_to_now()
        return await self._asked(read)

    async def groups(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        """`UsageStore.group_usage` up to now, of any time, however long."""
        await self._up_to_now()
        if self._aside is not None or is_short(where):
            return await self._asked(lambda reads: reads.group_usage(where, by, bucket))
        answer, span = Answer(by, bucket), await self._writer.call(self._store.usage_span)
        for part in parts(where, span):
            answer.add(await self._writer.call(lambda part=part: self._store.group_usage(part, by, bucket)))  # type: ignore[misc]
        return answer.groups()

    async def close(self) -> None:
        """End what is being read."""
        if self._aside is not None:
            await self._aside.close()

    async def _asked(self, read: Callable[[UsageReads], _Result]) -> _Result:
        if self._aside is not None:
            return await self._aside.call(read)
        return await self._writer.call(lambda: read(self._store))

    async def _up_to_now(self) -> None:
        # Whoever asked may be gone meanwhile; what was entered must be told to the budgets all the same.
        entering = asyncio.ensure_future(self._ingest())
        self._entering.add(entering)
        entering.add_done_callback(self._entering.discard)
        await asyncio.shield(entering)


class _Question:
    """One that was asked for the second way in, until it has ended or nobody waits for it any more."""

    def __init__(self) -> None:
        self.is_wanted = True
        self.ended = threading.Event()


class _Aside:
    """The second way in, on a thread of its own."""

    def __init__(self, reader: UsageReader) -> None:
        self._reader = reader
        self._thread = Writer(
            "reports", MAX_REPORTS, f"{MAX_REPORTS} reports are under way; ask again when some are done"
        )
        self._lock = threading.Lock()
        self._running: _Question | None = None

    async def call(self, read: Callable[[UsageReads], _Result]) -> _Result:
        """What `read` makes of it. Cancelled, it ends the question."""
        question = _Question()
        try:
            return await self._thread.call(lambda: self._answer(question, read))
        except asyncio.CancelledError:
            question.is_wanted = False
            await asyncio.to_thread(self._interrupt, question)
            raise

    async def close(self) -> None:
        """End the question that runs, and those that wait."""
        with self._lock:
            running = self._running
        if running is not None:
            await asyncio.to_thread(self._interrupt, running)
        await asyncio.to_thread(self._thread.close)
        self._reader.close()

    def _answer(self, question: _Question, read: Callable[[UsageReads], _Result]) -> _Result:
        with self._lock:
            self._running = question
        try:
            if not question.is_wanted:
                raise AtCapacity("nobody waits for this report any more", retry_after_seconds=0.0)
            return read(self._reader)
        finally:
            with self._lock:
                self._running = None
            question.ended.set()

    def _interrupt(self, question: _Question) -> None:
        """Until it has ended, since what was interrupted may not have reached the database yet."""
        while True:
            with self._lock:  # so that no other question begins meanwhile, and is hit
                if self._running is not question:
                    return
                self._reader.interrupt()
            question.ended.wait(INTERRUPT_AGAIN_SECONDS)
