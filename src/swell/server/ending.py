"""How a server comes to its end: told to stop by a command or a signal, or succeeded by one with another spec."""

import asyncio
import logging
import signal
from collections.abc import Callable

from swell.server.administration import current_principal
from swell.server.spec_change import NextSpec

_log = logging.getLogger(__name__)


class Ending:
    """`stop` is set when the end has begun. `changed` is set with it, for who waits for anything at all."""

    def __init__(
        self,
        changed: asyncio.Event,
        say: Callable[[str], None],
        audit: Callable[[str, str], None],
        hurry: Callable[[], object],
    ) -> None:
        """`audit` notes an act and who did it; `hurry` has what drains stopped at once."""
        self.stop = asyncio.Event()
        self.following: NextSpec | None = None  # what shall be served next; None: nothing
        self._changed = changed
        self._say = say
        self._audit = audit
        self._hurry = hurry
        self._signals = 0
        self._is_told_to_stop = False

    def was_told_to_stop(self) -> bool:
        """Whether this server shall stop, or whoever comes after it."""
        return self._is_told_to_stop

    def listen(self) -> None:
        """Take signals from now on, instead of whoever did before."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup swell up` shall outlive its terminal
                loop.add_signal_handler(number, self._signalled, current_principal())

    def request(self, principal: str) -> None:
        """Begin to drain and stop; a server that hands over leaves that to its successor."""
        if self._is_told_to_stop:
            return
        self._is_told_to_stop = True
        _log.info("the server was told to stop")
        self._begin("down", principal)

    def hand_over(self, following: NextSpec) -> None:
        """End in favour of a successor, unless the end has begun."""
        if not self.stop.is_set():
            self.following = following
            self._begin("apply", current_principal())

    def _begin(self, act: str, principal: str) -> None:
        self.stop.set()
        self._changed.set()
        self._audit(act, principal)

    def _signalled(self, principal: str) -> None:
        self._signals += 1
        if self._signals == 1 and not self._is_told_to_stop:
            self._say("Draining: running requests are finished. Again to stop at once.")
            self.request(principal)
            return
        self._say("Stopping at once.")
        self._hurry()
