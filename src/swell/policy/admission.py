"""The order in which waiting requests go out, live and simulated. Pure but for the queues, which hold what was put in.

Classes take weighted turns, and batch goes out where nobody else waits. Inside a class the earliest deadline is first.
A request's deadline is when its first token must be there. One whose deadline cannot be met any more, even if it went
out now, is demoted: it is served when nobody of its class who can still be served in time waits (or refused, where the
model says so). So an overload costs those who are lost anyway, not everybody behind them. Where the wait is bounded, a
demoted request gets turns again when half of what is left to it is over: nobody starves because others come later.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, TypeVar

from swell.policy.queueing import BATCH, PRIORITIES, WEIGHTS, next_class

Item = TypeVar("Item", bound=Hashable)

_Place = tuple[float, int, float, float, Item]  # deadline, sequence, needs, when it gets turns again, the request
_GONE_KEPT = 64  # places of requests that left, beyond as many as wait: cleared away together


class DeadlineQueue(Generic[Item]):
    """Waiting requests of one class. Equal deadlines keep the order of arrival."""

    __slots__ = ("_late", "_late_is_next", "_on_time", "_places", "_sequence")

    def __init__(self) -> None:
        self._on_time: list[_Place[Item]] = []
        self._late: deque[_Place[Item]] = deque()
        self._late_is_next = False  # of those that get turns again, and those on time
        self._places: dict[Item, _Place[Item]] = {}  # who waits; a place that is not here is left over
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Item]:
        """Who waits, in no order."""
        return iter(self._places)

    def push(self, item: Item, deadline: float, needs: float = 0.0, gives_up_at: float = inf) -> None:
        """Add a request that takes at least `needs` seconds from going out to its first token.

        At `gives_up_at` its caller will take it out again.
        """
        self._sequence += 1
        place = (deadline, self._sequence, needs, (deadline + gives_up_at) / 2, item)
        self._places[item] = place
        heappush(self._on_time, place)

    def remove(self, item: Item) -> bool:
        """Take a request out. False where it does not wait here."""
        if self._places.pop(item, None) is None:
            return False
        if len(self._on_time) + len(self._late) > 2 * len(self._places) + _GONE_KEPT:
            self._on_time = [place for place in self._on_time if self._waits(place)]
            heapify(self._on_time)
            self._late = deque(place for place in self._late if self._waits(place))
        return True

    def take(self, now: float, goes_out: Callable[[Item], bool] | None = None) -> Item | None:
        """The next to go out, and out of the queue; None where nobody waits, or nobody may go.

        A request for which `goes_out` is False keeps its place, and the one behind it is asked.
        """
        passed_over: list[tuple[_Place[Item], bool]] = []
        taken: Item | None = None
        while taken is None and (place := self._next(now)) is not None:
            item = place[4]
            is_late = now + place[2] > place[0]
            del self._places[item]
            if goes_out is None or goes_out(item):
                self._late_is_next = not is_late
                taken = item
            else:
                self._places[item] = place
                passed_over.append((place, is_late))
        for place, is_late in reversed(passed_over):
            if is_late:
                self._late.appendleft(place)
            else:
                heappush(self._on_time, place)
        return taken

    def late(self, now: float) -> list[Item]:
        """Who cannot be served in time any more; they wait on until they are taken out."""
        self._demote(now)
        return [place[4] for place in self._late if self._waits(place)]

    def _next(self, now: float) -> _Place[Item] | None:
        self._demote(now)
        late = self._late
        while late and not self._waits(late[0]):
            late.popleft()
        if late and (not self._on_time or (self._late_is_next and late[0][3] <= now)):
            return late.popleft()
        return heappop(self._on_time) if self._on_time else None

    def _demote(self, now: float) -> None:
        """Whoever is first but cannot be served in time any more goes to the end; who left is dropped."""
        on_time = self._on_time
        while on_time and (now + on_time[0][2] > on_time[0][0] or not self._waits(on_time[0])):
            place = heappop(on_time)
            if self._waits(place):
                self._late.append(place)

    def _waits(self, place: _Place[Item]) -> bool:
        return self._places.get(place[4]) is place


class AdmissionQueue(Generic[Item]):
    """Waiting requests of all classes."""

    __slots__ = ("_counts", "_level", "_queues", "_served", "_size")

    def __init__(self) -> None:
        self._queues: dict[str, DeadlineQueue[Item]] = {name: DeadlineQueue() for name in PRIORITIES}
        self._counts = dict.fromkeys(PRIORITIES, 0)
        self._served = dict.fromkeys(WEIGHTS, 0.0)  # turns taken while somebody waits; see `_joins`
        self._level = 0.0  # turns per weight of the class that was served last, before that turn
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Item]:
        """Who waits, in no order."""
        for queue in self._queues.values():
            yield from queue

    def waiting(self, priority: str) -> int:
        """How many of a class wait."""
        return self._counts[priority]

    def push(
        self, item: Item, deadline: float, needs: float = 0.0, *, priority: str = "standard", gives_up_at: float = inf
    ) -> None:
        """Add a request that does not wait yet; as `DeadlineQueue.push`.

        Batch is promised no time, so it waits in order of arrival.
        """
        if not self._counts[priority]:
            self._joins(priority)
        self._queues[priority].push(item, inf if priority == BATCH else deadline, needs, gives_up_at)
        self._counts[priority] += 1
        self._size += 1

    def remove(self, item: Item) -> bool:
        """Take a request out. False where it does not wait."""
        for name, queue in self._queues.items():
            if queue.remove(item):
                self._leaves(name)
                return True
        return False

    def take(self, now: float, goes_out: Callable[[Item], bool] | None = None) -> Item | None:
        """The next to go out, and out of the queue; None where nobody waits, or nobody may go.

        A request for which `goes_out` is False keeps its place, and the one behind it is asked. While it is asked it is
        not in the queue, and `goes_out` may push and remove others, but not take.
        """
        counts = self._counts
        while (name := next_class(counts, self._served)) is not None:
            taken = self._take_of(name, now, goes_out)
            if taken is not None:
                return taken
            counts = {**counts, name: 0}  # everybody in that class waits for something else
        return None

    def _take_of(self, name: str, now: float, goes_out: Callable[[Item], bool] | None) -> Item | None:
        def ask(item: Item) -> bool:
            self._leaves(name)
            if goes_out is None or goes_out(item):
                return True
            self._counts[name] += 1
            self._size += 1
            return False

        taken = self._queues[name].take(now, ask)
        if taken is not None and self._size and name in WEIGHTS:
            self._level = self._served[name] / WEIGHTS[name]
            self._served[name] += 1
        return taken

    def late(self, now: float) -> list[Item]:
        """Who cannot be served in time any more; they wait on until they are taken out."""
        return [item for queue in self._queues.values() for item in queue.late(now)]

    def _joins(self, name: str) -> None:
        """A class in which nobody waited has no claim on the turns that others took meanwhile.

        Worked numbers: interactive has had 81 turns of its weight 8 when standard comes, so standard begins as if it
        had had 40 of its weight 4; without that the next 41 turns would all be standard's. (The start tags of
        start-time fair queueing, Goyal, Vin and Cheng 1996.)
        """
        if name in WEIGHTS:
            self._served[name] = max(self._served[name], self._level * WEIGHTS[name])

    def _leaves(self, name: str) -> None:
        self._counts[name] -= 1
        self._size -= 1
        if not self._size:
            self._served = dict.fromkeys(WEIGHTS, 0.0)
            self._level = 0.0
