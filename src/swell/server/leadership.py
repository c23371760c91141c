"""Whether this server leads: of several over one store the one that has it decides, and the others wait (RFC 7).

The store's lock ends with a connection, and a server cannot know at once that another one has it now. What it starts it
stores before, which a store that is another's refuses. Before it changes anything else that outlives it (a scale, a
Pod, a container) it asks the store whether it is its own still, and acts by an answer for HELD_SECONDS at most. While
nobody can tell, because the database is away, nothing is changed.
"""

import logging
from collections.abc import Callable

from swell.clock import Clock
from swell.errors import AtCapacity, StoreLost, SwellError
from swell.ports.store import Store
from swell.server.loops import Loop
from swell.server.writer import Writer

LOOK_SECONDS = 1.0  # between two looks whether it still leads
HELD_SECONDS = 1.0  # for which an answer is good

_log = logging.getLogger(__name__)


class Leadership:
    """Of a server over `store`, from when it has it. `lost` is called once, when another server has used it.

    A server that is alone leads without being asked.
    """

    def __init__(
        self, store: Store, writer: Writer, clock: Clock, lost: Callable[[], None], *, is_shared: bool
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._lost = lost
        self._is_alone = not is_shared
        self._is_lost = False
        self._confirmed_at: float | None = None
        self._doubt = ""
        self.loops = [Loop("leadership", self._step, LOOK_SECONDS, clock)] if is_shared else []

    async def confirm(self) -> None:
        """`swell.ports.provider.Confirm`."""
        now = self._clock.monotonic()
        is_held = self._confirmed_at is not None and now - self._confirmed_at < HELD_SECONDS
        if self._is_alone or (is_held and not self._is_lost):
            return
        try:
            if self._is_lost:
                raise StoreLost("another server leads")
            await self._writer.call(self._store.confirm)
        except SwellError as error:
            if isinstance(error, StoreLost):
                self._lose()
            raise AtCapacity(
                f"it is not sure that this server leads: {error}", retry_after_seconds=LOOK_SECONDS
            ) from error
        self._confirmed_at = now  # when it was asked: it may be another's by when the answer is here

    async def _step(self, now: float) -> None:
        try:
            await self.confirm()
        except AtCapacity as error:
            if not self._doubt and not self._is_lost:
                _log.warning("nothing is stopped until this is known again", extra={"reason": str(error)})
            self._doubt = str(error)
            return
        if self._doubt:
            _log.info("this server leads, as before")
        self._doubt = ""

    def _lose(self) -> None:
        if not self._is_lost:
            self._is_lost = True
            self._lost()
