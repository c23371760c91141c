"""The second way to the ledger of the store in memory, which stops in the middle of a read when told to."""

import threading
from collections.abc import Sequence

from swell.errors import AtCapacity
from swell.ports.store import UsageReads
from swell.state.records import UsageFilter, UsageRecord, UsageTotal
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

MOST_SECONDS = 20.0  # that a read stands still, whatever a test forgets


class MemoryReader:
    """`swell.ports.store.UsageReader` over what another store reads.

    While `go_on` is not set each read stands still, `is_reading` being set, until it is or the read is interrupted.
    """

    def __init__(self, reads: UsageReads) -> None:
        self._reads = reads
        self.go_on, self.is_reading = threading.Event(), threading.Event()
        self.go_on.set()
        self.interrupts = 0
        self.is_closed = False
        self._ends = False

    def list_usage(self, where: UsageFilter, limit: int) -> list[UsageRecord]:
        self._stand()
        return self._reads.list_usage(where, limit)

    def total_usage(self, where: UsageFilter) -> list[UsageTotal]:
        self._stand()
        return self._reads.total_usage(where)

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        self._stand()
        return self._reads.group_usage(where, by, bucket)

    def usage_span(self) -> tuple[int, int] | None:
        self._stand()
        return self._reads.usage_span()

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.is_reading.is_set():
            self._ends = True
            self.go_on.set()

    def close(self) -> None:
        self.is_closed = True

    def _stand(self) -> None:
        self.is_reading.set()
        stood = self.go_on.wait(MOST_SECONDS)
        self.is_reading.clear()
        ends, self._ends = self._ends, False
        if ends or not stood:
            raise AtCapacity("the report was ended before it was done; ask again", retry_after_seconds=0.0)
