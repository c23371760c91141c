"""How many replicas each model shall have, for who asks or waits: what scaling has ordered, or the file fixed."""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from swell.control.fleet import Fleet
from swell.control.workload import GATEWAY_WORKER, by_model


class DesiredCounts:
    """Made once per server. `look` is to be called whenever a number may have changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._known: Mapping[str, int] = {}
        self._waiting: set[asyncio.Event] = set()

    def all(self) -> dict[str, int]:
        """Of every model, over all kinds of machines that its replicas run on."""
        models = by_model(each for each in self._fleet.workloads if each.kind != GATEWAY_WORKER)
        return {name: workload.count for name, workload in models.items()}

    def look(self) -> None:
        """Wake who waits for a change, if there is one."""
        now = self.all()
        if now != self._known:
            self._known = now
            for each in self._waiting:
                each.set()

    async def follow(self, model: str) -> AsyncGenerator[int, None]:
        """The number of `model` now, and again after every change; one that changes twice at once is told once.

        Ends when there is no such model any more.
        """
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            told: int | None = None
            while True:
                count = self.all().get(model)
                if count is None:
                    return
                if count != told:
                    told = count
                    yield count
                await changed.wait()
                changed.clear()
        finally:
            self._waiting.discard(changed)
