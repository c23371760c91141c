"""The order in which waiting requests of one class go out: earliest deadline first, lost ones last. Pure but for the
queue itself, which holds what was put into it.

A request's deadline is when its first token must be there. One whose deadline cannot be met any more, even if it went
out now, is demoted: it is served when nobody who can still be served in time waits (or refused, where the model says
so). So an overload costs those who are lost anyway, not everybody behind them.
"""

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")


class DeadlineQueue(Generic[Item]):
    """Waiting requests. Equal deadlines keep the order of arrival."""

    __slots__ = ("_late", "_on_time", "_sequence")

    def __init__(self) -> None:
        self._on_time: list[tuple[float, int, float, Item]] = []
        self._late: deque[Item] = deque()
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._on_time) + len(self._late)

    def push(self, item: Item, deadline: float, needs: float) -> None:
        """Add a request that takes at least `needs` seconds from going out to its first token."""
        self._sequence += 1
        heappush(self._on_time, (deadline, self._sequence, needs, item))

    def pop(self, now: float) -> Item | None:
        """The next to go out, and out of the queue; None where nobody waits."""
        on_time = self._on_time
        while on_time:
            deadline, _, needs, item = heappop(on_time)
            if now + needs <= deadline:
                return item
            self._late.append(item)
        return self._late.popleft() if self._late else None

    def take_late(self, now: float) -> list[Item]:
        """Remove and return everybody who cannot be served in time any more, for a model that refuses them."""
        kept: list[tuple[float, int, float, Item]] = []
        for entry in self._on_time:
            if now + entry[2] <= entry[0]:
                kept.append(entry)
            else:
                self._late.append(entry[3])
        if len(kept) < len(self._on_time):
            heapify(kept)
            self._on_time = kept
        late, self._late = list(self._late), deque()
        return late
