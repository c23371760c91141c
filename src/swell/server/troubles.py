"""Telling a person what failed: once per child and reason, in one line, with where to read on."""

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from swell.control.adoption import not_heard
from swell.control.replica import Replica
from swell.server.views import place
from swell.state.replica import Phase

_log = logging.getLogger(__name__)


class Troubles:
    """Says what is new among the failures; a child that became ready again may fail anew."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: dict[str, str] = {}  # reason by place
        self._awaited: set[str] = set()

    def look(self, replicas: Iterable[Replica], awaited: Mapping[str, str]) -> None:
        """Tell what has failed since the last look, and which providers do not answer, with the reason."""
        for provider in sorted(awaited.keys() - self._awaited):
            self.say(f"{not_heard(provider, awaited[provider])}. What ran there is left as it is; it is asked again")
        for provider in sorted(self._awaited - awaited.keys()):
            self.say(f"{provider} answers, and what runs there is taken over")
        self._awaited = set(awaited)
        for replica in replicas:
            if replica.routable:
                self._told.pop(place(replica), None)
            elif replica.phase is Phase.FAILED:
                self._failed(replica)

    def say(self, sentence: str) -> None:
        """Tell, if anybody still listens: a closed terminal must not stop the server."""
        with suppress(OSError, ValueError):
            self._tell(sentence)

    def _failed(self, replica: Replica) -> None:
        reason, _, tail = replica.last_error.partition("\n")
        if self._told.get(place(replica)) == reason:
            return
        self._told[place(replica)] = reason
        _log.warning(
            "a child failed",
            extra={
                "replica_id": replica.child_id,
                "model": replica.serves,
                "attempt": replica.failures,
                "exit_code": replica.exit_code,
            },
        )
        last_words = tail.strip().rpartition("\n")[2]
        told = f"{place(replica)} {reason}" + (f": {last_words}" if last_words else "")
        self.say(f"{told} (Swell tries again; see: swell logs {place(replica)})")
