"""From the workers' spools into the ledger, a bounded piece at a time."""

from collections.abc import Awaitable, Callable

from swell.clock import Clock
from swell.metering.ingest import Ingested, SpoolReader
from swell.server.loops import Loop
from swell.server.writer import Writer

INGEST_SECONDS = 0.25
MAX_INGEST_TURNS = 200  # before an answer or an end, so that neither waits for ever


class Intake:
    """Reads spools on the writer thread. `ingested` is told of each piece that the ledger has taken."""

    def __init__(
        self,
        reader: SpoolReader,
        writer: Writer,
        clock: Clock,
        ingested: Callable[[Ingested], Awaitable[None]],
        elsewhere: Callable[[], Awaitable[None]],
    ) -> None:
        """`elsewhere` has entered what workers on other machines wrote by now."""
        self._reader = reader
        self._writer = writer
        self._ingested = ingested
        self._elsewhere = elsewhere
        self.loop = Loop("ingest", self._step, INGEST_SECONDS, clock)

    async def everything(self) -> None:
        """What the workers have written by now; of this machine in at most MAX_INGEST_TURNS pieces."""
        await self._elsewhere()
        for _ in range(MAX_INGEST_TURNS):
            if not (await self._once()).folders_with_more:
                return

    async def _step(self, now: float) -> None:
        if (await self._once()).folders_with_more:
            self.loop.wake.set()

    async def _once(self) -> Ingested:
        done = await self._writer.call(self._reader.step)
        await self._ingested(done)
        return done
