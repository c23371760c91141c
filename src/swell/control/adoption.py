"""Taking over what an earlier server left running, place by place.

A place that does not answer keeps no other from being taken over: what the store knows of it is left as it is, counted
as what runs, and found out about as soon as the place answers. Until then nothing is started there and nothing ended,
not even what was found there before it fell silent.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swell.clock import Clock
from swell.control.intents import Intents, from_record, in_place
from swell.control.launch import MAX_TOGETHER
from swell.control.replica import Replica
from swell.control.workload import GATEWAY_WORKER, Workload
from swell.errors import AtCapacity, SwellError
from swell.ports.provider import ChildHandle, Provider
from swell.state.records import ProcessRecord, StartedProcess
from swell.state.replica import Phase

_log = logging.getLogger(__name__)

ASK_AGAIN_SECONDS = 5.0  # from one try to reach an awaited place to the next, at least


class Adoption:
    """Finds who still runs. `begin` once; then `look` in every step. One event loop.

    `renamed` says of providers that the store may call by an earlier name what they are called now. `spared` are those
    of which nothing is wanted any more. `answered` is called when there may be something to `look` at.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        intents: Intents,
        clock: Clock,
        renamed: Mapping[str, str],
        spared: Collection[str],
        answered: Callable[[], None],
    ) -> None:
        self._providers = providers
        self._intents = intents
        self._clock = clock
        self._renamed = renamed
        self._spared = spared
        self._answered = answered
        self._workloads: Mapping[str, Workload] = {}
        self._unseen: dict[str, Replica] = {}  # by child id, as stored
        self._asking: dict[str, asyncio.Task[list[Replica]]] = {}  # by awaited place
        self._ask_at: dict[str, float] = {}  # as well
        self._may_await: set[str] = set()
        self._turns = {place: asyncio.Lock() for place in providers}  # a place is asked one thing at a time
        self.left_out: dict[str, str] = {}  # spared providers that could not be asked, and why
        self.awaited: dict[str, str] = {}  # providers that have not answered yet, and why

    async def begin(self, workloads: Mapping[str, Workload], awaits: Collection[str] | None) -> list[Replica]:
        """Who runs, or may run in a place that does not answer; whoever ended meanwhile is forgotten.

        Places in `awaits`, and those of which the store knows a replica, may be awaited; with None there are none.
        Raises SwellError, AtCapacity for any other place that cannot be asked.
        """
        self._workloads = workloads
        now = self._clock.monotonic()
        stored = list(_stored(await self._intents.list_processes(), now))
        if awaits is not None:
            used = {self._name_now(replica) for _, replica in stored if replica.kind != GATEWAY_WORKER}
            self._may_await = {*awaits, *used}
        found = await self._find_all([replica for _, replica in stored])
        result: list[Replica] = []
        changed: list[tuple[ProcessRecord, Replica]] = []
        gone: list[str] = []
        for record, replica in stored:
            known, place = found.get(replica.child_id), self._name_now(replica)
            if known is not None and known.provider not in {*self.awaited, *self.left_out}:
                result.append(known)
                changed.append((record, known))
            elif self._is_awaited(replica):
                result.append(self._keep(replica, now))
            elif place in self._providers and place not in self.left_out:
                gone.append(record.process_id)
        for begin in range(0, len(gone), MAX_TOGETHER):
            await self._intents.remove_processes(gone[begin : begin + MAX_TOGETHER])
        await self._note(changed)
        return result

    def look(self, now: float) -> tuple[list[Replica], list[str]]:
        """Of whom it has become known whether they run (`alive`), and ids of those that are not known of any more: in a
        place that is left out nobody can tell. Asks again where it is time."""
        told: list[Replica] = []
        for place in list(self.awaited):
            task = self._asking.get(place)
            if task is None:
                if now >= self._ask_at.get(place, now):
                    self._ask_at[place] = now + ASK_AGAIN_SECONDS
                    task = self._asking[place] = asyncio.create_task(self._ask(place))
                    task.add_done_callback(lambda _: self._answered())
            elif task.done():
                del self._asking[place]
                error = task.exception()
                if isinstance(error, Exception):
                    self._ask_at[place] = now + self._failed(place, error)
                    continue
                running = task.result()
                del self.awaited[place]
                told += [each for each in running if self._unseen.pop(each.child_id, None) is not None]
        lost: list[str] = []
        for replica in [each for each in self._unseen.values() if not self._is_awaited(each)]:
            del self._unseen[replica.child_id]
            if self._name_now(replica) in self.left_out:
                lost.append(replica.child_id)
            else:
                told.append(replace(replica, alive=False))
        return told, lost

    def awaited_place(self, child_id: str) -> str | None:
        """Where one may run that is unseen yet; None for anybody else."""
        replica = self._unseen.get(child_id)
        if replica is None:
            return None
        return next((place for place in self._places_of(replica) if place in self.awaited), None)

    def _failed(self, place: str, error: Exception) -> float:
        """Note why a place was not taken over; in how many seconds it is asked again."""
        if not isinstance(error, SwellError):
            _log.error("a place could not be taken over", extra={"place": place}, exc_info=error)
        self.awaited[place] = str(error) or type(error).__name__
        return max(ASK_AGAIN_SECONDS, getattr(error, "retry_after_seconds", 0.0))

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def _find_all(self, stored: Sequence[Replica]) -> dict[str, Replica]:
        """Who was found, by child id. Places are asked beside each other."""
        by_place: dict[str, list[Replica]] = {place: [] for place in self._providers}
        for replica in stored:
            for place in self._places_of(replica)[:1]:
                by_place[place].append(replica)
        found: dict[str, Replica] = {}

        async def ask(replicas: Sequence[Replica]) -> None:
            for replica in replicas:
                known = await self._find(replica)
                if known is not None:
                    found[replica.child_id] = known

        async def end(place: str) -> None:
            try:
                await self._providers[place].end_orphans()
            except AtCapacity as away:
                self._do_without(place, away)

        await _all([ask(replicas) for replicas in by_place.values() if replicas])
        await _all([end(place) for place in by_place if place not in self.left_out and place not in self.awaited])
        return found

    def _keep(self, replica: Replica, now: float) -> Replica:
        """One that may run: what it was is what it is until its place answers."""
        self._unseen[replica.child_id] = replica
        place = next(place for place in self._places_of(replica) if place in self.awaited)
        why = not_heard(place, self.awaited[place])
        ready = replica.to(Phase.READY, now)
        return replace(ready, provider=place, handle=None, alive=True, unseen=True, waiting=why)

    async def _ask(self, place: str) -> list[Replica]:
        """Who runs of those that may run there. Raises SwellError."""
        told: list[Replica] = []
        provider = self._providers[place]
        for replica in [each for each in self._unseen.values() if place in self._places_of(each)]:
            handle = await provider.adopt(replica.child_id, self._log_path(replica, provider), replica.handle)
            if handle is not None:
                told.append(self._adopted(replica, place, handle))
        if told:
            stored = {record.process_id: record for record in await self._intents.list_processes()}
            await self._note([(stored[each.child_id], each) for each in told if each.child_id in stored])
        await provider.end_orphans()
        return told

    async def _note(self, changed: Sequence[tuple[ProcessRecord, Replica]]) -> None:
        """Store where those run that were found, where that is new."""
        moved = [in_place(record, now.provider) for record, now in changed if record.detail["provider"] != now.provider]
        found = [
            StartedProcess(record.process_id, now.handle.pid, now.handle.start_time)
            for record, now in changed
            if now.handle is not None and record.pid != now.handle.pid
        ]
        for begin in range(0, len(moved), MAX_TOGETHER):
            await self._intents.record_processes(moved[begin : begin + MAX_TOGETHER])
        for begin in range(0, len(found), MAX_TOGETHER):
            await self._intents.record_started(found[begin : begin + MAX_TOGETHER])

    async def _find(self, replica: Replica) -> Replica | None:
        """Who still runs, in the place that it is stored with, or where its like run now: that may be the same one
        under another name, which a server that has the store alone was not told."""
        for place in self._places_of(replica):
            provider = self._providers[place]
            async with self._turns[place]:
                if place in self.left_out or place in self.awaited:
                    continue
                try:
                    handle = await provider.adopt(replica.child_id, self._log_path(replica, provider), replica.handle)
                except AtCapacity as away:
                    self._do_without(place, away)
                    continue
            if handle is not None:
                return self._adopted(replica, place, handle)
        return None

    def _adopted(self, replica: Replica, place: str, handle: ChildHandle) -> Replica:
        log_path = self._log_path(replica, self._providers[place])
        return replace(replica, provider=place, log_path=log_path, handle=handle, alive=True)

    def _log_path(self, replica: Replica, provider: Provider) -> Path:
        """One with a network of its own has its log copied: to this server, which may not be the one before."""
        workload = self._workloads.get(replica.workload)
        if workload is not None and provider.binding.port is not None:
            return workload.log_path(replica.ordinal)
        return replica.log_path

    def _is_awaited(self, replica: Replica) -> bool:
        return any(place in self.awaited for place in self._places_of(replica))

    def _places_of(self, replica: Replica) -> list[str]:
        workload = self._workloads.get(replica.workload)
        places = [self._name_now(replica), *([workload.provider] if workload is not None else [])]
        return [each for each in dict.fromkeys(places) if each in self._providers]

    def _do_without(self, place: str, away: AtCapacity) -> None:
        """Leave out one of which nothing is wanted, and wait for any other one."""
        if place in self._spared:
            self.left_out[place] = str(away)
        elif place in self._may_await:
            self.awaited[place] = str(away)
        else:
            raise AtCapacity(f"{place}: {away}", retry_after_seconds=away.retry_after_seconds) from away

    def _name_now(self, replica: Replica) -> str:
        return self._renamed.get(replica.provider, replica.provider)


def _stored(records: Sequence[ProcessRecord], now: float) -> Iterator[tuple[ProcessRecord, Replica]]:
    for record in records:
        try:
            yield record, from_record(record, now)
        except ValueError:
            continue


async def _all(acts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Beside each other, and all of them to their end. Raises what the first one raised."""
    for result in await asyncio.gather(*acts, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def not_heard(place: str, reason: str) -> str:
    """Why nothing is started in a place, and nothing known of what runs there."""
    return f"{place} has not answered since this server began: {reason}"
