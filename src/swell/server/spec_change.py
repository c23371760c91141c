"""Changing the spec of a running server: read and checked, models fetched, and then handed over.

A server that changes its spec ends as a killed one does, except that it books and keeps what it knows first, and its
successor in the same process adopts what runs: replicas and gateway workers serve on meanwhile. So there is one way in
which a server takes over, and it is the one that is tested by kills.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swell.clock import Clock
from swell.errors import RetryLater, SwellError
from swell.server.background import Background
from swell.server.spec_diff import Difference, check_change, differences
from swell.spec import Spec

RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NextSpec:
    """What a successor shall serve. `prepared` is whatever the one that prepares makes of it."""

    spec: Spec
    file: Path | None  # None: the default one, which is in no file
    prepared: Any


@dataclass(frozen=True)
class Change:
    """How the spec is read and made ready. Both may take their time, and raise SwellError.

    `problem` is why an earlier change did not come about.
    """

    read: Callable[[Path], Spec]
    prepare: Callable[[Spec], Any]
    problem: str = ""


def digest_of(spec: Spec) -> str:
    """What tells a spec from every other."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]


class SpecDesk:
    """Made once per server. `hand_over` ends it in favour of a successor."""

    def __init__(
        self, spec: Spec, file: Path | None, change: Change, clock: Clock, hand_over: Callable[[NextSpec], None]
    ) -> None:
        self._spec = spec
        self._file = file
        self._change = change
        self._since_unix = clock.unix()
        self._hand_over = hand_over
        self._background = Background()
        self._is_busy = False
        self._problem = change.problem

    def status(self) -> dict[str, Any]:
        """For `swell status` and for who waits for a change."""
        return {
            "digest": digest_of(self._spec),
            "file": None if self._file is None else str(self._file),
            "since_unix": self._since_unix,
            "changing": self._is_busy,
            "problem": self._problem,
        }

    async def differences(self, file: Path) -> list[Difference]:
        """What applying the file would change. Raises SwellError for a file that is refused."""
        spec = await asyncio.to_thread(self._change.read, file)
        check_change(self._spec, spec)
        return differences(self._spec, spec)

    async def apply(self, file: Path) -> str:
        """Begin to change to the file; returns the digest that `status` has once it has come about.

        Raises SwellError for a file that is refused, RetryLater while another change is under way.
        """
        if self._is_busy:
            raise RetryLater("another change of the spec is under way", retry_after_seconds=RETRY_SECONDS)
        self._is_busy = True
        try:
            spec = await asyncio.to_thread(self._change.read, file)
            check_change(self._spec, spec)
        except BaseException:
            self._is_busy = False
            raise
        self._problem = ""
        if digest_of(spec) == digest_of(self._spec):
            self._is_busy = False
        else:
            self._background.run(self._prepare(spec, file), "the spec could not be changed")
        return digest_of(spec)

    async def _prepare(self, spec: Spec, file: Path) -> None:
        try:
            prepared = await asyncio.to_thread(self._change.prepare, spec)
        except Exception as error:
            self._is_busy = False
            self._problem = str(error) if isinstance(error, SwellError) else f"{type(error).__name__}: {error}"
            raise
        _log.info("the server changes its spec", extra={"reason": str(file)})
        self._hand_over(NextSpec(spec, file, prepared))
