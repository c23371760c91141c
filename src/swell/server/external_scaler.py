"""What KEDA is answered about a model: how many replicas it shall have, and whether it shall have any.

An operator runs replicas as a Deployment of their own, and KEDA sets its size. The number is Swell's decision, with
target 1, so that an autoscaler comes to exactly so many. Nothing is applied here, and no answer is given by a server
that may not decide: KEDA takes an error as "unknown" and changes nothing, or goes by its own `fallback`.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from enum import StrEnum

from swell.errors import SwellError
from swell.ports.provider import Confirm
from swell.server.desired_counts import DesiredCounts
from swell.state.catalogue_rows import listed_names, nearest_name

METRIC = "swell-replicas"
MODEL = "model"  # in a trigger's metadata
CONFIRM_SECONDS = 5.0  # for the store to say whether this server leads
MAX_FOLLOWERS = 1000  # at once
MAX_SHOWN = 200  # characters of what somebody sent


class Refusal(StrEnum):
    """Why there is no answer; each is a status of gRPC."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"


class NotAnsweredError(Exception):
    """There is no answer, because of `refusal`; the text says what to do."""

    def __init__(self, refusal: Refusal, problem: str) -> None:
        super().__init__(problem)
        self.refusal = refusal


class ExternalScaler:
    """Answers until `stopping` is set. `confirm` raises where it is not sure that this server decides."""

    def __init__(self, counts: DesiredCounts, confirm: Confirm, stopping: asyncio.Event) -> None:
        self._counts = counts
        self._confirm = confirm
        self._stopping = stopping
        self._followers = 0

    async def desired(self, metadata: Mapping[str, str]) -> int:
        """How many replicas the model of a trigger shall have. Raises NotAnsweredError."""
        self.model_of(metadata)
        await self._lead()
        return self._counts.all()[self.model_of(metadata)]  # it may be gone by now

    async def activity(self, metadata: Mapping[str, str]) -> AsyncGenerator[bool, None]:
        """Whether the model of a trigger shall have any replica: now, and at once when that changes.

        Raises NotAnsweredError at the beginning only. Later it ends where nothing can be said any more, such as when
        the server stops: after an end KEDA comes back in 2 s, and after errors in up to a minute.
        """
        model = self.model_of(metadata)
        if self._followers >= MAX_FOLLOWERS:
            raise NotAnsweredError(
                Refusal.RESOURCE_EXHAUSTED, f"{MAX_FOLLOWERS} streams are open already; use triggers of type external"
            )
        self._followers += 1
        stopped = asyncio.ensure_future(self._stopping.wait())
        told: bool | None = None
        try:
            async with aclosing(self._counts.follow(model)) as counts:
                while True:
                    following = asyncio.ensure_future(anext(counts))
                    try:
                        await asyncio.wait((following, stopped), return_when=asyncio.FIRST_COMPLETED)
                        try:
                            await self._lead()
                        except NotAnsweredError:
                            if told is None:
                                raise
                            return
                        try:
                            active = following.result() > 0
                        except StopAsyncIteration:  # the model is gone, which is no reason to let its Pods go
                            return
                    finally:
                        following.cancel()
                        await asyncio.wait([following])
                    if active is not told:
                        told = active
                        yield active
        finally:
            stopped.cancel()
            self._followers -= 1

    def model_of(self, metadata: Mapping[str, str]) -> str:
        """The model that a trigger's metadata names. Raises NotAnsweredError where it names none that there is."""
        known = sorted(self._counts.all())
        name = metadata.get(MODEL, "")
        if not name:
            raise NotAnsweredError(
                Refusal.INVALID_ARGUMENT,
                f"the trigger's metadata does not say which model; add {MODEL}: with one of: {listed_names(known)}",
            )
        if name not in known:
            near = nearest_name(name, known)
            hint = f"did you mean {near}?" if near else f"there are: {listed_names(known)}"
            raise NotAnsweredError(Refusal.NOT_FOUND, f"there is no model {name[:MAX_SHOWN]!r}; {hint}")
        return name

    async def _lead(self) -> None:
        """Raises NotAnsweredError where this server stops, or another one may lead."""
        if self._stopping.is_set():
            raise NotAnsweredError(Refusal.UNAVAILABLE, "this server is stopping; ask again once one serves")
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._confirm()
        except (SwellError, TimeoutError) as error:
            raise NotAnsweredError(Refusal.UNAVAILABLE, str(error) or "the store does not answer") from error


def check_metric(name: str) -> None:
    """Raises NotAnsweredError for a metric that is not the one that there is."""
    if name not in ("", METRIC):
        raise NotAnsweredError(
            Refusal.INVALID_ARGUMENT, f"there is no metric {name[:MAX_SHOWN]!r}; the only one is {METRIC}"
        )
