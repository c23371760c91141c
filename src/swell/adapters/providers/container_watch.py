"""One stream of a daemon's events, begun again for as long as it takes, and the list of containers beside it."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from swell.adapters.providers.container_api import DockerApi, RefusedError, json_lines
from swell.adapters.providers.container_body import (
    CHILD,
    INSTALLATION,
    ContainerPlace,
    Seen,
    exit_code_of,
    seen_in_list,
)
from swell.errors import SwellError

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 5.0
RESYNC_SECONDS = 60.0
FIRST_RESYNC_SECONDS = 1.0  # a dockerd that has just begun tells no end of what it found running; then 2 s, 4 s, …
_ENDS = ("die", "died")  # the second is how podman is asked for the first

_log = logging.getLogger(__name__)

Find = Callable[[], Awaitable[list[Seen]]]


class Watch:
    """Calls `died` for each end, and `listed` with a way to ask for the list whenever it should be compared."""

    def __init__(
        self,
        place: ContainerPlace,
        api: DockerApi,
        *,
        died: Callable[[str, int | None], None],
        listed: Callable[[Find], Awaitable[None]],
    ) -> None:
        self._place = place
        self._api = api
        self._died = died
        self._listed = listed
        self._compare = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Watch from now on; again is no error."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._hear_for_ever()), loop.create_task(self._compare_for_ever())]

    async def close(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _hear_for_ever(self) -> None:
        retry, was_away = FIRST_RETRY_SECONDS, False
        while True:
            try:
                async with self._api.stream("GET", "/events", self._filter(), silence_seconds=None) as answer:
                    retry, was_away = FIRST_RETRY_SECONDS, False
                    self._api.heard()
                    self._compare.set()  # what ended before the stream began is in no event
                    async for event in json_lines(answer):
                        self._hear(event)
            except (SwellError, RefusedError) as error:
                if not was_away:
                    _log.warning("a container daemon's events cannot be heard", extra={"reason": str(error)})
                was_away = True
            await asyncio.sleep(retry)
            retry = min(MAX_RETRY_SECONDS, 2 * retry)

    def _filter(self) -> dict[str, str]:
        label = f"{INSTALLATION}={self._place.installation}"
        return {"filters": json.dumps({"type": ["container"], "label": [label], "event": list(_ENDS)})}

    def _hear(self, event: Mapping[str, Any]) -> None:
        told = (event.get("Actor") or {}).get("Attributes") or {}
        action = event.get("Action") or event.get("status")
        if action in _ENDS and told.get(INSTALLATION) == self._place.installation and told.get(CHILD):
            self._died(str(told[CHILD]), exit_code_of(told.get("exitCode", told.get("containerExitCode"))))

    async def _compare_for_ever(self) -> None:
        pause = RESYNC_SECONDS
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._compare.wait()
                pause = FIRST_RESYNC_SECONDS
            except TimeoutError:
                pause = min(RESYNC_SECONDS, 2 * pause)
            self._compare.clear()
            try:
                await self._listed(self.find)
            except (SwellError, RefusedError) as error:
                _log.warning("a container daemon's list cannot be had", extra={"reason": str(error)})

    async def find(self) -> list[Seen]:
        """Every container of this installation and place. Raises AtCapacity or RefusedError."""
        label = f"{INSTALLATION}={self._place.installation}"
        entries = await self._api.call(
            "GET", "/containers/json", {"all": "1", "filters": json.dumps({"label": [label]})}
        )
        seen = [seen_in_list(entry, self._place) for entry in entries or ()]
        return [each for each in seen if each.child_id]
