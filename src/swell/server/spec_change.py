"""Changing the spec of a running server: read and checked, models fetched, and then handed over.

A server that changes its spec ends as a killed one does, except that it books and keeps what it knows first, and its
successor in the same process adopts what runs: replicas and gateway workers serve on meanwhile. So there is one way in
which a server takes over, and it is the one that is tested by kills.

A change comes from the file, by `swell apply`, or from the resources beside it (RFC 8). Either way the whole is
checked, and a resource whose model cannot be had is refused, where the file's would refuse the change.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swell.clock import Clock
from swell.errors import ModelUnavailable, RetryLater, SwellError
from swell.server.background import Background
from swell.server.spec_diff import Difference, check_change, differences
from swell.spec import Spec
from swell.spec.custom_resources import KINDS
from swell.spec.declared import UNAVAILABLE, Key, Refusal, Wanted

RETRY_SECONDS = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NextSpec:
    """What a successor shall serve. `prepared` is whatever the one that prepares makes of it."""

    wanted: Wanted
    file: Path | None  # None: the default one, which is in no file
    prepared: Any

    @property
    def spec(self) -> Spec:
        """The file's with the resources."""
        return self.wanted.spec


Join = Callable[[Spec, Mapping[Key, Refusal]], Wanted]
"""What a file says, with the resources that there are by now; some are known to be unfit."""


@dataclass(frozen=True)
class Change:
    """How the spec is read and made ready. All may take their time, and raise SwellError.

    `problem` is why an earlier change did not come about.
    """

    read: Callable[[Path], Spec]
    join: Join
    prepare: Callable[[Spec], Any]
    problem: str = ""


def prepared(of_file: Spec, join: Join, prepare: Callable[[Spec], Any]) -> tuple[Wanted, Any]:
    """What shall be served, made ready. A resource whose model cannot be had is refused; the file's is raised."""
    refused: dict[Key, Refusal] = {}
    while True:
        wanted = join(of_file, refused)
        try:
            return wanted, prepare(wanted.spec)
        except ModelUnavailable as error:
            key = wanted.resource_of(error.model)
            if key is None:
                raise
            refused[key] = Refusal(UNAVAILABLE, error.message)  # each turn has one resource less


def digest_of(spec: Spec) -> str:
    """What tells a spec from every other."""
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()[:16]


class SpecDesk:
    """Made once per server. `hand_over` ends it in favour of a successor."""

    def __init__(
        self, wanted: Wanted, file: Path | None, change: Change, clock: Clock, hand_over: Callable[[NextSpec], None]
    ) -> None:
        self.wanted = wanted
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
            "digest": digest_of(self.wanted.of_file),
            "file": None if self._file is None else str(self._file),
            "since_unix": self._since_unix,
            "changing": self._is_busy,
            "problem": self._problem,
            "refused_resources": [
                {"kind": KINDS[plural], "name": name, "reason": refusal.reason, "message": refusal.message}
                for (plural, name), refusal in sorted(self.wanted.refusals.items())
            ],
        }

    async def differences(self, file: Path) -> list[Difference]:
        """What applying the file would change. Raises SwellError for a file that is refused."""
        found = await asyncio.to_thread(self._read, file)
        check_change(self.wanted.spec, found.spec)
        return differences(self.wanted.spec, found.spec)

    async def apply(self, file: Path) -> str:
        """Begin to change to the file; returns its digest, which `status` has once it has come about.

        Raises SwellError for a file that is refused, RetryLater while another change is under way.
        """
        self._begin()
        try:
            found = await asyncio.to_thread(self._read, file)
            check_change(self.wanted.spec, found.spec)
        except BaseException:
            self._is_busy = False
            raise
        self._problem = ""
        if digest_of(found.spec) == digest_of(self.wanted.spec):
            self._is_busy, self.wanted = False, found
        else:
            self._background.run(self._prepare(found.of_file, file), "the spec could not be changed")
        return digest_of(found.of_file)

    async def join(self) -> None:
        """Serve the resources that there are by now; returns when that is known to change nothing, or has begun.

        Raises SwellError where it could not be, RetryLater while another change is under way.
        """
        self._begin()
        await self._prepare(self.wanted.of_file, self._file)

    def _begin(self) -> None:
        if self._is_busy:
            raise RetryLater("another change of the spec is under way", retry_after_seconds=RETRY_SECONDS)
        self._is_busy = True

    def _read(self, file: Path) -> Wanted:
        return self._change.join(self._change.read(file), {})

    async def _prepare(self, of_file: Spec, file: Path | None) -> None:
        try:
            found, ready = await asyncio.to_thread(prepared, of_file, self._change.join, self._change.prepare)
        except BaseException as error:
            self._is_busy = False
            self._problem = str(error) if isinstance(error, SwellError) else f"{type(error).__name__}: {error}"
            raise
        if digest_of(found.spec) == digest_of(self.wanted.spec):
            self._is_busy, self.wanted = False, found
            return
        _log.info("the server changes its spec", extra={"reason": str(file)})
        self._hand_over(NextSpec(found, file, ready))
