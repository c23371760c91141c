"""Keys that are live in the store and yet refused: told once per key and reason."""

import logging
from collections.abc import Callable, Iterable, Sequence

from swell.state.records import KeyRecord

NAMED_KEYS = 10  # in one sentence

_log = logging.getLogger(__name__)


class RefusedKeys:
    """`reasons` has why, by a key's id."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.reasons: dict[str, str] = {}

    def look(self, refused: Iterable[tuple[KeyRecord, str]]) -> None:
        """These are refused now, and no others."""
        before, self.reasons = self.reasons, {}
        new: dict[str, list[str]] = {}  # ids by reason: a tenant may have had many keys
        for key, why in refused:
            self.reasons[key.key_id] = why
            if before.get(key.key_id) != why:
                _log.error("a stored key is refused", extra={"key_id": key.key_id, "reason": why})
                new.setdefault(why, []).append(key.key_id)
        for why, ids in new.items():
            self._say(f"clients with {_named(ids)} are refused: {why}")


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - NAMED_KEYS
    return f"the key {', '.join(ids[:NAMED_KEYS])}" + (f" and {more} more (see: swell status)" if more > 0 else "")
