"""How a server comes to its end: told to stop by a command or a signal, succeeded in its process, or ousted."""

import asyncio
import logging
import signal
from collections.abc import Callable
from enum import StrEnum

from swell.server.administration import current_principal
from swell.server.spec_change import NextSpec

_log = logging.getLogger(__name__)


class Way(StrEnum):
    """How it ends. The values are acts of the audit log."""

    DOWN = "down"  # everything drains and ends
    LEAVE = "leave"  # its gateway workers drain and end; replicas run on, for the next server that leads
    APPLY = "apply"  # everything runs on, for its successor in this process
    LOST = "lost"  # another server leads: as LEAVE, but nothing is stored


class Ending:
    """`stop` is set when the end has begun. `changed` is set with it, for who waits for anything at all."""

    def __init__(
        self,
        changed: asyncio.Event,
        say: Callable[[str], None],
        audit: Callable[[str, str], None],
        hurry: Callable[[], object],
        *,
        on_signal: Way = Way.DOWN,
    ) -> None:
        """`audit` notes an act and who did it; `hurry` has what drains stopped at once."""
        self.stop = asyncio.Event()
        self.following: NextSpec | None = None  # what shall be served next; None: nothing
        self.told: Way | None = None  # how this server shall end, or whoever comes after it; None: it shall not
        self._changed = changed
        self._say = say
        self._audit = audit
        self._hurry = hurry
        self._on_signal = on_signal
        self._signals = 0
        self._is_lost = False

    @property
    def way(self) -> Way | None:
        """How it ends now; None where it does not."""
        if self._is_lost:
            return Way.LOST
        return self.told if self.following is None else Way.APPLY

    def listen(self) -> None:
        """Take signals from now on, instead of whoever did before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup swell up` shall outlive its terminal
                loop.add_signal_handler(number, self._signalled, current_principal())

    def request(self, principal: str, way: Way = Way.DOWN) -> None:
        """Begin to end in that way; a server that hands over leaves that to its successor. DOWN goes before LEAVE."""
        if self.told in (way, Way.DOWN):
            return
        self.told = way
        _log.info("the server was told to stop", extra={"reason": way.value})
        self._begin(way.value, principal)

    def hand_over(self, following: NextSpec) -> None:
        """End in favour of a successor, unless the end has begun."""
        if not self.stop.is_set():
            self.following = following
            self._begin(Way.APPLY.value, current_principal())

    def lose(self) -> None:
        """Another server leads: end without another act on what it looks after now."""
        _log.error("another server leads, so this one stops")
        self._is_lost, self.following = True, None
        self.stop.set()
        self._changed.set()

    def _begin(self, act: str, principal: str) -> None:
        self.stop.set()
        self._changed.set()
        self._audit(act, principal)

    def _signalled(self, principal: str) -> None:
        self._signals += 1
        if self._signals == 1 and self.told is None:
            what = "running requests are finished"
            if self._on_signal is Way.LEAVE:
                self._say(f"Leaving: {what}, and replicas run on. Again to stop at once.")
            else:
                self._say(f"Draining: {what}. Again to stop at once.")
            self.request(principal, self._on_signal)
            return
        self._say("Stopping at once.")
        self._hurry()
