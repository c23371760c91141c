"""What budgets' scopes spent in each of the last hours, for forecasts.

Two weeks of a busy ledger take long to add up, and everything else waits for the thread that does it. So hours that are
over are read once and kept, and what must be read is read in pieces, between which others have their turn.
"""

from array import array
from dataclasses import dataclass

from swell.metering.thresholds import MOST_HOURS
from swell.ports.store import Store
from swell.server.writer import Writer
from swell.state.budgets import BudgetLimit

HOUR_MS = 3_600_000
PIECE_HOURS = 6  # added up without giving way


@dataclass(slots=True)
class _Settled:
    """Hours whose requests have ended, so that their sums stay."""

    first_unix_ms: int
    hours: "array[int]"

    @property
    def end_unix_ms(self) -> int:
        return self.first_unix_ms + len(self.hours) * HOUR_MS


class SpendHistory:
    """Remembers a few kilobytes per budget that was asked about."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._settled: dict[str, _Settled] = {}  # by budget_id, over its periods

    async def hours(self, limit: BudgetLimit, now_unix: float) -> list[int]:
        """Nano-dollars in each hour up to the running one, which is the last, oldest first, counted from the period's
        start on and back. Hours before the first that has any are left out: there may have been nobody to spend."""
        since_start = int(now_unix * 1000) - limit.start_unix_ms
        running = limit.start_unix_ms + since_start // HOUR_MS * HOUR_MS
        settled = self._kept(limit.budget_id, running)
        recent: list[int] = []
        while (begin := settled.end_unix_ms + len(recent) * HOUR_MS) <= running:
            recent += await self._read(limit, begin, min(PIECE_HOURS, (running - begin) // HOUR_MS + 1))
        hours = [*settled.hours, *recent]
        settled.hours.extend(recent[:-2])  # what ran in the hour before last may still be at its bound
        self._settled[limit.budget_id] = settled
        first = next((index for index, spent in enumerate(hours) if spent), len(hours) - 1)
        return hours[first:]

    def keep(self, budget_ids: set[str]) -> None:
        """Forget all others."""
        self._settled = {budget_id: known for budget_id, known in self._settled.items() if budget_id in budget_ids}

    def _kept(self, budget_id: str, running_unix_ms: int) -> _Settled:
        first = running_unix_ms - MOST_HOURS * HOUR_MS
        known = self._settled.get(budget_id)
        if known is None or known.end_unix_ms < first or known.end_unix_ms > running_unix_ms - HOUR_MS:
            return _Settled(first, array("q"))  # also where the clock was set back
        if (known.first_unix_ms - first) % HOUR_MS:  # a zone's offset changed by part of an hour
            return _Settled(first, array("q"))
        drop = max(0, first - known.first_unix_ms) // HOUR_MS
        return _Settled(known.first_unix_ms + drop * HOUR_MS, known.hours[drop:])

    async def _read(self, limit: BudgetLimit, begin_unix_ms: int, hours: int) -> list[int]:
        return await self._writer.call(lambda: self._store.hourly_spend(limit, begin_unix_ms, hours))
