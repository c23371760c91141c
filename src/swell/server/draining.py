"""How a server's children end: gateway workers first, so that they finish what they serve, then the replicas.

A server that leaves ends its gateway workers alone, and one that was ousted does so without the store.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from swell.control.adoption import not_heard
from swell.control.fleet import Fleet
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER, Workload
from swell.ports.provider import Presence, Provider
from swell.server.ending import Ending, Way
from swell.server.gateway_workload import STOP_MARGIN_SECONDS
from swell.server.views import place

END_MARGIN_SECONDS = 10.0  # beyond what workers and replicas were promised
UNTIL_POLL_SECONDS = 0.2
PREPARED_SECONDS = 10.0  # until a place has taken away what it prepared for replicas that will not come
HURRIED_SECONDS = 1.0  # from a second signal to the kill

_log = logging.getLogger(__name__)


class Draining:
    """Ends what a fleet runs, each with the time that it was promised. `changed` is set when the fleet changes.

    What could not be ended is said, and noted for whoever asked for the end elsewhere.
    """

    def __init__(
        self,
        fleet: Fleet,
        providers: Mapping[str, Provider],
        changed: asyncio.Event,
        has_workers: Callable[[], bool],
        say: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:
        self._fleet = fleet
        self._providers = providers
        self._changed = changed
        self._has_workers = has_workers
        self._say = say
        self._note = note

    async def hurry(self, way: Way | None) -> None:
        """Let everything that ends have HURRIED_SECONDS and no more."""
        for replica in self._fleet.replicas:
            if replica.handle is not None and (way is Way.DOWN or replica.kind == GATEWAY_WORKER):
                await self._providers[replica.provider].stop(replica.handle, grace_seconds=HURRIED_SECONDS)

    async def drain(self, ending: Ending, worker_seconds: float, models: Sequence[Workload]) -> None:
        """Returns when nothing runs any more that shall end, or the time for it is over; then what is left was named.

        `ending` is asked again once the workers have ended: a command may have come, or another server.
        """
        self._fleet.want([w for w in self._fleet.workloads if w.kind != GATEWAY_WORKER])
        for replica in self._fleet.replicas:  # at once: a listener has no routes that must settle first
            if replica.kind == GATEWAY_WORKER and replica.handle is not None:
                provider = self._providers[replica.provider]
                await provider.stop(replica.handle, grace_seconds=replica.stop_grace_seconds)
        await self._until(
            lambda: not any(r.kind == GATEWAY_WORKER and self._runs(r, ending.way) for r in self._fleet.replicas),
            worker_seconds + STOP_MARGIN_SECONDS + END_MARGIN_SECONDS,
            GATEWAY_WORKER,
        )
        if ending.way is Way.DOWN:
            await self._end_replicas(models)

    def _runs(self, worker: Replica, way: Way | None) -> bool:
        """Of a server that was ousted the fleet keeps who has ended: it cannot take their entries out of the store."""
        if way is not Way.LOST:
            return True
        if worker.handle is None:
            return False
        return self._providers[worker.provider].status(worker.handle).presence is Presence.RUNNING

    async def _end_replicas(self, models: Sequence[Workload]) -> None:
        self._fleet.want([])
        longest = max((w.drain_seconds + w.stop_grace_seconds for w in models), default=0.0)
        await self._until(lambda: all(replica.unseen for replica in self._fleet.replicas), longest + END_MARGIN_SECONDS)
        for name, reason in self._fleet.awaited.items():
            what = f"{not_heard(name, reason)}. What may run there is left"
            self._tell(f"{what}: run swell down again once it answers, or swell down --forget {name} where it is gone")
        await end_preparations(self._fleet, self._tell)

    def _tell(self, sentence: str) -> None:
        self._say(sentence)
        self._note(sentence)

    async def _until(self, condition: Callable[[], bool], seconds: float, kind: str = "") -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if not self._has_workers():
                        self._fleet.report_in_flight({})  # nobody is left who could have a request open
                    self._changed.clear()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(UNTIL_POLL_SECONDS):  # `wait_for` may forget a cancellation
                            await self._changed.wait()
        except TimeoutError:
            left = [replica for replica in self._fleet.replicas if kind in ("", replica.kind)]
            _log.error("not everything ended in time", extra={"count": len(left), "reason": left_words(left)})
            self._tell(f"Not everything ended in time: {left_words(left)}")


def left_words(left: Iterable[Replica]) -> str:
    """Replicas that do not end, each with what keeps it, as far as its place says."""
    return ", ".join(place(each) + (f" ({each.waiting})" if each.waiting else "") for each in left)


def left_out_words(left_out: Mapping[str, str]) -> Iterator[str]:
    """Places of which nothing is wanted any more and that could not be asked, each with why."""
    for name, reason in left_out.items():
        what = f"{name}, which the file no longer names, cannot be asked, so what may run there is left alone: {reason}"
        yield f"{what}. Where it is gone for good, run: swell down --forget {name}"


async def end_preparations(fleet: Fleet, say: Callable[[str], None]) -> None:
    """Wait until nothing is prepared any more; what is left after PREPARED_SECONDS was named, with what deletes it."""
    deadline = asyncio.get_running_loop().time() + PREPARED_SECONDS
    while left := fleet.preparations():
        if asyncio.get_running_loop().time() >= deadline:
            named = [
                f"{each.what} {each.name} of {place}" + f" ({each.says})" * bool(each.says) for place, each in left
            ]
            names = ", ".join(named)
            commands = "; ".join(dict.fromkeys(each.by_hand for _, each in left if each.by_hand))
            _log.error("not everything that was prepared has gone", extra={"count": len(left), "reason": names})
            advice = f". To delete it, run: {commands}" if commands else ""
            say(f"Not everything that was prepared has gone: {names}{advice}")
            return
        await asyncio.sleep(UNTIL_POLL_SECONDS)
