"""The budgets of a running server: which limits hold now, the book of them, and what of it is stored.

Order makes it safe. A lease is stored before its grant is sent. A worker's leases are ended on the thread that stores,
after its spool is in the ledger, and what is stored for it later is dropped: so an ended worker leaves no lease.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from swell.clock import Clock
from swell.errors import SwellError
from swell.metering.accounts import Standing
from swell.metering.budgets import BudgetBook
from swell.metering.ingest import Ingested
from swell.ports.store import Store
from swell.server.budget_limits import changes_at, limits_at
from swell.server.stages import Stages
from swell.server.writer import Writer
from swell.spec import Spec
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.records import KeyRecord

TURN_SECONDS = 1.0  # between two looks at whether a period or a raise has ended
KEPT_SECONDS = 400 * 86_400.0  # what is known of limits whose period has ended

_log = logging.getLogger(__name__)


class BudgetDesk:
    """Made once per server. Everything is called on the event loop but what says that it is not."""

    def __init__(
        self,
        spec: Spec,
        store: Store,
        writer: Writer,
        clock: Clock,
        keys: Callable[[], Sequence[KeyRecord]] = tuple,
        *,
        is_shared: bool = False,
    ) -> None:
        """`is_shared`: other servers' workers write spools elsewhere."""
        self._is_shared = is_shared
        self._spec = spec
        self._store = store
        self._writer = writer
        self._clock = clock
        self._keys = keys
        self._saving = asyncio.Lock()
        self._refreshing = asyncio.Lock()
        self._refreshed_unix = 0.0
        self._changes_unix = math.inf  # when the limits will be others than now
        self._settled: set[str] = set()  # on the writer's thread: workers whose leases were ended
        self._finished: list[str] = []  # there too: whose spools are finished and whose leases are not ended yet
        self.book = BudgetBook()
        self.stages = Stages(spec)
        self.limits: tuple[BudgetLimit, ...] = ()

    async def begin(self, spools: Path, living: Collection[str]) -> None:
        """Read what is leased. Ended workers whose spools are gone have all that they did in the ledger."""
        leases = await self._writer.call(self._store.list_leases)
        self.book = BudgetBook(leases)
        gone = {lease.incarnation for lease in leases} - set(living)
        # What another server's worker was leased is spent until its spool is read, by whoever has the spool.
        ended = [] if self._is_shared else [each for each in sorted(gone) if not (spools / each).is_dir()]
        self.book_ends(await self._writer.call(lambda: self.end(ended)))

    @property
    def is_due(self) -> bool:
        """Whether by now a period or a raise has ended, or begun, or the clock was set back."""
        return not self._refreshed_unix <= self._clock.unix() < self._changes_unix

    async def has_new(self) -> bool:
        """Whether there are limits of which the book must be told what is spent."""
        return bool(self.book.unknown((await self._wanted())[0]))

    async def refresh(self) -> bool:
        """Bring the limits up to now; whether they changed. New ones begin with what the ledger has of their period."""
        async with self._refreshing:  # who comes second knows of what has changed meanwhile
            return await self._refresh()

    async def _wanted(self) -> tuple[tuple[BudgetLimit, ...], float]:
        """The limits that shall hold now, and when that changes."""
        now = self._clock.unix()
        overrides = await self._writer.call(lambda: self._store.overrides_in_force(now))
        limits = limits_at(self._spec, now, self._keys(), overrides)
        return limits, changes_at(limits, overrides, now)

    async def _refresh(self) -> bool:
        now = self._clock.unix()
        limits, changes = await self._wanted()
        self.stages.know(self._keys(), now)
        new = self.book.unknown(limits)
        spends = await self._writer.call(lambda: self._store.open_budgets(new)) if new else []
        self.book.set_limits(limits, {spend.limit: spend.spent_usd_nanos for spend in spends})
        if new:
            before = int((self._clock.unix() - KEPT_SECONDS) * 1000)
            slots = {limit.budget_id: limit.start_unix_ms - 2 * limit.window_ms for limit in new if limit.window_ms}
            await self._writer.call(lambda: self._store.forget_budgets(before, slots))
        changed, self.limits = limits != self.limits, limits
        self._refreshed_unix, self._changes_unix = now, changes
        return changed

    def look(self) -> bool:
        """Decide which steps of budgets hold; whether that changed what workers are to know."""
        now = self._clock.unix()
        return self.stages.look(self.book.standings(now, self.stages.budget_ids), now)

    def standings(self) -> list[Standing]:
        """What has become of every limit by now."""
        return self.book.standings(self._clock.unix())

    async def save(self) -> None:
        """Store every lease that differs from what is stored. Raises SwellError where that failed.

        One at a time: who comes second finds marked again what the first could not store, and tries it too.
        """
        async with self._saving:
            leases = self.book.unsaved()
            if not leases:
                return
            try:
                await self._writer.call(lambda: self._put(leases))
            except BaseException:
                self.book.mark_unsaved(leases)
                raise

    def end(self, finished: Sequence[str]) -> list[tuple[str, list[BudgetSpend]]]:
        """On the writer's thread: end the leases of workers whose spools are finished. What fails is tried again."""
        self._finished += finished
        ended = []
        while self._finished:
            incarnation = self._finished[0]
            try:
                spends = self._store.settle_leases(incarnation)
            except SwellError:
                _log.exception("a worker's leases could not be ended yet", extra={"incarnation": incarnation})
                break
            self._settled.add(incarnation)
            del self._finished[0]
            ended.append((incarnation, spends))
        return ended

    def book_ends(self, ended: Sequence[tuple[str, list[BudgetSpend]]]) -> None:
        """Tell the book."""
        for incarnation, spends in ended:
            self.book.settled(incarnation, spends)

    async def ingested(self, done: Ingested) -> None:
        """After the spools were read: end the leases of those that are finished."""
        if done.finished:
            self.book_ends(await self._writer.call(lambda: self.end(done.finished)))

    def _put(self, leases: Sequence[BudgetLease]) -> None:
        self._store.put_leases([lease for lease in leases if lease.incarnation not in self._settled])
